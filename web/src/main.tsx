/** The page's beginning: puts browser, domain and screen together. */
import { effect } from "@preact/signals";
import { render } from "preact";
import { App } from "./domain/app.ts";
import { registerWorker } from "./platform/worker.ts";
import { browserOptions, watchLife } from "./platform/browser.ts";
import { pushBrowser, showUnread } from "./platform/push.ts";
import { applyLook, loadLook } from "./platform/theme.ts";
import { Root } from "./ui/Root.tsx";
import { newerBuild } from "./ui/newer.ts";
import { go, watchRoute } from "./ui/route.ts";
import { loadShell } from "./ui/shell.ts";
import "./ui/styles/base.css";
import "./ui/styles/accents.css";
import "./ui/styles/parts.css";
import "./ui/styles/welcome.css";
import "./ui/styles/shell.css";
import "./ui/styles/room.css";
import "./ui/styles/message.css";
import "./ui/styles/media.css";
import "./ui/styles/notifications.css";
import "./ui/styles/direction.css";
import "./ui/styles/people.css";
import "./ui/styles/keys.css";
import "./ui/styles/access.css";

watchRoute();
const app = new App({ ...browserOptions(), prepare: loadShell, push: pushBrowser((roomId) => go({ page: "room", roomId })), reload: () => location.reload() });
watchLife(app);
effect(() => {
    const { value: view } = app.view;
    const look = view.kind === "signed-in" ? view.chat.preferences.current.value : undefined;
    if (look) void applyLook(look);
});
effect(() => {
    const { value: view } = app.view;
    showUnread(view.kind === "signed-in" ? view.chat.notifications.unread.value : 0);
});
void app.start();
await applyLook(loadLook()); // no word is shown in another language first
render(<Root app={app} />, document.getElementById("app")!);
void registerWorker((take) => (newerBuild.value = take));

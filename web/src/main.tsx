/** The page's beginning: puts browser, domain and screen together. */
import { render } from "preact";
import { App } from "./domain/app.ts";
import { browserOptions, watchLife } from "./platform/browser.ts";
import { applyTheme, loadTheme } from "./platform/theme.ts";
import { Root } from "./ui/Root.tsx";
import { watchRoute } from "./ui/route.ts";
import "./ui/styles/base.css";
import "./ui/styles/parts.css";
import "./ui/styles/welcome.css";
import "./ui/styles/shell.css";
import "./ui/styles/room.css";
import "./ui/styles/message.css";

applyTheme(loadTheme());
watchRoute();
const app = new App(browserOptions());
watchLife(app);
void app.start();
render(<Root app={app} />, document.getElementById("app")!);

/** Who is signed in, how the app looks, and the way out. */
import type { JSX } from "preact";
import { useState } from "preact/hooks";
import type { App } from "../domain/app.ts";
import type { Chat } from "../domain/chat.ts";
import { localpart } from "../domain/ids.ts";
import { applyTheme, loadTheme, type Theme } from "../platform/theme.ts";
import { Avatar, Choice, Dialog } from "./parts.tsx";
import { go } from "./route.ts";

const CONNECTIONS = {
    socket: "Connected",
    http: "Connected, without the quick way (a proxy may block WebSockets)",
    connecting: "Connecting…",
    offline: "Offline",
    stopped: "Not connected",
} as const;

export function Account({ app, chat, onClose }: { app: App; chat: Chat; onClose: () => void }): JSX.Element {
    const [theme, setTheme] = useState<Theme>(loadTheme());
    const change = (to: Theme): void => {
        applyTheme(to);
        setTheme(to);
    };
    const signOut = (): void => {
        onClose();
        go({ page: "signin" }, true);
        void app.signOut();
    };
    return (
        <Dialog title="Account" onClose={onClose}>
            <div class="account">
                <Avatar id={chat.userId} name={localpart(chat.userId)} />
                <div>
                    <strong>{localpart(chat.userId)}</strong>
                    <p class="hint">{chat.userId}</p>
                    <p class="hint">{CONNECTIONS[app.connection.value.kind]}</p>
                </div>
            </div>
            <Choice
                label="Appearance"
                value={theme}
                onChange={change}
                options={[
                    ["system", "System"],
                    ["light", "Light"],
                    ["dark", "Dark"],
                ]}
            />
            <button type="button" class="button danger" onClick={signOut}>
                Sign out
            </button>
        </Dialog>
    );
}

/** Being told of messages: the question at a good moment, the switch of this device, quiet hours, and what each room tells of. */
import type { JSX } from "preact";
import type { Chat } from "../domain/chat.ts";
import { t } from "../domain/i18n.ts";
import type { PushState } from "../domain/notifications.ts";
import type { Preferences } from "../domain/preferences.ts";
import type { RoomNotify } from "../domain/roomnotify.ts";
import { useAttempt, useChosen } from "./attempt.ts";
import { Choice, Failure, Icon, Switch } from "./parts.tsx";

/** Once, after something was said; never before anybody knows what the app is. */
export function NotificationNote({ chat }: { chat: Chat }): JSX.Element | null {
    const { notifications } = chat;
    const [busy, error, run] = useAttempt();
    if (!notifications.mayAsk.value && error === undefined && !busy) return null;
    return (
        <div class="question">
            <Icon name="bell" />
            <div>
                <strong>{t("Shall we tell you when somebody answers?")}</strong>
                <span class="hint">{t("On this device, also when hubbub is closed.")}</span>
                <div class="question-buttons">
                    <button type="button" class="button primary small" disabled={busy} onClick={() => run(() => notifications.turnOn())}>
                        {t("Turn on")}
                    </button>
                    <button type="button" class="button small" onClick={() => run(() => notifications.decline())}>
                        {t("Not now")}
                    </button>
                </div>
                <Failure words={error} />
            </div>
        </div>
    );
}

const HINTS = (): Record<PushState, string> => ({
    unsupported: t("This browser has no notifications for web apps. On an iPhone or iPad, add hubbub to the home screen first."),
    off: t("You see what is new when you open hubbub."),
    blocked: t("The browser blocks them. Allow notifications for this page in its settings, and load the page again."),
    proving: t("Waiting for the first sign from the browser’s service…"),
    on: t("Also when hubbub is closed. What is said in encrypted conversations stays between you: the server only says that there is something."),
});

export function NotificationSettings({ chat, quiet, onQuiet }: { chat: Chat; quiet: Preferences["quiet"]; onQuiet: (change: Partial<Preferences["quiet"]>) => void }): JSX.Element {
    const { notifications } = chat;
    const state = notifications.state.value;
    const [busy, error, run] = useAttempt();
    const on = state === "on" || state === "proving";
    return (
        <section class="notification-settings" aria-label={t("Notifications")}>
            <h3>{t("Notifications")}</h3>
            <Switch
                label={t("On this device")}
                hint={HINTS()[state]}
                on={on}
                disabled={busy || state === "unsupported" || state === "blocked"}
                onChange={(wanted) => run(() => (wanted ? notifications.turnOn() : notifications.turnOff()))}
            />
            <Failure words={error} />
            <Switch label={t("Quiet hours")} hint={t("Notifications come without a sound, on all your devices.")} on={quiet.on} onChange={(on) => onQuiet({ on })} />
            {quiet.on && (
                <div class="quiet-hours">
                    <TimeField label={t("From")} value={quiet.from} onChange={(from) => onQuiet({ from })} />
                    <TimeField label={t("To")} value={quiet.to} onChange={(to) => onQuiet({ to })} />
                </div>
            )}
        </section>
    );
}

export function RoomNotifications({ chat, roomId }: { chat: Chat; roomId: string }): JSX.Element {
    const [value, choose] = useChosen(chat.notifyOf(roomId));
    const [, error, run] = useAttempt();
    const change = (to: RoomNotify): void => choose(to, run(() => chat.setNotify(roomId, to)));
    return (
        <>
            <Choice
                label={t("Notifications")}
                value={value}
                onChange={change}
                options={[
                    ["all", t("All")],
                    ["mentions", t("Mentions")],
                    ["none", t("Nothing")],
                ]}
            />
            <Failure words={error} />
        </>
    );
}

function TimeField({ label, value, onChange }: { label: string; value: string; onChange: (value: string) => void }): JSX.Element {
    return (
        <label>
            <span>{label}</span>
            <input type="time" required value={value} onChange={(event) => event.currentTarget.value !== "" && onChange(event.currentTarget.value)} />
        </label>
    );
}

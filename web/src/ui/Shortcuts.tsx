/** Which keys do what, and whether those that work everywhere do. */
import { Fragment, type JSX } from "preact";
import type { Chat } from "../domain/chat.ts";
import { t } from "../domain/i18n.ts";
import { loadLook } from "../platform/theme.ts";
import { type Shortcut, SHORTCUTS } from "../domain/shortcuts.ts";
import { Choice, Dialog } from "./parts.tsx";

const onApple = (): boolean => /Mac|iPhone|iPad/.test(navigator.platform);

/** As the keys are labelled, in the order in which they are named. */
function labels(what: Shortcut): string[] {
    const keys = SHORTCUTS[what];
    const arrows: Record<string, string> = { ArrowUp: "↑", ArrowDown: "↓" };
    return [keys.command && (onApple() ? "⌘" : t("Ctrl")), keys.alt && (onApple() ? "⌥" : "Alt"), keys.shift && t("Shift"), arrows[keys.key] ?? keys.key.toUpperCase()].filter((part): part is string => typeof part === "string");
}

export function Shortcuts({ chat, onClose }: { chat: Chat; onClose: () => void }): JSX.Element {
    const look = chat.preferences.current.value ?? loadLook();
    return (
        <Dialog title={t("Keyboard shortcuts")} onClose={onClose}>
            <Choice
                label={t("Everywhere in the app")}
                value={look.shortcuts}
                onChange={(shortcuts) => chat.preferences.change({ shortcuts })}
                options={[
                    ["on", t("On")],
                    ["off", t("Off")],
                ]}
            />
            <KeyList
                rows={[
                    [labels("search"), t("Search conversations and messages")],
                    [labels("previous"), t("Previous conversation")],
                    [labels("next"), t("Next conversation")],
                    [labels("unread"), t("Next unread conversation")],
                    [labels("help"), t("Keyboard shortcuts")],
                ]}
            />
            <h3 class="keys-title">{t("While you write")}</h3>
            <KeyList
                rows={[
                    [[t("Enter")], t("Send")],
                    [[t("Shift"), t("Enter")], t("New line")],
                    [["↑"], t("Edit your last message")],
                    [["Esc"], t("End the reply or the edit")],
                ]}
            />
        </Dialog>
    );
}

function KeyList({ rows }: { rows: [string[], string][] }): JSX.Element {
    return (
        <dl class="keys">
            {rows.map(([keys, what]) => (
                <Fragment key={what}>
                    <dt>{what}</dt>
                    <dd dir="ltr">
                        {keys.map((key) => (
                            <kbd key={key}>{key}</kbd>
                        ))}
                    </dd>
                </Fragment>
            ))}
        </dl>
    );
}

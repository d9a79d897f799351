/** Whom one ignores, and the way back. */
import type { JSX } from "preact";
import { useState } from "preact/hooks";
import type { Chat } from "../domain/chat.ts";
import { t } from "../domain/i18n.ts";
import { Dialog, Failure } from "./parts.tsx";
import { PersonLine } from "./PersonLine.tsx";

export function IgnoredList({ chat, onClose }: { chat: Chat; onClose: () => void }): JSX.Element {
    const [error, setError] = useState<string>();
    const users = chat.ignored.users.value;
    return (
        <Dialog title={t("Ignored people")} onClose={onClose}>
            {users.length === 0 && <p class="hint">{t("You ignore nobody. You can ignore somebody from their profile.")}</p>}
            <ul class="devices">
                {users.map((userId) => (
                    <PersonLine key={userId} id={userId} name={chat.nameOf(userId)} picture={chat.avatarOf(userId)} hint={userId}>
                        <button type="button" class="button small" onClick={() => void chat.ignored.set(userId, false).catch((failure: unknown) => setError((failure as Error).message))}>
                            {t("Stop ignoring")}
                        </button>
                    </PersonLine>
                ))}
            </ul>
            <Failure words={error} />
        </Dialog>
    );
}

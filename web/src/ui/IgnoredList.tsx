/** Whom one ignores, and the way back. */
import type { JSX } from "preact";
import { useState } from "preact/hooks";
import type { Chat } from "../domain/chat.ts";
import { t } from "../domain/i18n.ts";
import { Avatar } from "./Avatar.tsx";
import { Dialog, Failure } from "./parts.tsx";

export function IgnoredList({ chat, onClose }: { chat: Chat; onClose: () => void }): JSX.Element {
    const [error, setError] = useState<string>();
    const users = chat.ignored.users.value;
    return (
        <Dialog title={t("Ignored people")} onClose={onClose}>
            {users.length === 0 && <p class="hint">{t("You ignore nobody. You can ignore somebody from their profile.")}</p>}
            <ul class="devices">
                {users.map((userId) => (
                    <li key={userId} class="person">
                        <Avatar id={userId} name={chat.nameOf(userId)} picture={chat.avatarOf(userId)} size="s" />
                        <span class="room-text">
                            <span class="person-name">{chat.nameOf(userId)}</span>
                            <span class="hint">{userId}</span>
                        </span>
                        <button type="button" class="button small" onClick={() => void chat.ignored.set(userId, false).catch((failure: unknown) => setError((failure as Error).message))}>
                            {t("Stop ignoring")}
                        </button>
                    </li>
                ))}
            </ul>
            <Failure words={error} />
        </Dialog>
    );
}

/** Above a conversation, and hardly ever there: somebody who was verified has other keys now. */
import type { JSX } from "preact";
import { useEffect } from "preact/hooks";
import type { Chat } from "../domain/chat.ts";
import { t } from "../domain/i18n.ts";
import type { RoomSummary } from "../domain/rooms.ts";
import { Icon } from "./parts.tsx";

export function TrustNote({ chat, room }: { chat: Chat; room: RoomSummary }): JSX.Element | null {
    const ready = chat.encryption.state.value === "ready";
    useEffect(() => {
        if (ready && room.encrypted) chat.lookAtPeople(room.id);
    }, [room.id, room.encrypted, room.members, ready]);
    const userId = room.encrypted ? chat.trust.changed.value.find((id) => chat.isIn(room.id, id)) : undefined;
    if (userId === undefined) return null;
    const name = chat.nameOf(userId, room.id);
    return (
        <div class="trust-note" role="alert">
            <Icon name="warning" />
            <div>
                <strong>{t("The keys of {name} have changed", { name })}</strong>
                <p>{t("{name} may have begun anew, or somebody else is reading along. Ask in another way than here, or verify again.", { name })}</p>
                <div class="prompt-buttons">
                    <button type="button" class="button small" onClick={() => void chat.verify(userId).catch(() => undefined)}>
                        {t("Verify again")}
                    </button>
                    <button type="button" class="button small" onClick={() => void chat.trust.withdraw(userId).catch(() => undefined)}>
                        {t("Carry on unverified")}
                    </button>
                </div>
            </div>
        </div>
    );
}

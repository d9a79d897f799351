/** In the place of the line to write in, where nothing is to be said: the room was replaced, or only others may speak. */
import type { JSX } from "preact";
import type { Chat } from "../domain/chat.ts";
import { t } from "../domain/i18n.ts";
import { useAttempt } from "./attempt.ts";
import { Failure } from "./parts.tsx";
import { go } from "./route.ts";

export function FloorNote({ chat, successor }: { chat: Chat; successor: string | undefined }): JSX.Element {
    const [busy, error, attempt] = useAttempt();
    const follow = async (roomId: string): Promise<void> => {
        if (!chat.rooms.value.some((room) => room.id === roomId && room.kind === "join")) await chat.join(roomId);
        go({ page: "room", roomId });
    };
    if (successor === undefined) return <p class="floor-note hint">{t("Here you can read, but not write.")}</p>;
    return (
        <div class="floor-note">
            <p>{t("This room goes on in another one.")}</p>
            <button type="button" class="button small" disabled={busy} onClick={() => void attempt(() => follow(successor))}>
                {t("Go there")}
            </button>
            <Failure words={error} />
        </div>
    );
}

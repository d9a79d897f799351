/** The directory: rooms that anybody on the server may join. */
import type { JSX } from "preact";
import { useEffect, useState } from "preact/hooks";
import type { Chat } from "../domain/chat.ts";
import type { FoundRoom } from "../domain/directory.ts";
import { t } from "../domain/i18n.ts";
import { Dialog, Failure, Field, Spinner } from "./parts.tsx";
import { PersonLine } from "./PersonLine.tsx";
import { go } from "./route.ts";

/** Typing goes on for a moment: the server is asked after it. */
const SEARCH_AFTER_MS = 300;

export function FindRooms({ chat, onClose }: { chat: Chat; onClose: () => void }): JSX.Element {
    const [words, setWords] = useState("");
    const [found, setFound] = useState<FoundRoom[]>();
    const [error, setError] = useState<string>();
    const [busy, setBusy] = useState<string>();
    const fail = (failure: unknown): void => setError((failure as Error).message);
    useEffect(() => {
        let current = true;
        const look = (): void => void chat.findRooms(words).then((rooms) => current && setFound(rooms), fail);
        const timer = setTimeout(look, words === "" ? 0 : SEARCH_AFTER_MS);
        return () => {
            current = false;
            clearTimeout(timer);
        };
    }, [words]);
    const enter = async (room: FoundRoom): Promise<void> => {
        setError(undefined);
        setBusy(room.id);
        try {
            if (!room.joined && room.asks) {
                await chat.askToJoin(room.id);
                return setFound((rooms) => rooms?.map((one) => (one.id === room.id ? { ...one, asked: true } : one)));
            }
            if (!room.joined) await chat.join(room.id);
            onClose();
            go({ page: "room", roomId: room.id });
        } catch (failure) {
            fail(failure);
        } finally {
            setBusy(undefined);
        }
    };
    return (
        <Dialog title={t("Public rooms")} onClose={onClose}>
            <Field label={t("Name or topic")} value={words} onInput={setWords} autoFocus />
            <Failure words={error} />
            <div aria-live="polite">
                {!found && error === undefined && <Spinner label={t("Searching")} />}
                {found?.length === 0 && <p class="hint">{words === "" ? t("There are no public rooms yet.") : t("No public room is called so.")}</p>}
            </div>
            <ul class="devices found-rooms">
                {found?.map((room) => (
                    <PersonLine key={room.id} id={room.id} name={room.name} picture={room.avatar} hint={[t("{count} person|{count} people", { count: room.members }), room.topic].filter((part) => part !== "").join(" · ")}>
                        <Enter room={room} busy={busy !== undefined} onEnter={() => void enter(room)} />
                    </PersonLine>
                ))}
            </ul>
        </Dialog>
    );
}

function Enter({ room, busy, onEnter }: { room: FoundRoom; busy: boolean; onEnter: () => void }): JSX.Element {
    const { name } = room;
    if (room.asked) return <span class="hint">{t("You asked to join")}</span>;
    const [label, words] = room.joined ? [t("Open {name}", { name }), t("Open")] : room.asks ? [t("Ask to join {name}", { name }), t("Ask to join")] : [t("Join {name}", { name }), t("Join")];
    return (
        <button type="button" class="button small" disabled={busy} aria-label={label} onClick={onEnter}>
            {words}
        </button>
    );
}

/** One conversation: its head, its messages, and the line to write in. */
import type { JSX } from "preact";
import { useEffect, useState } from "preact/hooks";
import type { App } from "../domain/app.ts";
import type { Chat } from "../domain/chat.ts";
import { t } from "../domain/i18n.ts";
import type { RoomSummary } from "../domain/rooms.ts";
import type { Timeline } from "../domain/timeline.ts";
import { Composer, sendFiles } from "./Composer.tsx";
import { Connection } from "./Connection.tsx";
import { Messages } from "./Messages.tsx";
import { Avatar, Icon, IconButton } from "./parts.tsx";
import { PinsBar } from "./PinsBar.tsx";
import { go } from "./route.ts";

export function RoomPane({ app, chat, room, onInfo, onInvite }: { app: App; chat: Chat; room: RoomSummary; onInfo: () => void; onInvite: () => void }): JSX.Element {
    const [timeline, setTimeline] = useState<Timeline>();
    const [dragged, setDragged] = useState(false);
    useEffect(() => {
        const opened = chat.open(room.id);
        setTimeline(opened);
        return () => opened.close();
    }, [chat, room.id]);
    return (
        <>
            <header class="bar">
                <IconButton icon="back" label={t("All conversations")} class="only-phone" onClick={() => go({ page: "rooms" })} />
                <Avatar id={room.id} name={room.name} size="s" />
                <div class="bar-text">
                    <h2 class="bar-title">{room.name}</h2>
                    <p class="bar-sub">
                        {room.encrypted && <Icon name="lock" />}
                        {room.direct ? t("Direct conversation") : room.members === 1 ? t("Only you") : t("{count} person|{count} people", { count: room.members })}
                    </p>
                </div>
                <IconButton icon="invite" label={t("Invite people")} onClick={onInvite} />
                <IconButton icon="info" label={t("About this room")} onClick={onInfo} />
            </header>
            <div class="only-phone">
                <Connection app={app} />
            </div>
            {timeline && (
                <div
                    class={`conversation ${dragged ? "dragged" : ""}`}
                    onDragOver={(event) => {
                        if (!event.dataTransfer?.types.includes("Files")) return;
                        event.preventDefault();
                        setDragged(true);
                    }}
                    onDragLeave={() => setDragged(false)}
                    onDrop={(event) => {
                        event.preventDefault();
                        setDragged(false);
                        void sendFiles(timeline, [...(event.dataTransfer?.files ?? [])]);
                    }}
                >
                    <PinsBar timeline={timeline} />
                    <Messages timeline={timeline} media={chat.media} />
                    <TypingLine timeline={timeline} />
                    <Composer timeline={timeline} name={room.name} />
                </div>
            )}
        </>
    );
}

function TypingLine({ timeline }: { timeline: Timeline }): JSX.Element {
    const names = timeline.typing.value;
    return (
        <p class="typing" role="status">
            {names.length > 0 && (
                <>
                    <span class="dots" aria-hidden="true">
                        <i />
                        <i />
                        <i />
                    </span>
                    {names.length === 1 ? t("{name} is typing", { name: names[0]! }) : names.length === 2 ? t("{name} and {other} are typing", { name: names[0]!, other: names[1]! }) : t("Several people are typing")}
                </>
            )}
        </p>
    );
}

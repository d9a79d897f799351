/** One conversation: its head, its messages, and the line to write in. */
import type { JSX } from "preact";
import { useEffect, useState } from "preact/hooks";
import type { App } from "../domain/app.ts";
import type { Chat } from "../domain/chat.ts";
import { t } from "../domain/i18n.ts";
import { DEFAULTS } from "../domain/preferences.ts";
import type { Previews } from "../domain/previews.ts";
import type { RoomSummary } from "../domain/rooms.ts";
import type { Timeline } from "../domain/timeline.ts";
import { Composer } from "./Composer.tsx";
import { Connection } from "./Connection.tsx";
import { FloorNote } from "./FloorNote.tsx";
import { useFocusReturn } from "./focus.ts";
import { later } from "./later.tsx";
import { DropPlace } from "./media/DropPlace.tsx";
import { gallery } from "./media/gallery.ts";
import { Messages } from "./Messages.tsx";
import { Avatar } from "./Avatar.tsx";
import { Icon, IconButton } from "./parts.tsx";
import { presenceWords } from "./Presence.tsx";
import { PinsBar } from "./PinsBar.tsx";
import { go, route } from "./route.ts";
import { TrustNote } from "./TrustNote.tsx";

const Gallery = later(() => import("./media/Gallery.tsx").then((part) => part.Gallery), true);

export function RoomPane({ app, chat, room, onInfo, onInvite }: { app: App; chat: Chat; room: RoomSummary; onInfo: () => void; onInvite: () => void }): JSX.Element {
    const [timeline, setTimeline] = useState<Timeline>();
    const previews = previewsFor(chat, room);
    const partner = room.direct ? chat.partnerIn(room.id) : undefined;
    const thread = route.value.page === "room" ? route.value.thread : undefined;
    useEffect(() => {
        const opened = chat.open(room.id);
        setTimeline(opened);
        return () => opened.close();
    }, [chat, room.id]);
    return (
        <>
            <header class="bar">
                <IconButton icon="back" label={t("All conversations")} class="only-phone" onClick={() => go({ page: "rooms" })} />
                <Avatar id={room.colouredAs} name={room.name} picture={room.avatar} size="s" />
                <div class="bar-text" onClick={onInfo /* by mouse and finger; by keys there is the button */}>
                    <h2 class="bar-title">{room.name}</h2>
                    <p class="bar-sub">
                        {room.encrypted && <Icon name="lock" />}
                        {room.direct ? ((partner !== undefined && presenceWords(chat, partner)) || t("Direct conversation")) : room.members === 1 ? t("Only you") : t("{count} person|{count} people", { count: room.members })}
                    </p>
                </div>
                <IconButton icon="invite" label={t("Invite people")} class="only-wide" onClick={onInvite} />
                <IconButton icon="info" label={t("About this room")} onClick={onInfo} />
            </header>
            <div class="only-phone">
                <Connection app={app} />
            </div>
            <TrustNote chat={chat} room={room} />
            <div class="room-body">
            {timeline && (
                <DropPlace timeline={timeline}>
                    <PinsBar timeline={timeline} />
                    <Messages timeline={timeline} media={chat.media} previews={previews} />
                    <TypingLine timeline={timeline} />
                    <Write chat={chat} timeline={timeline} room={room} />
                </DropPlace>
            )}
            {thread !== undefined && <ThreadPane key={thread} chat={chat} room={room} root={thread} />}
            </div>
            {gallery.value && <Gallery opened={gallery.value} media={chat.media} onClose={() => (gallery.value = undefined)} />}
        </>
    );
}

/** The line to write in, or why there is none. */
function Write({ chat, timeline, room }: { chat: Chat; timeline: Timeline; room: RoomSummary }): JSX.Element {
    const { mine, successor } = timeline.floor;
    if (successor.value !== undefined || !mine.value) return <FloorNote chat={chat} successor={successor.value} />;
    return <Composer timeline={timeline} name={room.name} />;
}

function previewsFor(chat: Chat, room: RoomSummary): Previews | undefined {
    const wanted = (chat.preferences.current.value ?? DEFAULTS).previews;
    return wanted === "all" || (wanted === "open" && !room.encrypted) ? chat.previews : undefined;
}

/** The thread beside the conversation, or in its place on a phone. */
function ThreadPane({ chat, room, root }: { chat: Chat; room: RoomSummary; root: string }): JSX.Element {
    const [timeline, setTimeline] = useState<Timeline>();
    useFocusReturn();
    useEffect(() => {
        const opened = chat.openThread(room.id, root);
        setTimeline(opened);
        void opened.loadOlder();
        return () => opened.close();
    }, [chat, root]);
    const close = (): void => go({ page: "room", roomId: room.id }, true);
    return (
        <section class="thread-pane" aria-label={t("Thread")} onKeyDown={(event) => event.key === "Escape" && !event.defaultPrevented && !(event.target as Element).closest("dialog") && close()}>
            <header class="thread-head">
                <h3>{t("Thread")}</h3>
                <IconButton icon="close" label={t("Close the thread")} onClick={close} />
            </header>
            {timeline && (
                <DropPlace timeline={timeline}>
                    <Messages timeline={timeline} media={chat.media} previews={previewsFor(chat, room)} />
                    <Write chat={chat} timeline={timeline} room={room} />
                </DropPlace>
            )}
        </section>
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

/** One room that is open on the screen: its messages, who is typing, and what can be done in it. */
import { signal } from "@preact/signals-core";
import { Direction, type EventTimeline } from "matrix-js-sdk/lib/models/event-timeline";
import type { MatrixEvent } from "matrix-js-sdk/lib/models/event";
import { RoomEvent, type Room } from "matrix-js-sdk/lib/models/room";
import { RoomMemberEvent } from "matrix-js-sdk/lib/models/room-member";
import { RoomStateEvent } from "matrix-js-sdk/lib/models/room-state";
import type { MatrixClient } from "./client.ts";
import { type Entry, type Item, localDay, toEntry, toItems } from "./entries.ts";
import { peopleOf } from "./rooms.ts";

/** Messages fetched when the reader comes to the beginning of what is loaded. */
const PAGE = 40;
/** How long others are told that somebody types, and how often that is said again while it is so. */
const TYPING_MS = 20_000;
const TYPING_AGAIN_MS = 12_000;
/** Silence after which somebody is not typing any more. */
const TYPING_IDLE_MS = 6_000;

export class Timeline {
    readonly items = signal<Item[]>([]);
    /** Names of the others who are typing. */
    readonly typing = signal<string[]>([]);
    readonly older = signal<"more" | "loading" | "none" | "failed">("more");
    readonly name = signal("");
    readonly members = signal(0);

    private readonly room: Room;
    private refreshing: ReturnType<typeof setTimeout> | undefined;
    private typingSince = 0;
    private typingStops: ReturnType<typeof setTimeout> | undefined;
    private readReceiptAt: string | undefined;

    constructor(
        private readonly client: MatrixClient,
        readonly roomId: string,
    ) {
        const room = client.getRoom(roomId);
        if (!room) throw new Error("This room is not known here.");
        this.room = room;
        room.on(RoomEvent.Timeline, this.later);
        room.on(RoomEvent.TimelineReset, this.onReset);
        room.on(RoomEvent.LocalEchoUpdated, this.later);
        room.on(RoomEvent.Redaction, this.later);
        room.on(RoomEvent.Name, this.later);
        room.on(RoomStateEvent.Members, this.later);
        client.on(RoomMemberEvent.Typing, this.onTyping);
        this.refresh();
        this.onTyping();
        this.older.value = this.hasOlder() ? "more" : "none";
    }

    close(): void {
        this.stopTyping();
        clearTimeout(this.refreshing);
        const { room } = this;
        room.off(RoomEvent.Timeline, this.later);
        room.off(RoomEvent.TimelineReset, this.onReset);
        room.off(RoomEvent.LocalEchoUpdated, this.later);
        room.off(RoomEvent.Redaction, this.later);
        room.off(RoomEvent.Name, this.later);
        room.off(RoomStateEvent.Members, this.later);
        this.client.off(RoomMemberEvent.Typing, this.onTyping);
    }

    /** Sends a message. It stands in the list at once; what becomes of it shows there. */
    send(text: string): void {
        const body = text.trim();
        if (body === "") return;
        this.stopTyping();
        this.client.sendTextMessage(this.roomId, body).catch(() => undefined);
        this.later();
    }

    /** Sends a message again that failed. */
    retry(key: string): void {
        const event = this.pending(key);
        if (event?.status === "not_sent") this.client.resendEvent(event, this.room).catch(() => undefined);
    }

    /** Throws a message away that failed. */
    discard(key: string): void {
        const event = this.pending(key);
        if (event?.status === "not_sent") this.client.cancelPendingEvent(event);
        this.later();
    }

    async loadOlder(): Promise<void> {
        if (this.older.value === "loading" || this.older.value === "none") return;
        this.older.value = "loading";
        try {
            await this.client.paginateEventTimeline(this.stretches()[0]!, { backwards: true, limit: PAGE });
            this.refresh();
            this.older.value = this.hasOlder() ? "more" : "none";
        } catch {
            this.older.value = "failed";
        }
    }

    /** To be called while the reader sees the end of the timeline. */
    markRead(): void {
        const last = this.room.getLiveTimeline().getEvents().at(-1);
        const id = last?.getId();
        if (!last || id === undefined || id === this.readReceiptAt || this.room.getEventReadUpTo(this.client.getSafeUserId()) === id) return;
        this.readReceiptAt = id;
        if (last.getSender() === this.client.getUserId()) return; // writing is reading
        this.client.sendReadReceipt(last).catch(() => {
            this.readReceiptAt = undefined; // the next look tries again
        });
    }

    /** To be called for each change of the text that is being written. */
    isTyping(empty: boolean): void {
        if (empty) return this.stopTyping();
        clearTimeout(this.typingStops);
        this.typingStops = setTimeout(() => this.stopTyping(), TYPING_IDLE_MS);
        if (Date.now() - this.typingSince < TYPING_AGAIN_MS) return;
        this.typingSince = Date.now();
        this.client.sendTyping(this.roomId, true, TYPING_MS).catch(() => undefined);
    }

    private stopTyping(): void {
        clearTimeout(this.typingStops);
        if (this.typingSince === 0) return;
        this.typingSince = 0;
        this.client.sendTyping(this.roomId, false, 0).catch(() => undefined);
    }

    private pending(key: string): MatrixEvent | undefined {
        return this.room.getPendingEvents().find((event) => event.getTxnId() === key);
    }

    /** Many events come in one sync: look once, after them. */
    private readonly later = (): void => {
        this.refreshing ??= setTimeout(() => {
            this.refreshing = undefined;
            this.refresh();
        }, 0);
    };

    /** After a gap the newest messages stand alone, until loading older ones closes it. */
    private readonly onReset = (): void => {
        this.older.value = this.hasOlder() ? "more" : "none";
        this.later();
    };

    /** The SDK's timelines that follow each other without a gap up to now, oldest first. */
    private stretches(): EventTimeline[] {
        const stretches = [this.room.getLiveTimeline()];
        for (;;) {
            const before = stretches[0]!.getNeighbouringTimeline(Direction.Backward);
            if (!before) return stretches;
            stretches.unshift(before);
        }
    }

    private hasOlder(): boolean {
        return this.stretches()[0]!.getPaginationToken(Direction.Backward) !== null;
    }

    private refresh(): void {
        const people = peopleOf(this.room, this.client.getSafeUserId());
        const entries: Entry[] = [];
        const known = this.stretches().flatMap((stretch) => stretch.getEvents());
        for (const event of [...known, ...this.room.getPendingEvents()]) {
            const entry = toEntry(event, people);
            if (entry) entries.push(entry);
        }
        this.items.value = toItems(entries, localDay);
        this.name.value = this.room.name;
        this.members.value = this.room.getJoinedMemberCount();
    }

    private readonly onTyping = (): void => {
        const me = this.client.getUserId();
        const names = this.room.currentState.getMembers().filter((member) => member.typing && member.userId !== me).map((member) => member.name);
        if (names.join() !== this.typing.value.join()) this.typing.value = names;
    };
}

/** One room that is open on the screen: its messages, who is typing, and what can be done in it. */
import { signal } from "@preact/signals-core";
import { Direction, type EventTimeline } from "matrix-js-sdk/lib/models/event-timeline";
import type { MatrixEvent } from "matrix-js-sdk/lib/models/event";
import { MatrixEventEvent } from "matrix-js-sdk/lib/models/event";
import { RoomEvent, type Room } from "matrix-js-sdk/lib/models/room";
import { RoomMemberEvent } from "matrix-js-sdk/lib/models/room-member";
import { RoomStateEvent } from "matrix-js-sdk/lib/models/room-state";
import { ClientEvent, type MatrixClient } from "./client.ts";
import { type Entry, type Item, localDay, type Message, type People, type Quote, type Reaction, toEntry, toItems } from "./entries.ts";
import { write } from "./markdown.ts";
import { Floor } from "./floor.ts";
import { t } from "./i18n.ts";
import { localpart } from "./ids.ts";
import type { Outbox } from "./outbox.ts";
import { Pins } from "./pins.ts";
import { ENDS, endContent, type Poll, POLL_END, POLL_RESPONSE, POLL_START, type PollEvent, responseContent, RESPONSES, startContent, tally } from "./polls.ts";
import { peopleOf } from "./rooms.ts";
import type { PreparedFile } from "./filecontent.ts";
import type { Uploads } from "./uploads.ts";

/** Messages fetched when the reader comes to the beginning of what is loaded. */
const PAGE = 40;
/** How long others are told that somebody types, and how often that is said again while it is so. */
const TYPING_MS = 20_000;
const TYPING_AGAIN_MS = 12_000;
/** Silence after which somebody is not typing any more. */
const TYPING_IDLE_MS = 6_000;

/** What the next message is about, beside itself. */
export type Context = { kind: "reply" | "edit"; message: Message };

/** An entry as it was made, and what it was made of. */
interface Made {
    status: string | null;
    type: string;
    redacted: boolean;
    replacing: MatrixEvent | null;
    replacingType: string | undefined;
    locked: boolean;
    ignored: boolean;
    /** Of the sender; for notices, which name others too, how often names changed. */
    name: string | number;
    entry: Entry | undefined;
}

export class Timeline {
    readonly items = signal<Item[]>([]);
    /** Names of the others who are typing. */
    readonly typing = signal<string[]>([]);
    readonly older = signal<"more" | "loading" | "none" | "failed">("more");
    /** Whether there is more towards the present: only after a jump to another time. */
    readonly newer = signal<"more" | "loading" | "none" | "failed">("none");
    readonly name = signal("");
    readonly members = signal(0);
    readonly context = signal<Context | undefined>(undefined);
    /** Whether there is something unread from before the room was opened, and whether it is loaded. */
    readonly unread = signal<"none" | "above" | "shown">("none");

    readonly pins: Pins;
    readonly floor: Floor;

    protected readonly room: Room;
    private refreshing: ReturnType<typeof setTimeout> | undefined;
    private typingSince = 0;
    private typingStops: ReturnType<typeof setTimeout> | undefined;
    private typingSaid: Promise<unknown> = Promise.resolve();
    private readReceiptAt: string | undefined;
    /** What was read when the room was opened, and the first message after it, once it is found. */
    private readonly readBefore: string | null;
    private firstUnread: string | undefined;
    /** The SDK's timeline that was jumped to; undefined at the present. */
    private place: EventTimeline | undefined;
    private readonly made = new WeakMap<MatrixEvent, Made>();
    private names = 0;
    private entries: readonly Entry[] = [];

    constructor(
        protected readonly client: MatrixClient,
        readonly roomId: string,
        private readonly outbox: Outbox,
        readonly uploads: Uploads,
        /** The message that began the thread that is shown; undefined for the room itself. */
        readonly threadRoot?: string,
    ) {
        const room = client.getRoom(roomId);
        if (!room) throw new Error(t("This room is not known here."));
        this.room = room;
        this.pins = new Pins(client, room);
        this.floor = new Floor(room);
        this.readBefore = threadRoot === undefined ? room.getEventReadUpTo(client.getSafeUserId()) : null;
        room.on(RoomEvent.Timeline, this.onEvent);
        room.on(RoomEvent.Receipt, this.later);
        client.on(MatrixEventEvent.Decrypted, this.later);
        client.on(MatrixEventEvent.Replaced, this.later);
        client.on(ClientEvent.AccountData, this.later); // whom one ignores
        room.on(RoomEvent.TimelineReset, this.onReset);
        room.on(RoomEvent.LocalEchoUpdated, this.later);
        room.on(RoomEvent.Redaction, this.later);
        room.on(RoomEvent.Name, this.later);
        room.on(RoomStateEvent.Members, this.onMembers);
        client.on(RoomMemberEvent.Typing, this.onTyping);
        this.refresh();
        this.onTyping();
        this.older.value = this.hasOlder() ? "more" : "none";
    }

    /** What was begun here and not sent. */
    get draft(): string {
        return this.outbox.drafts.get(this.threadRoot ?? this.roomId);
    }

    set draft(text: string) {
        this.outbox.drafts.set(this.threadRoot ?? this.roomId, text);
    }

    /** The picture of somebody in the room. */
    avatarOf(userId: string): string | undefined {
        return this.room.getMember(userId)?.getMxcAvatarUrl();
    }

    close(): void {
        this.stopTyping();
        this.pins.close();
        this.floor.close();
        clearTimeout(this.refreshing);
        const { room } = this;
        room.off(RoomEvent.Timeline, this.onEvent);
        room.off(RoomEvent.Receipt, this.later);
        this.client.off(MatrixEventEvent.Decrypted, this.later);
        this.client.off(MatrixEventEvent.Replaced, this.later);
        this.client.off(ClientEvent.AccountData, this.later);
        room.off(RoomEvent.TimelineReset, this.onReset);
        room.off(RoomEvent.LocalEchoUpdated, this.later);
        room.off(RoomEvent.Redaction, this.later);
        room.off(RoomEvent.Name, this.later);
        room.off(RoomStateEvent.Members, this.onMembers);
        this.client.off(RoomMemberEvent.Typing, this.onTyping);
    }

    /** Sends a message, as an answer or a change if that was begun. It stands in the list at once; what becomes of it shows there. */
    send(text: string): void {
        const body = text.trim();
        if (body === "") return;
        this.stopTyping();
        const context = this.context.value;
        this.context.value = undefined;
        this.sendContent(this.related({ msgtype: "m.text", ...this.written(body, context) }, context));
    }

    /** What was written, as the content of a message: with markup, and with those whom it concerns. */
    private written(body: string, context: Context | undefined): Record<string, unknown> {
        const { html, mentions } = write(body, (name) => this.personCalled(name));
        const people = context?.kind === "reply" && !context.message.own ? [...mentions, context.message.sender] : mentions;
        return {
            body,
            ...(html === undefined ? {} : { format: "org.matrix.custom.html", formatted_body: html }),
            ...(people.length > 0 ? { "m.mentions": { user_ids: [...new Set(people)] } } : {}),
        };
    }

    /** Says a reaction, or takes it back. */
    react(message: Message, key: string): void {
        if (message.eventId === undefined) return;
        const mine = message.reactions?.find((reaction) => reaction.key === key)?.mine;
        if (mine === undefined) {
            const relation = { rel_type: "m.annotation", event_id: message.eventId, key };
            this.outbox.send(this.roomId, "m.reaction", { "m.relates_to": relation });
        } else if (mine !== "") this.redact(mine);
        this.later();
    }

    /** Removes a message for everybody. */
    remove(message: Message): void {
        if (message.eventId !== undefined) this.redact(message.eventId);
        this.later();
    }

    private redact(redacts: string): void {
        this.outbox.send(this.roomId, "m.room.redaction", {}, { redacts });
    }

    /** Asks all in the room to choose one of a few answers. */
    askPoll(question: string, answers: readonly string[], open: boolean): void {
        this.goToEnd();
        this.outbox.send(this.roomId, POLL_START, startContent(question, answers, open));
        this.later();
    }

    vote(message: Message, answers: readonly string[]): void {
        if (message.eventId === undefined) return;
        this.outbox.send(this.roomId, POLL_RESPONSE, responseContent(message.eventId, answers));
        this.later();
    }

    endPoll(message: Message): void {
        if (message.eventId === undefined) return;
        this.outbox.send(this.roomId, POLL_END, endContent(message.eventId, t("The poll is over.")));
        this.later();
    }

    /** Begins to change the last message that this person wrote. */
    editLast(): void {
        for (const item of this.items.value.toReversed()) {
            const message = item.kind === "group" ? item.messages.findLast((each) => each.mayEdit) : undefined;
            if (!message) continue;
            this.context.value = { kind: "edit", message };
            return;
        }
    }

    /** Sends a file, with what is said to it, as an answer if that was begun. */
    sendFile(file: PreparedFile, caption = ""): void {
        const context = this.context.value?.kind === "reply" ? this.context.value : undefined;
        if (context) this.context.value = undefined;
        this.goToEnd(); // where it will stand
        const body = caption.trim();
        void this.uploads.add({ ...file, more: this.related(body === "" ? {} : this.written(body, context), context) });
    }

    /** Members whose name begins with what was typed, for completion. */
    peopleLike(typed: string, limit = 5): { userId: string; name: string }[] {
        const start = typed.toLowerCase();
        const found: { userId: string; name: string }[] = [];
        for (const { userId, name } of this.room.getJoinedMembers()) {
            if (found.length >= limit) break;
            if (userId === this.client.getUserId()) continue;
            if (name.toLowerCase().startsWith(start) || localpart(userId).startsWith(start)) found.push({ userId, name });
        }
        return found;
    }

    private personCalled(name: string): { userId: string; name: string } | undefined {
        const wanted = name.toLowerCase();
        const member = this.room.getJoinedMembers().find(({ userId, name: shown }) => localpart(userId) === wanted || shown.toLowerCase() === wanted);
        return member ? { userId: member.userId, name: member.name } : undefined;
    }

    private sendContent(content: Record<string, unknown>): void {
        this.goToEnd(); // where it will stand
        this.outbox.send(this.roomId, "m.room.message", content);
        this.later();
    }

    /** Sends a message again that failed. */
    retry(key: string): void {
        this.outbox.retry(key);
        this.later();
    }

    /** Throws a message away that failed. */
    discard(key: string): void {
        this.outbox.discard(key);
        this.later();
    }

    async loadOlder(): Promise<void> {
        if (this.older.value === "loading" || this.older.value === "none") return;
        this.older.value = "loading";
        const first = this.stretches()[0]!;
        const had = first.getEvents().length;
        try {
            await this.client.paginateEventTimeline(first, { backwards: true, limit: PAGE });
            if (this.stretches()[0] === first) this.prepend(first.getEvents().slice(0, first.getEvents().length - had));
            else this.refresh();
            this.older.value = this.hasOlder() ? "more" : "none";
        } catch {
            this.older.value = "failed";
        }
    }

    /** Goes on towards the present from a place that was jumped to. */
    async loadNewer(): Promise<void> {
        if (this.newer.value === "loading" || this.newer.value === "none") return;
        this.newer.value = "loading";
        try {
            await this.client.paginateEventTimeline(this.stretches().at(-1)!, { backwards: false, limit: PAGE });
            this.moved();
        } catch {
            this.newer.value = "failed";
        }
    }

    /** Goes to where a message stands, however far back. False if it is not to be had. */
    async goTo(eventId: string): Promise<boolean> {
        if (this.holds(eventId)) return true;
        try {
            const place = await this.client.getEventTimeline(this.room.getUnfilteredTimelineSet(), eventId);
            if (!place) return false;
            this.place = place;
            this.moved();
            return this.holds(eventId);
        } catch {
            return false;
        }
    }

    /** Goes to the first message at or after a time, or the last before it. Gives its ID and time. */
    async goToTime(ts: number): Promise<{ eventId: string; ts: number } | undefined> {
        for (const direction of [Direction.Forward, Direction.Backward]) {
            try {
                const { event_id: eventId, origin_server_ts: at } = await this.client.timestampToEvent(this.roomId, ts, direction);
                return (await this.goTo(eventId)) ? { eventId, ts: at } : undefined;
            } catch (error) {
                if ((error as { errcode?: unknown }).errcode !== "M_NOT_FOUND") return undefined;
            }
        }
        return undefined;
    }

    /** Goes to where the first unread message stands. */
    async goToUnread(): Promise<boolean> {
        if (this.unread.value === "above" && this.readBefore !== null) await this.goTo(this.readBefore);
        return (this.unread.value as string) === "shown";
    }

    /** Back to the present. */
    goToEnd(): void {
        if (!this.place) return;
        this.place = undefined;
        this.moved();
    }

    private holds(eventId: string): boolean {
        return this.stretches().some((stretch) => stretch.getEvents().some((event) => event.getId() === eventId));
    }

    private moved(): void {
        this.refresh();
        this.older.value = this.hasOlder() ? "more" : "none";
        this.newer.value = this.isApart() ? "more" : "none";
    }

    /** To be called while the reader sees the end of the timeline. */
    markRead(): void {
        const last = this.room.getLiveTimeline().getEvents().at(-1);
        const id = last?.getId();
        if (this.isApart()) return; // the end of what is shown is not the end
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
        this.sayTyping(true);
    }

    private stopTyping(): void {
        clearTimeout(this.typingStops);
        if (this.typingSince === 0) return;
        this.typingSince = 0;
        this.sayTyping(false);
    }

    /** One after another: requests under way together may overtake each other, and who had sent a short message would seem to go on typing. */
    private sayTyping(typing: boolean): void {
        this.typingSaid = this.typingSaid.then(() => this.client.sendTyping(this.roomId, typing, typing ? TYPING_MS : 0)).catch(() => undefined);
    }

    /** Many events come in one sync: look once, after them. */
    private readonly later = (): void => {
        this.refreshing ??= setTimeout(() => {
            this.refreshing = undefined;
            this.refresh();
        }, 0);
    };

    /** Pages of older events are looked at when they are whole. */
    private readonly onEvent = (_event: MatrixEvent, _room: Room | undefined, toStart: boolean | undefined): void => {
        if (!toStart) this.later();
    };

    /** Notices name people, who may have come to be known by other names. */
    private readonly onMembers = (): void => {
        this.names++;
        this.later();
    };

    /** After a gap the newest messages stand alone, until loading older ones closes it. */
    private readonly onReset = (): void => {
        this.older.value = this.hasOlder() ? "more" : "none";
        this.later();
    };

    /** The SDK's timelines that follow each other without a gap, oldest first: up to now, or around the place that was jumped to. */
    private stretches(): EventTimeline[] {
        const stretches = [this.place ?? this.room.getLiveTimeline()];
        for (let next = stretches[0]!.getNeighbouringTimeline(Direction.Forward); next; next = next.getNeighbouringTimeline(Direction.Forward)) stretches.push(next);
        for (let next = stretches[0]!.getNeighbouringTimeline(Direction.Backward); next; next = next.getNeighbouringTimeline(Direction.Backward)) stretches.unshift(next);
        return stretches;
    }

    protected hasOlder(): boolean {
        return this.stretches()[0]!.getPaginationToken(Direction.Backward) !== null;
    }

    /** Whether there is a gap between what is shown and the present. */
    private isApart(): boolean {
        return this.stretches().at(-1) !== this.room.getLiveTimeline();
    }

    /** The events that are loaded, oldest first. */
    protected known(): MatrixEvent[] {
        return this.stretches().flatMap((stretch) => stretch.getEvents());
    }

    /** Replies in a thread are shown there, and counted at the message that began it. */
    protected shows(event: MatrixEvent): boolean {
        return threadOf(event) === this.threadRoot || (this.threadRoot !== undefined && event.getId() === this.threadRoot);
    }

    protected related(content: Record<string, unknown>, context: Context | undefined): Record<string, unknown> {
        return withContext(content, context);
    }

    protected refresh(): void {
        clearTimeout(this.refreshing);
        this.refreshing = undefined;
        const known = this.known();
        const { entries, afterRead } = this.read(this.isApart() ? known : [...known, ...this.room.getPendingEvents()]);
        const seen = this.firstUnread !== undefined || afterRead || this.readBefore === null;
        this.unread.value = this.firstUnread !== undefined ? "shown" : seen ? "none" : "above";
        this.entries = entries;
        this.items.value = toItems(entries, localDay, this.firstUnread);
        this.name.value = this.room.name;
        this.members.value = this.room.getJoinedMemberCount();
    }

    /** Puts a page of older events before what is there, which they change nothing of, be it thousands of entries. */
    private prepend(events: readonly MatrixEvent[]): void {
        if (this.refreshing !== undefined || this.unread.value === "above") return this.refresh();
        this.entries = [...this.read(events).entries, ...this.entries];
        this.items.value = toItems(this.entries, localDay, this.firstUnread);
    }

    private read(events: readonly MatrixEvent[]): { entries: Entry[]; afterRead: boolean } {
        const me = this.client.getSafeUserId();
        const people = { ...peopleOf(this.room, me), quoted: (id: string) => this.quoted(id) };
        const changes = this.pendingChanges(this.room.getPendingEvents());
        const rights = this.rights();
        const entries: Entry[] = [];
        let last: Message | undefined;
        let afterRead = false;
        for (const event of events) {
            const entry = this.shows(event) ? this.entryOf(event, people) : undefined;
            if (entry?.kind === "message") {
                if (entry.delivery === "failed" && !this.outbox.refused(entry.key)) entry.delivery = "waiting";
                const change = changes.get(event.getId() ?? "");
                if (change) entry.change = change;
                this.complete(entry, event, rights);
                last = entry;
                if (afterRead && !entry.own) this.firstUnread ??= entry.key;
            }
            if (event.getId() === this.readBefore) afterRead = true;
            if (last) this.addReaders(last, event, me);
            if (entry) entries.push(entry);
        }
        return { entries, afterRead };
    }

    /** The entry of an event. Of thousands of events, few have changed since the last look. */
    private entryOf(event: MatrixEvent, people: People): Entry | undefined {
        const known = this.made.get(event);
        const replacing = event.replacingEvent();
        const now: Omit<Made, "entry"> = {
            status: event.status,
            type: event.getType(),
            redacted: event.isRedacted(),
            replacing,
            replacingType: replacing?.getType(),
            locked: event.isDecryptionFailure(),
            ignored: people.ignores?.(event.getSender() ?? "") === true,
            name: event.isState() ? this.names : people.nameOf(event.getSender() ?? ""),
        };
        const same = known && (Object.keys(now) as (keyof typeof now)[]).every((key) => known[key] === now[key]);
        const made = same ? known : { ...now, entry: toEntry(event, people) };
        if (!same) this.made.set(event, made);
        if (made.entry?.kind !== "message") return made.entry;
        const entry = { ...made.entry };
        if (entry.quote) entry.quote = { eventId: entry.quote.eventId, ...this.quoted(entry.quote.eventId) };
        return entry;
    }

    /** Whether this person may remove what they and what others wrote. */
    private rights(): { own: boolean; others: boolean } {
        const { currentState } = this.room;
        const may = (sender: string): boolean => currentState.maySendRedactionForEvent({ getSender: () => sender, status: null, isRedacted: () => false } as MatrixEvent, me);
        const me = this.client.getSafeUserId();
        return { own: may(me), others: may("") };
    }

    /** Changes on their way, by the message that they change. */
    private pendingChanges(pending: readonly MatrixEvent[]): Map<string, NonNullable<Message["change"]>> {
        const changes = new Map<string, NonNullable<Message["change"]>>();
        for (const event of pending) {
            const [target, key] = [event.isRelation("m.replace") ? event.relationEventId : undefined, event.getTxnId()];
            if (target !== undefined && key !== undefined && event.status !== "sent") changes.set(target, { key, failed: this.outbox.refused(key) });
        }
        return changes;
    }

    /** What other events say of a message, and what may be done with it. */
    private complete(message: Message, event: MatrixEvent, rights: { own: boolean; others: boolean }): void {
        if (message.eventId === undefined || message.style === "removed") return;
        const reactions = this.reactionsTo(message.eventId);
        if (reactions.length > 0) message.reactions = reactions;
        const thread = this.threadRoot === undefined ? this.threadFrom(event) : undefined;
        if (thread) message.thread = thread;
        if (message.asked) message.poll = this.pollOf(message, rights.others);
        message.mayRemove = event.status === null && (message.own ? rights.own : rights.others);
        message.mayEdit = message.own && message.style === "text";
    }

    /** What the server counted when it gave the message, and what came since. spec: client-server §Server-side aggregation of m.thread */
    private threadFrom(event: MatrixEvent): Message["thread"] {
        const { "m.relations": bundled } = event.getUnsigned() as { "m.relations"?: { "m.thread"?: { count?: unknown; latest_event?: { origin_server_ts?: unknown } } } };
        const counted = bundled?.["m.thread"];
        const replies = (this.room.relations.getChildEventsForEvent(event.getId()!, "m.thread", "m.room.message")?.getRelations() ?? []).filter((reply) => !reply.isRedacted());
        if (!counted && replies.length === 0) return undefined;
        const upTo = typeof counted?.latest_event?.origin_server_ts === "number" ? counted.latest_event.origin_server_ts : 0;
        const before = typeof counted?.count === "number" ? counted.count : 0;
        const last = replies.reduce<MatrixEvent | undefined>((latest, reply) => (latest && latest.getTs() > reply.getTs() ? latest : reply), undefined);
        const entry = last && toEntry(last, peopleOf(this.room, this.client.getSafeUserId()));
        const said = entry?.kind === "message" ? { senderName: entry.senderName, text: entry.text.replace(/\s+/g, " ").slice(0, 120) } : undefined;
        return { count: before + replies.filter((reply) => reply.getTs() > upTo).length, ...(said ? { last: said } : {}) };
    }

    private pollOf(message: Message, moderates: boolean): Poll {
        const { relations, currentState } = this.room;
        const all = (types: readonly string[]): PollEvent[] =>
            types.flatMap((type) => relations.getChildEventsForEvent(message.eventId!, "m.reference", type)?.getRelations() ?? [])
                .filter((event) => !event.isRedacted())
                .map((event) => ({ sender: event.getSender() ?? "", ts: event.getTs(), content: event.getContent() }));
        // Who asked may end it, and who may remove what others wrote. spec: MSC3381 §Closing a poll
        const power = (sender: string): boolean => currentState.hasSufficientPowerLevelFor("redact", this.room.getMember(sender)?.powerLevel ?? 0);
        const ends = all(ENDS).filter(({ sender }) => sender === message.sender || power(sender));
        const endedAt = ends.length > 0 ? Math.min(...ends.map(({ ts }) => ts)) : undefined;
        return tally(message.asked!, all(RESPONSES), endedAt, this.client.getSafeUserId(), message.own || moderates);
    }

    private reactionsTo(eventId: string): Reaction[] {
        const me = this.client.getUserId();
        const { nameOf } = peopleOf(this.room, me ?? "");
        const sorted = this.room.relations.getChildEventsForEvent(eventId, "m.annotation", "m.reaction")?.getSortedAnnotationsByKey() ?? [];
        const reactions: Reaction[] = [];
        for (const [key, events] of sorted) {
            const standing = [...events].filter((event) => !event.isRedacted());
            if (standing.length === 0) continue;
            const own = standing.find((event) => event.getSender() === me);
            const mine = own && (own.status === null ? own.getId() : "");
            reactions.push({ key: key.slice(0, 40), names: standing.map((event) => nameOf(event.getSender() ?? "")), mine });
        }
        return reactions;
    }

    private addReaders(message: Message, event: MatrixEvent, me: string): void {
        const { nameOf } = peopleOf(this.room, me);
        for (const id of this.room.getUsersReadUpTo(event)) {
            if (id === me || id === message.sender) continue;
            message.readers ??= [];
            if (!message.readers.some((reader) => reader.id === id)) message.readers.push({ id, name: nameOf(id) });
        }
    }

    private quoted(eventId: string): Omit<Quote, "eventId"> | undefined {
        const event = this.room.findEventById(eventId);
        const entry = event && (this.made.get(event)?.entry ?? toEntry(event, peopleOf(this.room, this.client.getSafeUserId())));
        if (entry?.kind !== "message") return undefined;
        return { senderName: entry.senderName, text: entry.text.replace(/\s+/g, " ").slice(0, 200) };
    }

    private readonly onTyping = (): void => {
        const me = this.client.getUserId();
        const names = this.room.currentState.getMembers().filter((member) => member.typing && member.userId !== me && !this.client.isUserIgnored(member.userId)).map((member) => member.name);
        if (names.join() !== this.typing.value.join()) this.typing.value = names;
    };
}

/** The content of an answer or a change. spec: client-server §Rich replies, §Event replacements */
export function withContext(content: Record<string, unknown>, context: Context | undefined): Record<string, unknown> {
    const target = context?.message.eventId;
    if (target === undefined) return content;
    if (context!.kind === "reply") return { ...content, "m.relates_to": { "m.in_reply_to": { event_id: target } } };
    const { formatted_body: html } = content;
    return {
        ...content,
        body: `* ${content.body as string}`,
        ...(typeof html === "string" ? { formatted_body: `* ${html}` } : {}),
        "m.new_content": content,
        "m.relates_to": { rel_type: "m.replace", event_id: target },
    };
}

/** The message that began the thread in which an event was said. */
export function threadOf(event: MatrixEvent): string | undefined {
    const relation = event.getWireContent()["m.relates_to"] as { rel_type?: unknown; event_id?: unknown } | null | undefined;
    return relation?.rel_type === "m.thread" && typeof relation.event_id === "string" ? relation.event_id : undefined;
}

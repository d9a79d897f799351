/**
 * What of a room is shown: from events to entries, and from entries to days and groups. Pure; the SDK's events fit
 * the small interface below.
 */
import { localpart } from "./ids.ts";

export interface EventView {
    getId(): string | undefined;
    getTxnId(): string | undefined;
    getType(): string;
    getSender(): string | undefined;
    getStateKey(): string | undefined;
    getTs(): number;
    getContent(): Record<string, unknown>;
    getPrevContent(): Record<string, unknown>;
    getUnsigned(): { transaction_id?: string };
    isRedacted(): boolean;
    replacingEventId(): string | undefined;
    readonly status: string | null;
}

export type Delivery = "sent" | "sending" | "failed";
export type Style = "text" | "emote" | "notice" | "removed" | "file" | "locked";

export interface Message {
    /** The same before and after the server gave the event its ID. */
    key: string;
    eventId: string | undefined;
    sender: string;
    senderName: string;
    own: boolean;
    ts: number;
    text: string;
    style: Style;
    delivery: Delivery;
    edited: boolean;
}

export interface Notice {
    key: string;
    ts: number;
    text: string;
    /** The text in three parts, where neighbours that differ only in the names can be one: "A invited B and C". */
    listed?: { before: string; names: string[]; after: string };
}

export type Entry = ({ kind: "message" } & Message) | ({ kind: "notice" } & Notice);

export type Item =
    | { kind: "day"; key: string; ts: number }
    | { kind: "group"; key: string; sender: string; senderName: string; own: boolean; messages: Message[] }
    | ({ kind: "notice" } & Notice);

export interface People {
    me: string;
    /** The name a member has in the room. */
    nameOf(userId: string): string;
}

const FILES: Record<string, string> = { "m.image": "Picture", "m.video": "Video", "m.audio": "Recording", "m.file": "File", "m.location": "Place" };

/** The entry for an event, or `undefined` for what is not shown on its own. */
export function toEntry(event: EventView, people: People): Entry | undefined {
    const key = event.getTxnId() ?? event.getUnsigned().transaction_id ?? event.getId() ?? "";
    const ts = event.getTs();
    if (event.getStateKey() !== undefined) {
        const described = event.isRedacted() ? undefined : describeState(event, people);
        if (described === undefined) return undefined;
        if (typeof described === "string") return { kind: "notice", key, ts, text: described };
        return { kind: "notice", key, ts, text: join(described), listed: described };
    }
    const shown = describeMessage(event);
    if (!shown) return undefined;
    const sender = event.getSender() ?? "";
    return {
        kind: "message",
        key,
        ts,
        eventId: event.status === null ? event.getId() : undefined,
        sender,
        senderName: people.nameOf(sender),
        own: sender === people.me,
        delivery: deliveryOf(event.status),
        edited: !event.isRedacted() && event.replacingEventId() !== undefined,
        ...shown,
    };
}

function deliveryOf(status: string | null): Delivery {
    if (status === "not_sent" || status === "cancelled") return "failed";
    return status === null || status === "sent" ? "sent" : "sending";
}

function describeMessage(event: EventView): { text: string; style: Style } | undefined {
    const type = event.getType();
    if (type === "m.room.encrypted") return { text: "An encrypted message, which this app cannot read yet.", style: "locked" };
    if (type !== "m.room.message" && type !== "m.sticker") return undefined;
    if (event.isRedacted()) return { text: "Message removed", style: "removed" };
    const content = event.getContent();
    if (isReplacement(content)) return undefined; // shown in place of the event that it replaces
    const body = typeof content.body === "string" ? content.body : "";
    const msgtype = typeof content.msgtype === "string" ? content.msgtype : type;
    if (Object.hasOwn(FILES, msgtype) || type === "m.sticker") {
        return { text: `${FILES[msgtype] ?? "Sticker"}${body === "" ? "" : `: ${body}`}`, style: "file" };
    }
    if (body.trim() === "") return undefined;
    return { text: body, style: msgtype === "m.emote" ? "emote" : msgtype === "m.notice" ? "notice" : "text" };
}

function isReplacement(content: Record<string, unknown>): boolean {
    const relation = content["m.relates_to"] as { rel_type?: unknown } | null | undefined;
    return relation?.rel_type === "m.replace";
}

type Listed = NonNullable<Notice["listed"]>;

function join({ before, names, after }: Listed): string {
    const list = names.length < 2 ? (names[0] ?? "") : `${names.slice(0, -1).join(", ")} and ${names.at(-1)}`;
    return before + list + after;
}

function describeState(event: EventView, people: People): string | Listed | undefined {
    const sender = people.nameOf(event.getSender() ?? "");
    const content = event.getContent();
    const previous = event.getPrevContent();
    switch (event.getType()) {
        case "m.room.create":
            return { before: "", names: [sender], after: CREATED };
        case "m.room.member":
            return describeMember(event, people);
        case "m.room.name":
            return text(content.name) ? `${sender} named the room “${text(content.name)}”` : text(previous.name) ? `${sender} removed the room’s name` : undefined;
        case "m.room.topic":
            return text(content.topic) ? `${sender} set the topic: ${text(content.topic)}` : text(previous.topic) ? `${sender} removed the topic` : undefined;
        case "m.room.encryption":
            return `${sender} turned on encryption`;
        case "m.room.tombstone":
            return `${sender} closed this room; it goes on in another one`;
        default:
            return undefined;
    }
}

const CREATED = " created this room";
const JOINED = " joined";

function describeMember(event: EventView, people: People): string | Listed | undefined {
    const userId = event.getStateKey() ?? "";
    const content = event.getContent();
    const previous = event.getPrevContent();
    const sender = people.nameOf(event.getSender() ?? "");
    const who = text(content.displayname) ?? text(previous.displayname) ?? localpart(userId);
    const self = event.getSender() === userId;
    const [from, to] = [text(previous.membership) ?? "leave", text(content.membership)];
    if (to === "invite") return from === "invite" ? undefined : { before: `${sender} invited `, names: [who], after: "" };
    if (to === "knock") return `${who} asks to join`;
    if (to === "ban") return from === "ban" ? undefined : `${sender} banned ${who}`;
    if (to === "join") return from === "join" ? describeProfile(previous, content, userId) : { before: "", names: [who], after: JOINED };
    if (to !== "leave" || from === "leave") return undefined;
    if (from === "invite") return self ? `${who} declined the invitation` : `${sender} took back the invitation of ${who}`;
    if (from === "ban") return `${sender} lifted the ban of ${who}`;
    return self ? { before: "", names: [who], after: " left" } : { before: `${sender} removed `, names: [who], after: "" };
}

function describeProfile(previous: Record<string, unknown>, content: Record<string, unknown>, userId: string): string | undefined {
    const [before, after] = [text(previous.displayname) ?? localpart(userId), text(content.displayname) ?? localpart(userId)];
    if (before !== after) return `${before} is now called ${after}`;
    return text(previous.avatar_url) !== text(content.avatar_url) ? `${after} has a new picture` : undefined;
}

function text(value: unknown): string | undefined {
    return typeof value === "string" && value.trim() !== "" ? value.slice(0, 500) : undefined;
}

/** Messages of one person within this time stand together under one name. */
export const GROUP_WINDOW_MS = 5 * 60_000;

/** Puts entries, in their order, under the days on which they were written, neighbours of one sender together. */
export function toItems(entries: readonly Entry[], dayOf: (ts: number) => string): Item[] {
    const items: Item[] = [];
    let day = "";
    for (const entry of entries) {
        const itsDay = dayOf(entry.ts);
        if (itsDay !== day) {
            day = itsDay;
            items.push({ kind: "day", key: `day-${itsDay}-${entry.key}`, ts: entry.ts });
        }
        const last = items.at(-1);
        if (entry.kind === "notice") {
            if (last?.kind !== "notice") items.push(entry);
            else if (!isImplied(last, entry)) addNotice(items, last, entry);
            continue;
        }
        const { kind: _kind, ...message } = entry;
        if (last?.kind === "group" && continues(last.messages, message)) last.messages.push(message);
        else items.push({ kind: "group", key: `group-${entry.key}`, sender: entry.sender, senderName: entry.senderName, own: entry.own, messages: [message] });
    }
    return items;
}

/** Who makes a room is in it: that is not said twice. */
function isImplied(last: Notice, next: Notice): boolean {
    return last.listed?.after === CREATED && next.listed?.after === JOINED && last.listed.names[0] === next.listed.names[0];
}

function addNotice(items: Item[], last: Notice, next: Notice & { kind: "notice" }): void {
    if (!last.listed || !next.listed || last.listed.before !== next.listed.before || last.listed.after !== next.listed.after) {
        items.push(next);
        return;
    }
    const names = [...new Set([...last.listed.names, ...next.listed.names])];
    const listed = { ...last.listed, names };
    items[items.length - 1] = { kind: "notice", key: last.key, ts: last.ts, text: join(listed), listed };
}

function continues(messages: Message[], next: Message): boolean {
    const last = messages.at(-1);
    return last !== undefined && last.sender === next.sender && last.senderName === next.senderName && Math.abs(next.ts - last.ts) <= GROUP_WINDOW_MS;
}

/** The day of a time where the reader is, as a key and for no one's eyes. */
export function localDay(ts: number): string {
    const date = new Date(ts);
    return `${date.getFullYear()}-${date.getMonth() + 1}-${date.getDate()}`;
}

/** The entry in one line, for the room list. */
export function previewOf(entry: Entry, direct: boolean): string {
    const line = entry.text.replace(/\s+/g, " ").trim().slice(0, 160);
    if (entry.kind === "notice") return line;
    if (entry.delivery === "failed") return `Not sent: ${line}`;
    if (entry.style === "emote") return `${entry.senderName} ${line}`;
    if (entry.own) return `You: ${line}`;
    return direct ? line : `${entry.senderName}: ${line}`;
}

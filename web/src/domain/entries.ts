/**
 * What of a room is shown: from events to entries, and from entries to days and groups. Pure; the SDK's events fit
 * the small interface below.
 */
import { parseHtml, type Rich } from "./html.ts";
import { listOf, t } from "./i18n.ts";
import { localpart } from "./ids.ts";
import { type Attachment, attachmentIn, captionIn } from "./media.ts";
import { isPollStart, type Poll, pollIn, type PollStart } from "./polls.ts";

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
    /** The event that changed this one, if it came as an event of its own. */
    replacingEvent?(): unknown;
    readonly status: string | null;
    /** Of an encrypted message: that nothing came of decrypting it. Absent where nothing is decrypted. */
    isDecryptionFailure?(): boolean;
}

export interface Reaction {
    key: string;
    names: string[];
    /** The event by which this person said it, if they did; empty while it is being sent. */
    mine: string | undefined;
}

export interface Quote {
    eventId: string;
    /** Both absent if the message is not known here. */
    senderName?: string;
    text?: string;
}

/** What waits is sent by itself as soon as that can be; what failed only if the person says so. */
export type Delivery = "sent" | "sending" | "waiting" | "failed";
export type Style = "text" | "emote" | "notice" | "removed" | "file" | "locked" | "poll";

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
    /** A change of the message that has not reached the server. */
    change?: { key: string; failed: boolean };
    /** The message with its markup, if it has any. */
    rich?: Rich[];
    attachment?: Attachment;
    /** What is said to the attachment. */
    caption?: string;
    /** What is asked, and what came of it so far. */
    asked?: PollStart;
    poll?: Poll;
    /** Replies in the thread that begins here. */
    thread?: { count: number; last?: { senderName: string; text: string } };
    quote?: Quote;
    reactions?: Reaction[];
    /** Others who have read up to here, and not further. */
    readers?: { id: string; name: string }[];
    /** Whether this person may remove it, and change it. */
    mayRemove?: boolean;
    mayEdit?: boolean;
}

export interface Notice {
    key: string;
    ts: number;
    text: string;
    /** The text in three parts, where neighbours that differ only in the names can be one: "A invited B and C". */
    listed?: { before: string; names: string[]; after: string; sentence: string };
}

export type Entry = ({ kind: "message" } & Message) | ({ kind: "notice" } & Notice);

export type Item =
    | { kind: "day"; key: string; ts: number }
    | { kind: "group"; key: string; sender: string; senderName: string; own: boolean; continued?: boolean; goesOn?: boolean; messages: Message[] }
    | { kind: "unread"; key: string }
    | ({ kind: "notice" } & Notice);

export interface People {
    me: string;
    /** The name a member has in the room. */
    nameOf(userId: string): string;
    /** Whether this person wants to hear nothing of another one. */
    ignores?(userId: string): boolean;
    /** A message that is answered, in short, if it is known. */
    quoted?(eventId: string): Omit<Quote, "eventId"> | undefined;
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
    const sender = event.getSender() ?? "";
    if (people.ignores?.(sender)) return undefined;
    // What it says is for apps that cannot do it. spec: client-server §m.key.verification.request
    if (event.getContent().msgtype === "m.key.verification.request" && !event.isRedacted()) {
        const said = listed("{names} asked to compare pictures", people.nameOf(sender));
        return { kind: "notice", key, ts, text: join(said), listed: said };
    }
    const shown = describeMessage(event, people);
    if (!shown) return undefined;
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

type Shown = Pick<Message, "text" | "style" | "rich" | "attachment" | "caption" | "quote" | "asked">;

function describeMessage(event: EventView, people: People): Shown | undefined {
    const type = event.getType();
    // What could not be decrypted stands there as a message that says so, in words for nobody.
    if (type === "m.room.encrypted" || event.isDecryptionFailure?.()) {
        if (event.isRedacted()) return { text: t("Message removed"), style: "removed" };
        return { text: event.isDecryptionFailure?.() === false ? t("Decrypting…") : t("This message cannot be read on this device."), style: "locked" };
    }
    if (isPollStart(type)) return describePoll(event);
    if (type !== "m.room.message" && type !== "m.sticker") return undefined;
    if (event.isRedacted()) return { text: t("Message removed"), style: "removed" };
    const content = contentOf(event);
    if (isReplacement(content)) return undefined; // shown in place of the event that it replaces
    const answered = repliedTo(content);
    const quote = answered === undefined ? {} : { quote: { eventId: answered, ...people.quoted?.(answered) } };
    const body = bodyOf(content);
    const msgtype = typeof content.msgtype === "string" ? content.msgtype : type;
    if (Object.hasOwn(FILES, msgtype) || type === "m.sticker") return { ...describeFile(msgtype, content, body), ...quote };
    if (body.trim() === "") return undefined;
    const rich = richOf(content);
    return { text: body, style: msgtype === "m.emote" ? "emote" : msgtype === "m.notice" ? "notice" : "text", ...(rich ? { rich } : {}), ...quote };
}

function describeFile(msgtype: string, content: Record<string, unknown>, body: string): Shown {
    const attachment = attachmentIn(msgtype, content);
    const caption = attachment && captionIn({ ...content, body });
    const rich = caption === undefined ? undefined : richOf(content);
    const said = attachment?.waveform ? t("Voice message") : `${t(FILES[msgtype] ?? "Sticker")}${body === "" ? "" : `: ${body}`}`;
    return { text: said, style: "file", ...(attachment ? { attachment } : {}), ...(caption === undefined ? {} : { caption }), ...(rich ? { rich } : {}) };
}

function describePoll(event: EventView): Shown | undefined {
    if (event.isRedacted()) return { text: t("Message removed"), style: "removed" };
    const asked = pollIn(contentOf(event));
    return asked && { text: t("Poll: {question}", { question: asked.question }), style: "poll", asked };
}

/**
 * The content as it was last changed. A change that came with the event itself, and not as an event of its own, is
 * for the client to put in its place, which the SDK leaves out. spec: client-server §Server-side aggregation of m.replace
 */
export function contentOf(event: EventView): Record<string, unknown> {
    const content = event.getContent();
    const { "m.relations": relations } = event.getUnsigned() as { "m.relations"?: { "m.replace"?: { content?: Record<string, unknown> } } };
    const changed = relations?.["m.replace"]?.content?.["m.new_content"];
    if (typeof changed !== "object" || changed === null || event.isRedacted() || event.replacingEvent?.()) return content;
    return changed as Record<string, unknown>;
}

/** The text of a message. Older clients repeat in it what they answer. spec: §Fallbacks for rich replies */
export function bodyOf(content: Record<string, unknown>): string {
    const body = typeof content.body === "string" ? content.body : "";
    return repliedTo(content) !== undefined && body.startsWith("> ") ? body.replace(/^(?:> .*(?:\n|$))+\n?/, "") : body;
}

const parsed = new WeakMap<object, Rich[]>();

function richOf(content: Record<string, unknown>): Rich[] | undefined {
    if (content.format !== "org.matrix.custom.html" || typeof content.formatted_body !== "string") return undefined;
    let rich = parsed.get(content);
    if (!rich) parsed.set(content, (rich = parseHtml(content.formatted_body)));
    return rich.length > 0 ? rich : undefined;
}

function relationOf(content: Record<string, unknown>): Record<string, unknown> {
    const relation = content["m.relates_to"];
    return typeof relation === "object" && relation !== null ? (relation as Record<string, unknown>) : {};
}

function repliedTo(content: Record<string, unknown>): string | undefined {
    const { is_falling_back: fallback, "m.in_reply_to": reply } = relationOf(content);
    const id = (reply as { event_id?: unknown } | null | undefined)?.event_id;
    return typeof id === "string" && fallback !== true ? id : undefined;
}

function isReplacement(content: Record<string, unknown>): boolean {
    return relationOf(content).rel_type === "m.replace";
}

type Listed = NonNullable<Notice["listed"]>;

function join({ before, names, after }: Listed): string {
    return before + listOf(names) + after;
}

function describeState(event: EventView, people: People): string | Listed | undefined {
    const sender = people.nameOf(event.getSender() ?? "");
    const content = event.getContent();
    const previous = event.getPrevContent();
    switch (event.getType()) {
        case "m.room.create":
            return listed("{names} created this room", sender);
        case "m.room.member":
            return describeMember(event, people);
        case "m.room.name":
            return text(content.name) ? t("{sender} named the room “{name}”", { sender, name: text(content.name)! }) : text(previous.name) ? t("{sender} removed the room’s name", { sender }) : undefined;
        case "m.room.topic":
            return text(content.topic) ? t("{sender} set the topic: {topic}", { sender, topic: text(content.topic)! }) : text(previous.topic) ? t("{sender} removed the topic", { sender }) : undefined;
        case "m.room.pinned_events":
            return countOf(content.pinned) > countOf(previous.pinned) ? t("{sender} pinned a message", { sender }) : undefined;
        case "m.room.encryption":
            return t("{sender} turned on encryption", { sender });
        case "m.room.tombstone":
            return t("{sender} closed this room; it goes on in another one", { sender });
        default:
            return undefined;
    }
}

/** A sentence about people, of whom there may come to be more. */
function listed(sentence: string, name: string, sender = ""): Listed {
    const [before, after] = t(sentence, { sender }).split("{names}");
    return { before: before ?? "", names: [name], after: after ?? "", sentence };
}

function describeMember(event: EventView, people: People): string | Listed | undefined {
    const userId = event.getStateKey() ?? "";
    const content = event.getContent();
    const previous = event.getPrevContent();
    const sender = people.nameOf(event.getSender() ?? "");
    const who = text(content.displayname) ?? text(previous.displayname) ?? localpart(userId);
    const self = event.getSender() === userId;
    const [from, to] = [text(previous.membership) ?? "leave", text(content.membership)];
    if (to === "invite") return from === "invite" ? undefined : listed("{sender} invited {names}", who, sender);
    if (to === "knock") return t("{who} asks to join", { who });
    if (to === "ban") return from === "ban" ? undefined : t("{sender} banned {who}", { sender, who });
    if (to === "join") return from === "join" ? describeProfile(previous, content, userId) : listed("{names} joined", who);
    if (to !== "leave" || from === "leave") return undefined;
    if (from === "invite") return self ? t("{who} declined the invitation", { who }) : t("{sender} took back the invitation of {who}", { sender, who });
    if (from === "ban") return t("{sender} lifted the ban of {who}", { sender, who });
    return self ? listed("{names} left", who) : listed("{sender} removed {names}", who, sender);
}

function describeProfile(previous: Record<string, unknown>, content: Record<string, unknown>, userId: string): string | undefined {
    const [before, after] = [text(previous.displayname) ?? localpart(userId), text(content.displayname) ?? localpart(userId)];
    if (before !== after) return t("{before} is now called {after}", { before, after });
    return text(previous.avatar_url) !== text(content.avatar_url) ? t("{after} has a new picture", { after }) : undefined;
}

const countOf = (value: unknown): number => (Array.isArray(value) ? value.length : 0);

function text(value: unknown): string | undefined {
    return typeof value === "string" && value.trim() !== "" ? value.slice(0, 500) : undefined;
}

/** Messages of one person within this time stand together under one name. */
export const GROUP_WINDOW_MS = 5 * 60_000;

/** Puts entries, in their order, under the days on which they were written, neighbours of one sender together. */
export function toItems(entries: readonly Entry[], dayOf: (ts: number) => string, firstUnread?: string): Item[] {
    const items: Item[] = [];
    let day = "";
    for (const entry of entries) {
        const itsDay = dayOf(entry.ts);
        if (itsDay !== day) {
            day = itsDay;
            items.push({ kind: "day", key: `day-${itsDay}-${entry.key}`, ts: entry.ts });
        }
        if (entry.key === firstUnread) items.push({ kind: "unread", key: "unread" });
        const last = items.at(-1);
        if (entry.kind === "notice") {
            if (last?.kind !== "notice") items.push(entry);
            else if (!isImplied(last, entry)) addNotice(items, last, entry);
            continue;
        }
        const goesOn = last?.kind === "group" && continues(last.messages, entry);
        if (goesOn && !isFull(last.messages, entry)) last.messages.push(entry);
        else {
            if (goesOn) last.goesOn = true;
            items.push({ kind: "group", key: `group-${entry.key}`, sender: entry.sender, senderName: entry.senderName, own: entry.own, ...(goesOn ? { continued: true } : {}), messages: [entry] });
        }
    }
    return items;
}

/** Who makes a room is in it: that is not said twice. */
function isImplied(last: Notice, next: Notice): boolean {
    return last.listed?.sentence === "{names} created this room" && next.listed?.sentence === "{names} joined" && last.listed.names[0] === next.listed.names[0];
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

/** Messages that a group holds at least before it may be cut. */
const LEAST = 8;

/**
 * A person may write thousands of messages in a row, and only what is near the screen is drawn: long groups are cut in
 * parts that look like one. The keys say where, so that older messages before it do not move the cuts.
 */
function isFull(messages: readonly Message[], next: Message): boolean {
    return messages.length >= LEAST && (messages.length >= 4 * LEAST || (next.key.charCodeAt(next.key.length - 1) & 7) === 0);
}

function continues(messages: Message[], next: Message): boolean {
    const last = messages.at(-1);
    return last !== undefined && last.sender === next.sender && last.senderName === next.senderName && Math.abs(next.ts - last.ts) <= GROUP_WINDOW_MS;
}

/** No zone's clock is off by less than this. */
const QUARTER_MS = 15 * 60_000;
let lastQuarter = { quarter: -1, day: "" };

/** The day of a time where the reader is, as a key and for no one's eyes. */
export function localDay(ts: number): string {
    const quarter = Math.floor(ts / QUARTER_MS);
    if (quarter === lastQuarter.quarter) return lastQuarter.day; // messages stand together
    const date = new Date(ts);
    const day = `${date.getFullYear()}-${date.getMonth() + 1}-${date.getDate()}`;
    lastQuarter = { quarter, day };
    return day;
}

/** The entry in one line, for the room list. */
export function previewOf(entry: Entry, direct: boolean): string {
    const line = entry.text.replace(/\s+/g, " ").trim().slice(0, 160);
    if (entry.kind === "notice") return line;
    if (entry.delivery === "failed") return t("Not sent: {line}", { line });
    if (entry.style === "emote") return `${entry.senderName} ${line}`;
    if (entry.own) return t("You: {line}", { line });
    return direct ? line : `${entry.senderName}: ${line}`;
}

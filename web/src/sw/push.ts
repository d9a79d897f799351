/**
 * What the service worker does with what it is pushed, and with what is done to the notifications. An open page is
 * asked first: it has the message, decrypted. Without one, a message of an encrypted room is told of without its text.
 */
import type { KeyValue } from "../store/keyvalue.ts";
import {
    ACK_PATH,
    type Described,
    type DeviceNotes,
    endOf,
    isQuiet,
    loadDevice,
    loadNotes,
    type Notes,
    type NoteWords,
    pusherOf,
    saveDevice,
    SET_PATH,
    type SubscriptionKeys,
    type ToPage,
} from "../store/notes.ts";
import { newTransaction, OutboxStore } from "../store/outbox.ts";
import { loadSession, type Session } from "../store/session.ts";

/** An open page of the app. */
export interface Page {
    focused: boolean;
    /** Resolves to undefined if no answer comes in time. */
    ask(question: ToPage): Promise<unknown>;
    tell(message: ToPage): void;
    focus(): Promise<void>;
}

/** A notification on the screen. */
export interface Shown {
    roomId: string;
    eventId: string;
    close(): void;
}

export interface Showing {
    title: string;
    body: string;
    roomId: string;
    eventId: string;
    silent: boolean;
    /** Make itself heard although one of the same room is on the screen. */
    again: boolean;
    words: NoteWords;
}

/** What the browser gives to a service worker. */
export interface WorkerEnvironment {
    kv: KeyValue;
    fetch: typeof fetch;
    now: () => Date;
    pages(): Promise<Page[]>;
    openPage(path: string): Promise<void>;
    shown(): Promise<Shown[]>;
    show(showing: Showing): Promise<void>;
    badge(unread: number): Promise<void>;
    /** Subscribes anew with a server's key. */
    subscribe(vapid: string): Promise<SubscriptionKeys>;
}

/** How long the server may take for what a notification waits for. */
const ASK_MS = 5_000;
/** How many of the newest notifications are looked through for those that were read. */
const LOOK_BACK = 100;

const ENGLISH: NoteWords = {
    newMessage: "New message",
    newMessageIn: "New message in {room}",
    read: "Mark as read",
    reply: "Reply",
    replyHint: "Write a reply",
    dir: "ltr",
    lang: "en",
};

interface Pushed {
    room_id?: unknown;
    event_id?: unknown;
    unread?: unknown;
    prio?: unknown;
    ack_token?: unknown;
    app_id?: unknown;
}

const v3 = (path: string): string => `/_matrix/client/v3${path}`;
const inRoom = (roomId: string, path: string): string => v3(`/rooms/${encodeURIComponent(roomId)}/${path}`);

export class Push {
    constructor(private readonly env: WorkerEnvironment) {}

    /** A message came from the push service. It is JSON by our server, and never trusted to be. */
    async pushed(data: unknown): Promise<void> {
        const { room_id: roomId, event_id: eventId, unread, prio, ack_token: ack, app_id: app }: Pushed = typeof data === "object" && data !== null ? data : {};
        if (typeof ack === "string") return this.activate(app, ack);
        if (typeof unread === "number") await this.env.badge(unread);
        if (typeof roomId === "string" && typeof eventId === "string") return this.tellOf(roomId, eventId, prio === "high");
        if (typeof unread === "number") await this.closeRead(unread);
    }

    /** The notification, or a button of it, was pressed. `reply` is what was typed into it. */
    async pressed(action: string, roomId: string, eventId: string, reply: string | null): Promise<void> {
        if (action === "read") return this.read(roomId, eventId);
        const text = reply?.trim() ?? "";
        if (action === "reply" && text !== "") return this.reply(roomId, text);
        const pages = await this.env.pages();
        const page = pages.find((each) => each.focused) ?? pages[0];
        if (!page) return this.env.openPage(`/#/room/${encodeURIComponent(roomId)}`);
        page.tell({ type: "open", roomId });
        await page.focus();
    }

    /** The browser ended the subscription, or changed it. */
    async renew(): Promise<void> {
        const [device, session] = [await loadDevice(this.env.kv), await this.session()];
        if (!device.on || device.vapid === undefined || !session) return;
        const keys = await this.env.subscribe(device.vapid);
        const next: DeviceNotes = { ...device, pushkey: keys.p256dh };
        await this.request(session, "POST", SET_PATH, pusherOf(keys, next));
        await saveDevice(this.env.kv, next);
        if (device.pushkey !== undefined && device.pushkey !== keys.p256dh) await this.request(session, "POST", SET_PATH, endOf(device.pushkey));
    }

    /** Says to the server what it said here: then it knows that its messages arrive. spec: MSC4174 */
    private async activate(app: unknown, ack: string): Promise<void> {
        const session = await this.session();
        if (!session) return;
        await this.request(session, "POST", ACK_PATH, { app_id: app, ack_token: ack });
        for (const page of await this.env.pages()) page.tell({ type: "active" });
    }

    private async tellOf(roomId: string, eventId: string, loud: boolean): Promise<void> {
        const pages = await this.env.pages();
        if (pages.some((page) => page.focused)) return; // it shows there
        const notes = await loadNotes(this.env.kv);
        const said = await this.describe(pages, notes, roomId, eventId);
        if (said === null) return;
        const quiet = isQuiet(notes?.quiet, this.env.now());
        await this.env.show({ ...said, roomId, eventId, silent: quiet, again: loud && !quiet, words: notes?.words ?? ENGLISH });
    }

    private async describe(pages: Page[], notes: Notes | undefined, roomId: string, eventId: string): Promise<Described | null> {
        for (const page of pages) {
            const answer = await page.ask({ type: "describe", roomId, eventId });
            if (answer === null) return null;
            if (isDescribed(answer)) return answer;
        }
        const words = notes?.words ?? ENGLISH;
        const room = notes?.rooms[roomId];
        const fetched = room && !room.sealed ? await this.fetchText(roomId, eventId) : undefined;
        if (fetched !== undefined) return { title: room!.name, body: fetched };
        return { title: room?.name ?? "hubbub", body: room ? words.newMessageIn.replace("{room}", room.name) : words.newMessage };
    }

    /** The text of a message in a room that is not encrypted. */
    private async fetchText(roomId: string, eventId: string): Promise<string | undefined> {
        const session = await this.session();
        if (!session) return undefined;
        try {
            const event = await this.request(session, "GET", inRoom(roomId, `event/${encodeURIComponent(eventId)}`));
            const { sender, type, content } = event as { sender?: unknown; type?: unknown; content?: { body?: unknown } };
            if (type !== "m.room.message" || typeof sender !== "string" || typeof content?.body !== "string") return undefined;
            return `${sender.slice(1).split(":")[0]}: ${content.body.slice(0, 200)}`;
        } catch {
            return undefined;
        }
    }

    /** What was read on another device goes from the screen. */
    private async closeRead(unread: number): Promise<void> {
        const shown = await this.env.shown();
        if (shown.length === 0) return;
        if (unread === 0) return shown.forEach((each) => each.close());
        const session = await this.session();
        if (!session) return;
        const list = (await this.request(session, "GET", v3(`/notifications?limit=${LOOK_BACK}`)).catch(() => undefined)) as { notifications?: unknown } | undefined;
        if (!Array.isArray(list?.notifications)) return;
        const read = new Set<unknown>();
        for (const each of list.notifications as { read?: unknown; event?: { event_id?: unknown } }[]) if (each.read === true) read.add(each.event?.event_id);
        for (const each of shown) if (read.has(each.eventId)) each.close();
    }

    private async read(roomId: string, eventId: string): Promise<void> {
        const session = await this.session();
        if (session) await this.request(session, "POST", inRoom(roomId, `receipt/m.read/${encodeURIComponent(eventId)}`), {}).catch(() => undefined);
    }

    /** A page sends it, as it can encrypt. Without one it is written down as if a page had been closed before it was sent. */
    private async reply(roomId: string, text: string): Promise<void> {
        for (const page of await this.env.pages()) if ((await page.ask({ type: "reply", roomId, text })) === true) return;
        const session = await this.session();
        if (!session) return;
        const content = { msgtype: "m.text", body: text };
        const notes = await loadNotes(this.env.kv);
        const message = { roomId, type: "m.room.message", content, txnId: newTransaction(), ts: this.env.now().getTime() };
        const outbox = new OutboxStore(this.env.kv, session.userId);
        await outbox.put(message);
        if (notes?.rooms[roomId]?.sealed === false) {
            const sent = await this.request(session, "PUT", inRoom(roomId, `send/m.room.message/${message.txnId}`), content).then(() => true, () => false);
            if (sent) return outbox.drop(message);
        }
        await this.env.openPage(`/#/room/${encodeURIComponent(roomId)}`);
    }

    private session(): Promise<Session | undefined> {
        return loadSession(this.env.kv).catch(() => undefined);
    }

    private async request(session: Session, method: string, path: string, body?: unknown): Promise<unknown> {
        const answer = await this.env.fetch(path, {
            method,
            headers: { Authorization: `Bearer ${session.accessToken}`, ...(body === undefined ? {} : { "Content-Type": "application/json" }) },
            signal: AbortSignal.timeout(ASK_MS),
            ...(body === undefined ? {} : { body: JSON.stringify(body) }),
        });
        if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status}`);
        return answer.json();
    }
}

function isDescribed(value: unknown): value is Described {
    const { title, body } = (typeof value === "object" && value !== null ? value : {}) as Partial<Described>;
    return typeof title === "string" && typeof body === "string";
}

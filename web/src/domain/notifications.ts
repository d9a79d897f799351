/**
 * Whether and how this device is told of messages: the subscription with the browser's push service, what the service
 * worker is asked and told, and what it has to know when no page is open. spec: MSC4174
 */
import { computed, type ReadonlySignal, signal } from "@preact/signals-core";
import { MatrixEventEvent } from "matrix-js-sdk/lib/models/event";
import { RoomEvent } from "matrix-js-sdk/lib/models/room";
import type { KeyValue } from "../store/keyvalue.ts";
import { APP_ID, type Described, type DeviceNotes, endOf, forgetNotes, loadDevice, type Notes, pusherOf, saveDevice, saveNotes, SET_PATH, type SubscriptionKeys, type ToPage, WEB_PUSH } from "../store/notes.ts";
import type { MatrixClient } from "./client.ts";
import { previewOf, toEntry } from "./entries.ts";
import { inWords } from "./errors.ts";
import { direction, language, t } from "./i18n.ts";
import type { Preferences } from "./preferences.ts";
import { directRooms, peopleOf, type RoomSummary } from "./rooms.ts";

/** What the browser offers for it; platform/push.ts. */
export interface PushBrowser {
    /** False where there is no service worker, no push, or, on an iPhone, as long as the app is not on the home screen. */
    readonly supported: boolean;
    /** Whether the browser lets the number of what is unread be told without showing something. */
    readonly numbersAlone: boolean;
    readonly deviceName: string;
    permission(): "default" | "granted" | "denied";
    ask(): Promise<"default" | "granted" | "denied">;
    subscription(): Promise<SubscriptionKeys | undefined>;
    subscribe(vapid: string): Promise<SubscriptionKeys>;
    unsubscribe(): Promise<void>;
    /** The service worker asks and tells; gives the way to stop listening. */
    listen(handle: (message: ToPage) => Promise<unknown>): () => void;
    /** Takes the notifications of rooms from the screen. */
    close(roomIds: ReadonlySet<string>): Promise<void>;
    /** Opens a room that a notification was about. */
    open(roomId: string): void;
}

/**
 * `proving`: the server waits until what it sent has arrived here. `blocked`: the browser says no, and only its settings
 * can change that.
 */
export type PushState = "unsupported" | "off" | "blocked" | "proving" | "on";

export interface Means {
    browser: PushBrowser | undefined;
    kv: KeyValue;
    client: MatrixClient;
    rooms: ReadonlySignal<RoomSummary[]>;
    preferences: ReadonlySignal<Preferences | undefined>;
    /** Whether rooms and preferences are those of the account yet. */
    ready: ReadonlySignal<boolean>;
    reply: (roomId: string, text: string) => void;
}

/** How long a message may take to come and be decrypted before the worker tells of it without its text. */
const ARRIVES_MS = 3_000;
/** What the worker knows is written down after changes, not at each. */
const WRITE_AFTER_MS = 1_000;

export class Notifications {
    readonly state = signal<PushState>("off");
    /** The browser was asked already, or the person said not now. */
    private readonly declined = signal(true);
    private readonly spoke = signal(false);
    /** What waits to be read, in all rooms. */
    readonly unread: ReadonlySignal<number>;
    /** Whether it is a good moment to ask: somebody may answer what was just said. */
    readonly mayAsk: ReadonlySignal<boolean>;

    private device: DeviceNotes = { on: false };
    private readonly ends: (() => void)[] = [];
    private writing: ReturnType<typeof setTimeout> | undefined;
    private written = "";
    private unreadRooms = new Set<string>();

    constructor(private readonly means: Means) {
        const { browser, rooms } = means;
        this.unread = computed(() => rooms.value.reduce((sum, room) => sum + (room.kind === "invite" ? 1 : room.unread), 0));
        this.mayAsk = computed(() => this.state.value === "off" && !this.declined.value && this.spoke.value);
        if (!browser?.supported) this.state.value = "unsupported";
    }

    /** Goes on with what was chosen on this device. */
    async start(): Promise<void> {
        const { browser, rooms, preferences, kv } = this.means;
        if (!browser?.supported) return;
        this.ends.push(
            browser.listen((message) => this.answer(message)),
            rooms.subscribe(() => this.roomsChanged()),
            preferences.subscribe(() => this.write()),
            language.subscribe(() => this.write()),
            this.means.ready.subscribe(() => this.write()),
        );
        this.means.client.on(RoomEvent.LocalEchoUpdated, (event) => {
            if (event.getType() === "m.room.message" || event.getType() === "m.room.encrypted") this.spoke.value = true;
        });
        this.device = await loadDevice(kv);
        this.declined.value = this.device.declined === true || browser.permission() !== "default";
        if (browser.permission() === "denied") this.state.value = "blocked";
        else if (this.device.on && browser.permission() === "granted") await this.keep().catch(() => undefined);
    }

    /** To be called by a press: browsers ask for permission at no other time. Throws with words for the person. */
    async turnOn(): Promise<void> {
        const { browser } = this.means;
        if (!browser?.supported) return;
        this.declined.value = true;
        const answer = await browser.ask();
        if (answer !== "granted") {
            this.state.value = answer === "denied" ? "blocked" : "off";
            return;
        }
        const vapid = await this.vapid();
        if (vapid === undefined) throw new Error(t("This server has no notifications for browsers."));
        let keys: SubscriptionKeys;
        try {
            keys = await browser.subscribe(vapid);
        } catch (error) {
            throw new Error(t("The browser does not reach its service for notifications. It may be switched off there, or blocked by the network."), { cause: error });
        }
        await this.set(keys, vapid);
    }

    async turnOff(): Promise<void> {
        const { browser, kv } = this.means;
        const { pushkey } = this.device;
        this.device = { on: false, declined: true };
        this.state.value = "off";
        await saveDevice(kv, this.device);
        await browser?.unsubscribe().catch(() => undefined);
        if (pushkey !== undefined) await this.post(SET_PATH, endOf(pushkey)).catch(() => undefined); // it ends by itself, with the first message
    }

    /** Not now, and not again by itself. */
    async decline(): Promise<void> {
        this.declined.value = true;
        this.device = { ...this.device, declined: true };
        await saveDevice(this.means.kv, this.device);
    }

    stop(): void {
        clearTimeout(this.writing);
        for (const end of this.ends.splice(0)) end();
    }

    /**
     * For signing out; the server ends the pusher with the session. What the browser does is not waited for: its service
     * worker may never be ready, and keys and messages must not lie here until it is.
     */
    async forget(): Promise<void> {
        this.stop();
        const { browser, kv } = this.means;
        browser?.unsubscribe().catch(() => undefined);
        browser?.close(new Set(this.means.rooms.value.map((room) => room.id))).catch(() => undefined);
        await forgetNotes(kv);
    }

    /** A subscription may have ended, or the server lost the pusher, while no page was open. */
    private async keep(): Promise<void> {
        const { browser } = this.means;
        this.state.value = "on";
        const vapid = await this.vapid();
        if (vapid === undefined || !browser) return;
        let keys = await browser.subscription();
        if (keys && this.device.vapid !== vapid) {
            await browser.unsubscribe(); // it is for another key
            keys = undefined;
        }
        keys ??= await browser.subscribe(vapid);
        if ((await this.pusherState(keys)) !== "on" || this.device.pushkey !== keys.p256dh) await this.set(keys, vapid);
    }

    private async set(keys: SubscriptionKeys, vapid: string): Promise<void> {
        const { browser, kv } = this.means;
        const before = this.device.pushkey;
        const eventsOnly = !browser!.numbersAlone;
        this.device = { on: true, pushkey: keys.p256dh, vapid, eventsOnly, deviceName: browser!.deviceName, lang: language.value };
        this.state.value = "proving";
        await saveDevice(kv, this.device);
        try {
            await inWords(async () => {
                await this.post(SET_PATH, pusherOf(keys, this.device));
                if (before !== undefined && before !== keys.p256dh) await this.post(SET_PATH, endOf(before)).catch(() => undefined);
                if ((await this.pusherState(keys)) === "on") this.state.value = "on";
            });
        } catch (error) {
            this.state.value = "off";
            throw error;
        }
    }

    private async pusherState(keys: SubscriptionKeys): Promise<PushState> {
        const { pushers } = await this.means.client.getPushers();
        const own = pushers.find((pusher) => pusher.app_id === APP_ID && pusher.pushkey === keys.p256dh);
        if (!own) return "off";
        const data = own.data as { url?: string; activated?: boolean };
        if (data.url !== keys.endpoint) return "off";
        return data.activated === true ? "on" : "proving";
    }

    private async vapid(): Promise<string | undefined> {
        const capabilities = (await this.means.client.fetchCapabilities()) as Record<string, { enabled?: boolean; vapid?: unknown } | undefined>;
        const { enabled, vapid } = capabilities[WEB_PUSH] ?? {};
        return enabled === true && typeof vapid === "string" ? vapid : undefined;
    }

    private async post(path: string, body: Record<string, unknown>): Promise<void> {
        const { client } = this.means;
        await client.http.authedRequest("POST" as never, path, undefined, body, { prefix: "" });
    }

    private async answer(message: ToPage): Promise<unknown> {
        switch (message.type) {
            case "describe":
                return this.describe(message.roomId, message.eventId);
            case "reply":
                if (this.means.client.getRoom(message.roomId)?.getMyMembership() !== "join") return false;
                this.means.reply(message.roomId, message.text);
                return true;
            case "open":
                this.means.browser?.open(message.roomId);
                return true;
            case "active":
                if (this.state.value === "proving") this.state.value = "on";
                return true;
        }
    }

    /** What a message says, once it is here and decrypted; null if it was read, undefined if it does not come. */
    private async describe(roomId: string, eventId: string): Promise<Described | null | undefined> {
        const { client } = this.means;
        await this.arrival(roomId, eventId);
        const room = client.getRoom(roomId);
        const summary = this.means.rooms.value.find((each) => each.id === roomId);
        if (!room) return undefined;
        if (room.getMyMembership() === "invite") return { title: summary?.name ?? room.name, body: summary?.preview ?? "" };
        const me = client.getSafeUserId();
        if (room.hasUserReadEvent(me, eventId)) return null;
        const event = room.findEventById(eventId);
        if (!event || event.isBeingDecrypted() || event.isDecryptionFailure()) return undefined;
        const entry = toEntry(event, peopleOf(room, me));
        return entry ? { title: room.name, body: previewOf(entry, directRooms(client).has(roomId)) } : undefined;
    }

    /** Until a message is here and decrypted, or for a while. */
    private arrival(roomId: string, eventId: string): Promise<void> {
        const { client } = this.means;
        return new Promise((resolve) => {
            const look = (): void => {
                const room = client.getRoom(roomId);
                const event = room?.findEventById(eventId);
                const there = room?.getMyMembership() === "invite" || (event && !event.isBeingDecrypted() && (!event.isEncrypted() || event.getClearContent() !== null));
                if (there) done();
            };
            const done = (): void => {
                clearTimeout(timer);
                client.off(RoomEvent.Timeline, look);
                client.off(RoomEvent.MyMembership, look);
                client.off(MatrixEventEvent.Decrypted, look);
                resolve();
            };
            const timer = setTimeout(done, ARRIVES_MS);
            client.on(RoomEvent.Timeline, look);
            client.on(RoomEvent.MyMembership, look);
            client.on(MatrixEventEvent.Decrypted, look);
            look();
        });
    }

    private roomsChanged(): void {
        const unread = new Set(this.means.rooms.value.filter((room) => room.unread > 0 || room.kind === "invite").map((room) => room.id));
        const read = [...this.unreadRooms].filter((id) => !unread.has(id));
        this.unreadRooms = unread;
        if (read.length > 0) void this.means.browser?.close(new Set(read));
        this.write();
    }

    private write(): void {
        if (!this.means.ready.value) return; // what an earlier page wrote is better than that
        this.writing ??= setTimeout(() => {
            this.writing = undefined;
            const notes = notesOf(this.means.rooms.value, this.means.preferences.value);
            const text = JSON.stringify(notes);
            if (text === this.written) return;
            this.written = text;
            void saveNotes(this.means.kv, notes);
        }, WRITE_AFTER_MS);
    }
}

export function notesOf(rooms: readonly RoomSummary[], preferences: Preferences | undefined): Notes {
    const quiet = preferences?.quiet;
    return {
        rooms: Object.fromEntries(rooms.map(({ id, name, encrypted }) => [id, { name, sealed: encrypted }])),
        words: {
            newMessage: t("New message"),
            newMessageIn: t("New message in {room}", { room: "{room}" }),
            read: t("Mark as read"),
            reply: t("Reply"),
            replyHint: t("Write a reply"),
            dir: direction(language.value),
            lang: language.value,
        },
        ...(quiet?.on ? { quiet: { from: quiet.from, to: quiet.to } } : {}),
    };
}

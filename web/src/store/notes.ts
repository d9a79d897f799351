/**
 * What the service worker knows without any page: what it tells of messages with, and the subscription of this device.
 * The page writes it down; what the two ask each other while both live is listed here, too.
 */
import type { KeyValue } from "./keyvalue.ts";

/** The app's name in the account's list of where notifications go. */
export const APP_ID = "chat.hubbub.web";
/** spec: MSC4174, unstable prefix */
export const WEB_PUSH = "org.matrix.msc4174.webpush";
export const ACK_PATH = "/_matrix/client/unstable/org.matrix.msc4174/pushers/ack";
export const SET_PATH = "/_matrix/client/v3/pushers/set";

/** Hours of the day in which notifications make no sound, as "22:00"; `from` may be later than `to`. */
export interface Quiet {
    from: string;
    to: string;
}

/** In the person's language. `{room}` stands for the name of a room. */
export interface NoteWords {
    newMessage: string;
    newMessageIn: string;
    read: string;
    reply: string;
    replyHint: string;
    dir: "ltr" | "rtl";
    lang: string;
}

export interface NotedRoom {
    name: string;
    /** Encrypted: what is said there is not asked of the server. */
    sealed: boolean;
}

export interface Notes {
    rooms: Record<string, NotedRoom>;
    words: NoteWords;
    quiet?: Quiet | undefined;
}

/** A browser's subscription, with what only the server and the browser know. */
export interface SubscriptionKeys {
    endpoint: string;
    p256dh: string;
    auth: string;
}

export function keysOf(subscription: PushSubscription): SubscriptionKeys {
    const { keys } = subscription.toJSON();
    return { endpoint: subscription.endpoint, p256dh: keys?.p256dh ?? "", auth: keys?.auth ?? "" };
}

/** Whether this device is to be told, and by which subscription the account knows it. */
export interface DeviceNotes {
    on: boolean;
    pushkey?: string;
    /** The server's key, by which a new subscription can be had. */
    vapid?: string;
    /** Browsers that want something to be shown for each message are not told numbers alone. */
    eventsOnly?: boolean;
    /** How the pusher is called. */
    deviceName?: string;
    lang?: string;
    /** The person was asked, and said no. */
    declined?: boolean;
}

/** What a notification says; the page knows more than the worker. */
export interface Described {
    title: string;
    body: string;
}

/** What the worker asks or tells a page. The page answers `describe` with what to show, or null for nothing. */
export type ToPage =
    | { type: "describe"; roomId: string; eventId: string }
    | { type: "open"; roomId: string }
    | { type: "reply"; roomId: string; text: string }
    | { type: "active" };

/** What a page tells the worker. It answers `files` with the files of its build. */
export type ToWorker = { type: "files" } | { type: "skip" };

const NOTES = "push:notes";
const DEVICE = "push:device";

const isObject = (value: unknown): value is Record<string, unknown> => typeof value === "object" && value !== null;

export async function loadNotes(kv: KeyValue): Promise<Notes | undefined> {
    const value = await kv.get(NOTES).catch(() => undefined);
    return isObject(value) && isObject(value.rooms) && isObject(value.words) ? (value as unknown as Notes) : undefined;
}

export async function saveNotes(kv: KeyValue, notes: Notes): Promise<void> {
    await kv.set(NOTES, notes).catch(() => undefined);
}

export async function loadDevice(kv: KeyValue): Promise<DeviceNotes> {
    const value = await kv.get(DEVICE).catch(() => undefined);
    return isObject(value) && typeof value.on === "boolean" ? (value as unknown as DeviceNotes) : { on: false };
}

export async function saveDevice(kv: KeyValue, notes: DeviceNotes): Promise<void> {
    await kv.set(DEVICE, notes).catch(() => undefined);
}

/** For signing out. */
export async function forgetNotes(kv: KeyValue): Promise<void> {
    await kv.delete(NOTES).catch(() => undefined);
    await kv.delete(DEVICE).catch(() => undefined);
}

/** Whether a time of day is in the quiet hours. */
export function isQuiet(quiet: Quiet | undefined, now: Date): boolean {
    if (!quiet) return false;
    const [from, to, at] = [minutesOf(quiet.from), minutesOf(quiet.to), now.getHours() * 60 + now.getMinutes()];
    if (from === undefined || to === undefined || from === to) return false;
    return from < to ? at >= from && at < to : at >= from || at < to;
}

export function minutesOf(time: string): number | undefined {
    const match = /^([01]\d|2[0-3]):([0-5]\d)$/.exec(time);
    return match ? Number(match[1]) * 60 + Number(match[2]) : undefined;
}

/** The request that makes a subscription a pusher. spec: MSC4174 */
export function pusherOf(keys: SubscriptionKeys, device: DeviceNotes): Record<string, unknown> {
    return {
        app_id: APP_ID,
        pushkey: keys.p256dh,
        kind: WEB_PUSH,
        app_display_name: "hubbub",
        device_display_name: device.deviceName ?? "",
        lang: device.lang ?? "en",
        data: { url: keys.endpoint, auth: keys.auth, format: "event_id_only", ...(device.eventsOnly ? { events_only: true } : {}) },
    };
}

/** The request that ends a pusher. */
export const endOf = (pushkey: string): Record<string, unknown> => ({ app_id: APP_ID, pushkey, kind: null });

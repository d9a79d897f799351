/**
 * The messages of docs/websocket.md as types, and the one place where text from the server becomes a message.
 * Nothing here knows what an event means.
 */

/** A JSON object of which only the members named by the protocol are looked at. */
export type JsonObject = { [key: string]: unknown };

export interface EventLike extends JsonObject {
    type: string;
    event_id?: string;
    sender?: string;
    state_key?: string;
    content?: JsonObject;
    unsigned?: JsonObject;
}

export interface EventList {
    events?: EventLike[];
}

export interface TimelinePart extends EventList {
    limited?: boolean;
    prev_batch?: string;
}

/** A joined or left room in a sync frame. */
export interface RoomPart extends JsonObject {
    state?: EventList;
    timeline?: TimelinePart;
    ephemeral?: EventList;
    account_data?: EventList;
    summary?: JsonObject;
}

export interface RoomsPart {
    join?: Record<string, RoomPart>;
    leave?: Record<string, RoomPart>;
    invite?: Record<string, JsonObject>;
    knock?: Record<string, JsonObject>;
}

/** What a sync frame and a response to `/sync` have in common. */
export interface SyncBody extends JsonObject {
    rooms?: RoomsPart;
    account_data?: EventList;
    presence?: EventList;
    to_device?: EventList;
    device_lists?: { changed?: string[]; left?: string[] };
    device_one_time_keys_count?: Record<string, number>;
    device_unused_fallback_key_types?: string[];
}

export interface SyncFrame extends SyncBody {
    op: "sync";
    next_batch?: string;
    /** partition, position */
    mark?: [string, string];
}

export interface SyncResponse extends SyncBody {
    next_batch: string;
}

export interface HelloAnswer {
    op: "hello";
    user_id?: string;
    device_id?: string;
    heartbeat_ms: number;
    max_message_bytes: number;
}

export interface CallAnswer {
    op: "res";
    id: number;
    status: number;
    body?: unknown;
}

export type ServerMessage = HelloAnswer | CallAnswer | SyncFrame | { op: "auth" } | { op: "pong" };

/** What a client says first on a socket, and again with `auth` when its token changed. */
export interface Hello {
    access_token?: string;
    sync?: boolean;
    since?: string;
    marks?: Record<string, string>;
    filter?: string | JsonObject;
    set_presence?: string;
}

/** The numbered reasons for which the server closes a socket. */
export const CloseCode = {
    protocolError: 1002,
    notText: 1007,
    tooLarge: 1009,
    malformed: 4400,
    unauthorized: 4401,
    forbidden: 4403,
    timeout: 4408,
    unknownPosition: 4409,
    tooMany: 4429,
    internal: 4500,
    goingAway: 4503,
} as const;

/** True when docs/websocket.md forbids to come back after this code. */
export function isFinal(code: number): boolean {
    const { protocolError, notText, tooLarge } = CloseCode;
    return code === protocolError || code === notText || code === tooLarge || (code >= 4400 && code < 4408);
}

function isObject(value: unknown): value is JsonObject {
    return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isMark(value: unknown): value is [string, string] {
    return Array.isArray(value) && value.length === 2 && typeof value[0] === "string" && typeof value[1] === "string";
}

function parseHello(value: JsonObject): HelloAnswer {
    const { heartbeat_ms, max_message_bytes, user_id, device_id } = value;
    return {
        op: "hello",
        heartbeat_ms: typeof heartbeat_ms === "number" && heartbeat_ms >= 1000 ? heartbeat_ms : 30_000,
        max_message_bytes: typeof max_message_bytes === "number" && max_message_bytes > 0 ? max_message_bytes : 131_072,
        ...(typeof user_id === "string" ? { user_id } : {}),
        ...(typeof device_id === "string" ? { device_id } : {}),
    };
}

/** Reads one text message. `undefined` for an op this client does not know, which the protocol says to ignore. */
export function parseMessage(text: string): ServerMessage | undefined {
    const value: unknown = JSON.parse(text);
    if (!isObject(value)) throw new SyntaxError("a message must be an object");
    switch (value.op) {
        case "hello":
            return parseHello(value);
        case "res":
            if (typeof value.id !== "number" || typeof value.status !== "number") {
                throw new SyntaxError("an answer needs id and status");
            }
            return value as unknown as CallAnswer;
        case "sync":
            if (value.mark !== undefined && !isMark(value.mark)) throw new SyntaxError("a mark is two strings");
            if (value.next_batch !== undefined && typeof value.next_batch !== "string") {
                throw new SyntaxError("next_batch is a string");
            }
            return value as unknown as SyncFrame;
        case "auth":
            return { op: "auth" };
        case "pong":
            return { op: "pong" };
        default:
            return undefined;
    }
}

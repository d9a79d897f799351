/**
 * One WebSocket connection to the server, kept alive and made again when it breaks.
 *
 * Steps: connect → say hello → be open → (break) → wait → connect. `stop` ends it from anywhere. What a frame means
 * is the caller's affair; this class answers for the connection, for matching answers to calls, and for the
 * reasons why a connection ended (docs/websocket.md, Close codes).
 *
 * Invariants: at most one underlying socket lives at a time, and its late events are ignored once it was given up;
 * every call is settled exactly once; no timer is left after `stop`.
 */
import { abortError } from "./bell.ts";
import { Backoff, GOING_AWAY_SPREAD_MS } from "./backoff.ts";
import { CloseCode, type Hello, type HelloAnswer, isFinal, parseMessage, type ServerMessage, type SyncFrame } from "./frames.ts";

export const SUBPROTOCOL = "hubbub.v1";
/** The server's own limit; a call beyond it would be answered 429. */
export const MAX_OPEN_CALLS = 64;
/** From `new WebSocket` to the answer to hello. */
export const CONNECT_TIMEOUT_MS = 10_000;
/** A connection that lived this long was a good one: the next back-off starts from the beginning. */
export const STABLE_AFTER_MS = 10_000;
/** How long an answer to a ping may take when something suggests that the network changed. */
export const PROBE_TIMEOUT_MS = 5_000;
/** 4429 asks for a minute. */
export const TOO_MANY_DELAY_MS = 60_000;
/** The readyState in which a socket takes messages; once its end has begun it only complains. */
const OPEN = 1;
/** Our own close code for a connection that was given up from here. */
const GIVEN_UP = 4999;

/** The part of WebSocket that is used, so that tests can bring their own. */
export interface WebSocketLike {
    readonly readyState: number;
    onopen: ((event: Event) => void) | null;
    onmessage: ((event: MessageEvent<unknown>) => void) | null;
    onclose: ((event: CloseEvent) => void) | null;
    onerror: ((event: Event) => void) | null;
    send(data: string): void;
    close(code?: number, reason?: string): void;
}

export type SocketState =
    | { kind: "stopped" }
    | { kind: "connecting" }
    | { kind: "open"; hello: HelloAnswer }
    /** The connection broke or could not be made; attempt at `retryAt` (ms since the epoch). `failures` in a row. */
    | { kind: "waiting"; retryAt: number; failures: number; code: number }
    /** The server does not want this client to come back. */
    | { kind: "refused"; code: number };

export interface SocketOptions {
    url: string;
    connect: (url: string, protocol: string) => WebSocketLike;
    /** Asked before each connection is greeted. May wait, at most as long as the server waits for a hello. */
    hello: () => Hello | Promise<Hello>;
    onFrame: (frame: SyncFrame) => void;
    onState: (state: SocketState) => void;
    random?: () => number;
}

/** The connection ended before the answer came: whether the server did it is not known. */
export class SocketLostError extends Error {
    override name = "SocketLostError";
}

/** The call was not sent: there is no open connection, no room for it, or it is too large. */
export class NotSentError extends Error {
    override name = "NotSentError";
}

interface Call {
    resolve: (answer: { status: number; body: unknown }) => void;
    reject: (error: Error) => void;
}

type Timer = ReturnType<typeof setTimeout>;

export class Socket {
    private ws: WebSocketLike | undefined;
    private current: SocketState = { kind: "stopped" };
    private readonly backoff: Backoff;
    private readonly random: () => number;
    private readonly calls = new Map<number, Call>();
    private nextId = 1;
    private failures = 0;
    private lastHeard = 0;
    private messagesHeard = 0;
    private retryTimer: Timer | undefined;
    private connectTimer: Timer | undefined;
    private stableTimer: Timer | undefined;
    private heartbeatTimer: Timer | undefined;

    constructor(private readonly options: SocketOptions) {
        this.random = options.random ?? Math.random;
        this.backoff = new Backoff(this.random);
    }

    get state(): SocketState {
        return this.current;
    }

    start(): void {
        if (this.current.kind === "connecting" || this.current.kind === "open") return;
        clearTimeout(this.retryTimer);
        this.connect();
    }

    stop(): void {
        clearTimeout(this.retryTimer);
        this.drop(1000, "stopped");
        this.failures = 0;
        this.backoff.reset();
        this.become({ kind: "stopped" });
    }

    /** Ends the connection, if any, and makes a new one at once. */
    restart(): void {
        clearTimeout(this.retryTimer);
        this.drop(1000, "restart");
        this.connect();
    }

    /** Something suggests that the network changed or that the page came back: do not wait, and do not trust. */
    wake(): void {
        if (this.current.kind === "waiting") {
            this.backoff.reset();
            this.start();
        } else if (this.current.kind === "open") {
            this.probe(PROBE_TIMEOUT_MS);
        }
    }

    /** Sends a message that has no answer. False if there is no open connection. */
    tell(message: { op: "ack"; since: string } | { op: "auth"; access_token: string }): boolean {
        const ws = this.openSocket();
        ws?.send(JSON.stringify(message));
        return ws !== undefined;
    }

    /**
     * Calls an endpoint. Rejects with NotSentError if nothing was sent, with SocketLostError if the connection ended
     * first, and with an AbortError if the signal aborts.
     */
    call(method: string, path: string, body: unknown, signal?: AbortSignal | null): Promise<{ status: number; body: unknown }> {
        const state = this.current;
        if (signal?.aborted) return Promise.reject(abortError());
        const ws = this.openSocket();
        if (state.kind !== "open" || !ws) return Promise.reject(new NotSentError("not connected"));
        if (this.calls.size >= MAX_OPEN_CALLS) return Promise.reject(new NotSentError("too many open calls"));
        const id = this.nextId++;
        const text = JSON.stringify({ op: "req", id, method, path, ...(body === undefined ? {} : { body }) });
        if (!fits(text, state.hello.max_message_bytes)) return Promise.reject(new NotSentError("too large"));
        return new Promise((resolve, reject) => {
            const onAbort = (): void => {
                if (!this.calls.delete(id)) return;
                if (this.openSocket() === ws) ws.send(JSON.stringify({ op: "cancel", id }));
                reject(abortError());
            };
            const settled = (): void => signal?.removeEventListener("abort", onAbort);
            this.calls.set(id, {
                resolve: (answer) => (settled(), resolve(answer)),
                reject: (error) => (settled(), reject(error)),
            });
            signal?.addEventListener("abort", onAbort);
            ws.send(text);
        });
    }

    /** The socket, if it takes messages. Its end is heard of a moment after it began. */
    private openSocket(): WebSocketLike | undefined {
        return this.current.kind === "open" && this.ws?.readyState === OPEN ? this.ws : undefined;
    }

    private become(state: SocketState): void {
        this.current = state;
        this.options.onState(state);
    }

    private connect(): void {
        this.become({ kind: "connecting" });
        if (this.current.kind !== "connecting") return; // the owner changed its mind when it heard
        let ws: WebSocketLike;
        try {
            ws = this.options.connect(this.options.url, SUBPROTOCOL);
        } catch {
            this.ended(1006); // a policy of the browser forbids it
            return;
        }
        this.ws = ws;
        this.connectTimer = setTimeout(() => this.giveUp(ws), CONNECT_TIMEOUT_MS);
        ws.onopen = () => void this.greet(ws);
        ws.onmessage = (event) => {
            if (this.ws === ws) this.receive(ws, event.data);
        };
        ws.onerror = () => undefined; // a close follows, and says as much as there is to say
        ws.onclose = (event) => {
            if (this.ws !== ws) return;
            this.forget();
            this.ended(event.code);
        };
    }

    private async greet(ws: WebSocketLike): Promise<void> {
        const hello = await this.options.hello();
        if (this.ws === ws && ws.readyState === OPEN) ws.send(JSON.stringify({ op: "hello", ...hello }));
    }

    private receive(ws: WebSocketLike, data: unknown): void {
        this.lastHeard = Date.now();
        this.messagesHeard++;
        let message: ServerMessage | undefined;
        try {
            message = typeof data === "string" ? parseMessage(data) : undefined;
        } catch {
            this.giveUp(ws); // what we cannot read we may not skip: it may have been a sync frame
            return;
        }
        if (message === undefined) return;
        if (message.op === "hello") this.opened(message);
        else if (message.op === "sync") this.options.onFrame(message);
        else if (message.op === "res") {
            const call = this.calls.get(message.id);
            this.calls.delete(message.id);
            call?.resolve({ status: message.status, body: message.body });
        }
    }

    private opened(hello: HelloAnswer): void {
        clearTimeout(this.connectTimer);
        this.failures = 0;
        this.stableTimer = setTimeout(() => this.backoff.reset(), STABLE_AFTER_MS);
        this.listenForLife(hello.heartbeat_ms);
        this.become({ kind: "open", hello });
    }

    /** A browser does not show pings, so silence is answered with one of our own, and silence after that is the end. */
    private listenForLife(heartbeat: number): void {
        const quiet = Date.now() - this.lastHeard;
        clearTimeout(this.heartbeatTimer);
        this.heartbeatTimer = setTimeout(
            () => {
                if (Date.now() - this.lastHeard < heartbeat) this.listenForLife(heartbeat);
                else this.probe(heartbeat);
            },
            Math.max(0, heartbeat - quiet),
        );
    }

    private probe(timeout: number): void {
        const { current: state } = this;
        const ws = this.openSocket();
        if (!ws || state.kind !== "open") return;
        const heardBefore = this.messagesHeard;
        ws.send('{"op":"ping"}');
        clearTimeout(this.heartbeatTimer);
        this.heartbeatTimer = setTimeout(() => {
            if (this.messagesHeard > heardBefore) this.listenForLife(state.hello.heartbeat_ms);
            else this.giveUp(ws);
        }, timeout);
    }

    private giveUp(ws: WebSocketLike): void {
        if (this.ws !== ws) return;
        this.drop(GIVEN_UP, "given up");
        this.ended(1006);
    }

    /** Lets go of the socket without hearing from it again. */
    private drop(code: number, reason: string): void {
        const ws = this.ws;
        this.forget();
        if (!ws) return;
        ws.onopen = ws.onmessage = ws.onclose = null;
        ws.close(code, reason);
    }

    private forget(): void {
        this.ws = undefined;
        clearTimeout(this.connectTimer);
        clearTimeout(this.stableTimer);
        clearTimeout(this.heartbeatTimer);
        const calls = [...this.calls.values()];
        this.calls.clear();
        for (const call of calls) call.reject(new SocketLostError("the connection ended"));
    }

    private ended(code: number): void {
        const wasOpen = this.current.kind === "open";
        this.failures = wasOpen ? 0 : this.failures + 1;
        if (isFinal(code)) {
            this.become({ kind: "refused", code });
            return;
        }
        const delay = this.delayAfter(code);
        this.retryTimer = setTimeout(() => this.connect(), delay);
        this.become({ kind: "waiting", retryAt: Date.now() + delay, failures: this.failures, code });
    }

    private delayAfter(code: number): number {
        if (code === CloseCode.goingAway) return this.random() * GOING_AWAY_SPREAD_MS;
        if (code === CloseCode.tooMany) return TOO_MANY_DELAY_MS * (1 + this.random() / 2);
        return this.backoff.next();
    }
}

/** Whether the text is at most `bytes` in UTF-8, without encoding what is surely short enough. */
function fits(text: string, bytes: number): boolean {
    return text.length * 3 <= bytes || new TextEncoder().encode(text).length <= bytes;
}

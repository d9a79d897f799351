/**
 * A `fetch` for the Matrix SDK that goes over the WebSocket where that is possible.
 *
 * - Calls of the Client-Server API become calls on the socket. Media, bodies that are not JSON, requests with another
 *   token or to another host, and everything while there is no socket, go over plain HTTP.
 * - `GET …/sync` is answered from the frames that the server pushes. The `since` of the SDK decides: it must name the
 *   position that was handed out last, else the socket starts anew at the position it names. So whatever the SDK lost,
 *   or restored from its store, it is never given a gap.
 * - If no socket can be opened but HTTP works (a proxy blocks sockets), `/sync` is passed through, and the socket is
 *   tried again from time to time. Positions have one written form on both ways, so changing over loses nothing.
 */
import { abortError, Bell } from "./bell.ts";
import { CloseCode, type EventLike, type Hello, type JsonObject, type SyncBody, type SyncFrame, type SyncResponse } from "./frames.ts";
import { FrameBuffer } from "./framebuffer.ts";
import { format, parse, type Position, START } from "./position.ts";
import { type ApiRequest, isIdempotent, isSync, readRequest, respond, transactionOf } from "./request.ts";
import { NotSentError, Socket, SocketLostError, type SocketState, type WebSocketLike } from "./socket.ts";

/** Attempts that fail before plain HTTP is tried instead. */
export const FAILURES_BEFORE_HTTP = 2;
/** How long a request waits for the first socket that is being opened, before it goes over HTTP. */
export const FIRST_OPEN_GRACE_MS = 3_000;
/** How long after falling back to HTTP the socket is tried again; doubled each time up to the second number. */
export const SOCKET_RETRY_MS = 60_000;
export const SOCKET_RETRY_MAX_MS = 600_000;
/** How long a poll that asks for an immediate answer waits for the first frame of a new connection. */
export const CATCH_UP_WAIT_MS = 2_000;
/** How long an own message that is being sent may hold back the frame with its echo. */
export const ECHO_HOLD_MS = 1_000;
/** Own events whose transaction is remembered, to be recognised when the server pushes them. */
export const MAX_REMEMBERED_SENDS = 200;
export const PROBE_TIMEOUT_MS = 10_000;

export type TransportStatus =
    | { kind: "stopped" }
    | { kind: "connecting" }
    /** Calls and sync go over the WebSocket. */
    | { kind: "socket" }
    /** The WebSocket is not to be had; everything goes over HTTP. */
    | { kind: "http" }
    /** Neither way works. The next attempt is at `retryAt`, in ms since the epoch, if it is known. */
    | { kind: "offline"; retryAt: number | undefined };

export interface TransportOptions {
    /** The server's origin, as `https://chat.example.org`. */
    origin: string;
    fetch: typeof fetch;
    connect: (url: string, protocol: string) => WebSocketLike;
    onStatus?: (status: TransportStatus) => void;
    /** The server no longer knows the client's position: the client must start again without one. */
    onPositionLost?: () => void;
    random?: () => number;
}

export interface TransportStart {
    accessToken: string;
    /** What the client's store says it has applied, in the written form. */
    since?: string;
    filter?: string | JsonObject;
    setPresence?: string;
}

type Mode = "stopped" | "socket" | "http";
/** Sends the request as it is; `cut` ends it early. */
type OverHttp = (cut?: AbortSignal) => Promise<Response>;

export class Transport {
    private readonly socket: Socket;
    private readonly buffer = new FrameBuffer();
    private readonly changed = new Bell();
    private mode: Mode = "stopped";
    private shown: TransportStatus = { kind: "stopped" };
    private session: TransportStart = { accessToken: "" };
    private userId: string | undefined;
    private everOpened = false;
    private openedAt = 0;
    private framesSinceOpen = 0;
    /** The token after which the client has to-device messages that it has not yet confirmed. */
    private unconfirmed: string | undefined;
    private unsentAck: string | undefined;
    /** Event ID → transaction ID of what was sent from here. */
    private readonly sent = new Map<string, string>();
    private sendsUnderWay = 0;
    private trial: Socket | undefined;
    private trialTimer: ReturnType<typeof setTimeout> | undefined;
    private trialDelay = SOCKET_RETRY_MS;
    private probing = false;
    /** Ends the poll over HTTP that waits for its answer. */
    private cutPoll: (() => void) | undefined;

    constructor(private readonly options: TransportOptions) {
        this.socket = this.makeSocket({
            hello: () => this.hello(),
            onFrame: (frame) => this.receive(frame),
            onState: (state) => this.onSocket(state),
        });
    }

    get status(): TransportStatus {
        return this.shown;
    }

    /** Opens the socket and begins to receive, before the SDK has asked for anything. */
    start(session: TransportStart): void {
        this.stop();
        this.session = session;
        this.mode = "socket";
        this.buffer.reset(parse(session.since));
        this.socket.start();
    }

    stop(): void {
        this.mode = "stopped";
        this.endTrial();
        this.trialDelay = SOCKET_RETRY_MS;
        this.everOpened = false;
        this.unconfirmed = this.unsentAck = undefined;
        this.sent.clear();
        this.socket.stop();
        this.show({ kind: "stopped" });
        this.changed.ring();
    }

    /** A new token of the same device. */
    setAccessToken(accessToken: string): void {
        this.session = { ...this.session, accessToken };
        if (this.mode === "stopped" || this.socket.tell({ op: "auth", access_token: accessToken })) return;
        if (this.mode === "http") this.trySocket();
        else this.socket.start();
    }

    /** To be called when the page became visible, or the device says that it is online. */
    wake(): void {
        this.socket.wake();
        if (this.mode === "http") this.trySocket();
    }

    /** The replacement for the global `fetch`. */
    readonly fetch = async (input: RequestInfo | URL, init?: RequestInit): Promise<Response> => {
        if (init?.signal?.aborted) throw abortError();
        const overHttp: OverHttp = (cut) => {
            const signal = cut && (init?.signal ? AbortSignal.any([init.signal, cut]) : cut);
            return this.options.fetch.call(undefined, input, signal ? { ...init, signal } : init);
        };
        const request = readRequest(this.options.origin, input, init);
        if (!request || this.mode === "stopped" || request.token !== this.session.accessToken) return overHttp();
        return isSync(request) ? this.sync(request, overHttp) : this.call(request, overHttp);
    };

    // Calls

    private async call(request: ApiRequest, overHttp: OverHttp): Promise<Response> {
        await this.firstOpen(request.signal);
        const { url, method, body, signal } = request;
        try {
            const answer = this.socket.call(method, url.pathname + url.search, body, signal);
            const { status, body: json } = await this.remembering(transactionOf(request), answer);
            return respond(status, json);
        } catch (error) {
            if (error instanceof NotSentError) return overHttp();
            if (error instanceof SocketLostError) {
                if (isIdempotent(request)) return overHttp();
                throw new TypeError("The connection was lost before the answer came.");
            }
            throw error;
        }
    }

    /** Right after the start, waits a moment for the socket, so that the first calls need not go another way. */
    private async firstOpen(signal: AbortSignal | null | undefined): Promise<void> {
        const deadline = Date.now() + FIRST_OPEN_GRACE_MS;
        while (this.mode === "socket" && !this.everOpened && this.socket.state.kind === "connecting") {
            const left = deadline - Date.now();
            if (left <= 0) return;
            await this.changed.wait(left, signal);
        }
    }

    /** The server pushes one frame to all, so which transaction made an own event is known only here. */
    private async remembering<T extends { status: number; body: unknown }>(txn: string | undefined, answer: Promise<T>): Promise<T> {
        if (txn === undefined) return answer;
        this.sendsUnderWay++;
        try {
            const settled = await answer;
            const id = (settled.body as { event_id?: unknown } | null | undefined)?.event_id;
            if (settled.status === 200 && typeof id === "string") {
                this.sent.set(id, txn);
                const oldest = this.sent.keys().next().value;
                if (this.sent.size > MAX_REMEMBERED_SENDS && oldest !== undefined) this.sent.delete(oldest);
            }
            return settled;
        } finally {
            this.sendsUnderWay--;
            this.changed.ring();
        }
    }

    // Sync

    private async sync(request: ApiRequest, overHttp: OverHttp): Promise<Response> {
        const since = request.url.searchParams.get("since") ?? undefined;
        if (this.mode === "http") return this.pollOverHttp(overHttp, since);
        if (since !== format(this.buffer.delivered)) {
            // An initial sync beside the running one is its own affair and disturbs nothing.
            if (since === undefined) return overHttp();
            this.restartAt(parse(since));
        }
        this.confirm();
        if (this.socket.state.kind === "stopped") this.socket.start();
        const timeout = Number(request.url.searchParams.get("timeout") ?? 0) || 0;
        const response = await this.nextResponse(timeout, request.signal);
        return response === undefined ? this.pollOverHttp(overHttp, since) : respond(200, response);
    }

    private restartAt(position: Position): void {
        this.unconfirmed = this.unsentAck = undefined;
        this.buffer.reset(position);
        this.socket.restart();
    }

    /** The client asks for what comes next, so it has applied, and stored what it must, of all that came before. */
    private confirm(): void {
        if (this.unconfirmed === undefined) return;
        this.unsentAck = this.unconfirmed;
        this.unconfirmed = undefined;
        this.sendAck();
        this.changed.ring();
    }

    private sendAck(): void {
        if (this.unsentAck !== undefined && this.socket.tell({ op: "ack", since: this.unsentAck })) this.unsentAck = undefined;
    }

    /** Waits for frames or the end of the poll. `undefined` if HTTP must serve from now on. */
    private async nextResponse(timeout: number, signal: AbortSignal | null | undefined): Promise<SyncResponse | undefined> {
        const deadline = Date.now() + timeout;
        while (this.mode === "socket") {
            if (this.buffer.size > 0) {
                await this.echoesKnown(signal);
                const response = this.buffer.take();
                if (response) return this.handOut(response);
                continue; // a restart came between
            }
            const until = this.pollEnds(deadline, timeout);
            if (until !== undefined && until <= Date.now()) return this.buffer.empty();
            await this.changed.wait(until === undefined ? undefined : until - Date.now(), signal);
        }
        return undefined;
    }

    /** When an empty response may be given; `undefined` while there is nothing true to say. */
    private pollEnds(deadline: number, timeout: number): number | undefined {
        if (this.buffer.delivered.base === undefined) return undefined;
        if (timeout > 0) return deadline;
        if (this.socket.state.kind !== "open") return undefined;
        return this.framesSinceOpen > 0 ? deadline : this.openedAt + CATCH_UP_WAIT_MS;
    }

    /** Holds a frame with an own event back while the answer that names its transaction may still be under way. */
    private async echoesKnown(signal: AbortSignal | null | undefined): Promise<void> {
        const deadline = Date.now() + ECHO_HOLD_MS;
        while (this.sendsUnderWay > 0 && this.buffer.some((frame) => this.hasUnknownEcho(frame))) {
            const left = deadline - Date.now();
            if (left <= 0) return;
            await this.changed.wait(left, signal);
        }
    }

    private hasUnknownEcho(frame: SyncFrame): boolean {
        return timelineEvents(frame).some(
            (e) => e.sender === this.userId && e.unsigned?.transaction_id === undefined && !this.sent.has(e.event_id ?? ""),
        );
    }

    private handOut(response: SyncResponse): SyncResponse {
        if (response.to_device?.events?.length) this.unconfirmed = this.buffer.delivered.base;
        for (const event of timelineEvents(response)) {
            const txn = this.sent.get(event.event_id ?? "");
            if (txn === undefined || event.sender !== this.userId) continue;
            event.unsigned = { transaction_id: txn, ...event.unsigned };
        }
        return response;
    }

    private async pollOverHttp(overHttp: OverHttp, since: string | undefined): Promise<Response> {
        const cut = new AbortController();
        if (since !== undefined) this.cutPoll = () => cut.abort();
        let response: Response;
        try {
            response = await overHttp(cut.signal);
        } catch (error) {
            // Nothing was taken, so the next poll asks for the same, over the socket.
            if (cut.signal.aborted) return respond(200, { next_batch: since });
            if (this.mode === "http" && (error as Error).name !== "AbortError") this.show({ kind: "offline", retryAt: undefined });
            throw error;
        } finally {
            this.cutPoll = undefined; // a body that is being read is not cut off
        }
        if (this.mode === "http") this.show({ kind: "http" });
        if (response.status === 400) {
            const answer = (await response.clone().json().catch(() => undefined)) as { errcode?: unknown } | undefined;
            if (answer?.errcode === "M_UNKNOWN_POS") this.options.onPositionLost?.();
        }
        return response;
    }

    // The socket

    private makeSocket(handlers: { hello: () => Hello | Promise<Hello>; onFrame: (frame: SyncFrame) => void; onState: (state: SocketState) => void }): Socket {
        const { origin, connect, random } = this.options;
        return new Socket({ url: `${origin.replace(/^http/, "ws")}/_hubbub/v1/ws`, connect, ...(random ? { random } : {}), ...handlers });
    }

    /**
     * A `since` tells the server that everything before it is applied, which for to-device messages means that it may
     * forget them. So frames with such messages that still wait are dropped here, to be sent again.
     */
    private async hello(): Promise<Hello> {
        while (this.unconfirmed !== undefined) await this.changed.wait();
        if (this.buffer.some((frame) => (frame.to_device?.events?.length ?? 0) > 0)) this.buffer.rewind();
        const { base, marks } = this.buffer.received;
        const { accessToken, filter, setPresence } = this.session;
        return {
            access_token: accessToken,
            sync: true,
            ...(base === undefined ? {} : { since: base }),
            ...(Object.keys(marks).length === 0 ? {} : { marks: { ...marks } }),
            ...(filter === undefined ? {} : { filter }),
            ...(setPresence === undefined ? {} : { set_presence: setPresence }),
        };
    }

    private receive(frame: SyncFrame): void {
        this.framesSinceOpen++;
        if (!this.buffer.push(frame)) {
            // Nobody asks. What was not taken is read again when somebody does.
            this.socket.stop();
            this.buffer.rewind();
        }
        this.changed.ring();
    }

    private onSocket(state: SocketState): void {
        if (this.mode !== "socket") return;
        switch (state.kind) {
            case "open":
                this.everOpened = true;
                this.openedAt = Date.now();
                this.framesSinceOpen = 0;
                this.userId = state.hello.user_id;
                this.trialDelay = SOCKET_RETRY_MS;
                this.show({ kind: "socket" });
                this.sendAck();
                break;
            case "connecting":
                if (this.shown.kind !== "offline") this.show({ kind: "connecting" });
                break;
            case "waiting":
                this.onBroken(state);
                break;
            case "refused":
                // Over HTTP the client learns the reason in words: its token is not valid, or the account is locked.
                this.fallBack(state.code === CloseCode.unauthorized);
                break;
        }
        this.changed.ring();
    }

    private onBroken(state: SocketState & { kind: "waiting" }): void {
        if (state.code === CloseCode.unknownPosition) {
            this.socket.stop();
            this.buffer.reset(START);
            if (this.options.onPositionLost) this.options.onPositionLost();
            else this.socket.start();
        } else if (state.code === CloseCode.tooMany) {
            this.fallBack(true);
        } else if (state.failures >= FAILURES_BEFORE_HTTP) {
            void this.probe(state.retryAt);
        } else {
            this.show({ kind: "connecting" });
        }
    }

    /** The socket cannot be opened. Is it the socket, or everything? */
    private async probe(retryAt: number): Promise<void> {
        if (this.probing) return;
        this.probing = true;
        const reachable = await this.options.fetch
            .call(undefined, `${this.options.origin}/_matrix/client/versions`, { cache: "no-store", signal: AbortSignal.timeout(PROBE_TIMEOUT_MS) })
            .then(
                (response) => response.ok,
                () => false,
            );
        this.probing = false;
        // An attempt that began since then knows more: the network may have come back between the last one and the answer.
        if (this.mode !== "socket" || this.socket.state.kind !== "waiting") return;
        if (reachable) this.fallBack(true);
        else this.show({ kind: "offline", retryAt });
    }

    private fallBack(tryAgain: boolean): void {
        this.mode = "http";
        this.socket.stop();
        this.buffer.rewind();
        this.show({ kind: "http" });
        this.changed.ring();
        if (tryAgain) this.trySocketLater();
    }

    private trySocketLater(): void {
        clearTimeout(this.trialTimer);
        this.trialTimer = setTimeout(() => this.trySocket(), this.trialDelay);
        this.trialDelay = Math.min(this.trialDelay * 2, SOCKET_RETRY_MAX_MS);
    }

    /** Opens a second socket, without sync, while the client polls on. If it opens, the poll ends, and the next one finds the socket. */
    private trySocket(): void {
        if (this.trial) return;
        clearTimeout(this.trialTimer);
        const trial = this.makeSocket({
            hello: () => ({ access_token: this.session.accessToken }),
            onFrame: () => undefined,
            onState: (state) => {
                if (this.trial !== trial || state.kind === "connecting" || state.kind === "stopped") return;
                this.endTrial();
                if (state.kind === "open") {
                    this.mode = "socket";
                    this.cutPoll?.();
                } else if (state.kind === "waiting" || state.code === CloseCode.unauthorized) this.trySocketLater();
            },
        });
        this.trial = trial;
        trial.start();
    }

    private endTrial(): void {
        clearTimeout(this.trialTimer);
        const { trial } = this;
        this.trial = undefined;
        trial?.stop();
    }

    private show(status: TransportStatus): void {
        if (JSON.stringify(status) === JSON.stringify(this.shown)) return;
        this.shown = status;
        this.options.onStatus?.(status);
    }
}

function timelineEvents(body: SyncBody): EventLike[] {
    return Object.values(body.rooms?.join ?? {}).flatMap((room) => room.timeline?.events ?? []);
}

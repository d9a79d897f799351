import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { MAX_FRAMES } from "../../src/protocol/framebuffer.ts";
import { CATCH_UP_WAIT_MS, ECHO_HOLD_MS, FIRST_OPEN_GRACE_MS, SOCKET_RETRY_MS, Transport, type TransportStatus } from "../../src/protocol/transport.ts";
import { FakeNetwork, settle } from "./fakesocket.ts";

const ORIGIN = "https://chat.example.org";
const AUTH = { Authorization: "Bearer T" };

let network: FakeNetwork;
let transport: Transport;
let statuses: string[];
let lost: number;
/** What plain HTTP answers; each request is noted. */
let http: (url: string, init?: RequestInit) => Promise<Response>;
let httpRequests: string[];

beforeEach(() => {
    vi.useFakeTimers();
    network = new FakeNetwork();
    statuses = [];
    httpRequests = [];
    lost = 0;
    http = async () => Response.json({ over: "http" });
    transport = new Transport({
        origin: ORIGIN,
        connect: network.connect,
        fetch: async (input, init) => {
            httpRequests.push(`${init?.method ?? "GET"} ${String(input).replace(ORIGIN, "")}`);
            return http(String(input), init);
        },
        onStatus: (status: TransportStatus) => statuses.push(status.kind),
        onPositionLost: () => lost++,
        random: () => 0.5,
    });
});

afterEach(async () => {
    transport.stop();
    await settle();
    expect(vi.getTimerCount()).toBe(0);
    vi.useRealTimers();
});

const get = (path: string, init: RequestInit = {}): Promise<Response> => transport.fetch(new URL(path, ORIGIN), { method: "GET", headers: AUTH, ...init });
const put = (path: string, body: object, init: RequestInit = {}): Promise<Response> =>
    transport.fetch(new URL(path, ORIGIN), { method: "PUT", headers: AUTH, body: JSON.stringify(body), ...init });
const post = (path: string, body: object): Promise<Response> => transport.fetch(new URL(path, ORIGIN), { method: "POST", headers: AUTH, body: JSON.stringify(body) });
const sync = (since?: string, timeout = 30_000, init: RequestInit = {}): Promise<Response> =>
    get(`/_matrix/client/v3/sync?timeout=${timeout}${since === undefined ? "" : `&since=${encodeURIComponent(since)}`}`, init);
const message = (id: string, sender = "@you:x", room = "!r"): object => ({
    join: { [room]: { timeline: { events: [{ type: "m.room.message", event_id: id, sender, content: { body: id } }] } } },
});
const eventIds = (body: unknown): string[] =>
    Object.values((body as { rooms?: { join?: Record<string, { timeline: { events: { event_id: string }[] } }> } }).rooms?.join ?? {}).flatMap((room) => room.timeline.events.map((e) => e.event_id));

/** Starts, and lets the first sync frame (s1) be taken. */
async function begin(since?: string): Promise<void> {
    transport.start({ accessToken: "T", ...(since === undefined ? {} : { since }) });
    await network.last.welcome();
    network.last.sync({ next_batch: "s1" });
    await (await sync(since)).json();
}

describe("calls", () => {
    it("go over the socket, with query and body, and come back as a Response", async () => {
        await begin();
        const answer = put("/_matrix/client/v3/rooms/!r%3Ax/state/m.room.name?a=b%20c", { name: "N" });
        await settle();
        expect(network.last.of("req")[0]).toMatchObject({ method: "PUT", path: "/_matrix/client/v3/rooms/!r%3Ax/state/m.room.name?a=b%20c", body: { name: "N" } });
        network.last.answer(0, 200, { event_id: "$1" });
        const response = await answer;
        expect(response.ok).toBe(true);
        expect(response.headers.get("Content-Type")).toBe("application/json");
        expect(await response.clone().text()).toBe('{"event_id":"$1"}');
        expect(await response.json()).toEqual({ event_id: "$1" });
        expect(httpRequests).toEqual([]);
    });

    it("give errors as HTTP does", async () => {
        await begin();
        const answer = post("/_matrix/client/v3/createRoom", {});
        await settle();
        network.last.answer(0, 429, { errcode: "M_LIMIT_EXCEEDED", error: "Slow down", retry_after_ms: 2000 });
        const response = await answer;
        expect(response.ok).toBe(false);
        expect(response.status).toBe(429);
        expect(JSON.parse(await response.text())).toEqual({ errcode: "M_LIMIT_EXCEEDED", error: "Slow down", retry_after_ms: 2000 });
    });

    it("bear an answer without a body and refuse a status that is none", async () => {
        await begin();
        const a = get("/_matrix/client/v3/a");
        const b = get("/_matrix/client/v3/b");
        const c = get("/_matrix/client/v3/c");
        await settle();
        network.last.answer(0, 200);
        network.last.answer(1, 204);
        network.last.answer(2, 7);
        expect(await (await a).json()).toEqual({});
        expect((await b).status).toBe(204);
        await expect(c).rejects.toBeInstanceOf(TypeError);
    });

    it.each([
        ["media", "/_matrix/media/v3/config", {}],
        ["authenticated media", "/_matrix/client/v1/media/download/x/y", {}],
        ["another token", "/_matrix/client/v3/account/whoami", { headers: { Authorization: "Bearer other" } }],
        ["no token", "/_matrix/client/v3/login", { headers: {} }],
        ["signing out", "/_matrix/client/v3/logout", { method: "POST" }],
        ["a body that is not text", "/_matrix/client/v3/x", { method: "POST", body: new Blob(["{}"]) }],
        ["a body that is not JSON", "/_matrix/client/v3/x", { method: "POST", body: "{" }],
        ["another host", "https://elsewhere.example.org/_matrix/client/v3/x", {}],
        ["another path", "/favicon.svg", {}],
    ])("leave to HTTP: %s", async (_name, path, init) => {
        await begin();
        expect(await (await get(path, init)).json()).toEqual({ over: "http" });
        expect(network.last.of("req")).toEqual([]);
    });

    it("wait a moment for the first socket", async () => {
        transport.start({ accessToken: "T" });
        const answer = get("/_matrix/client/v3/pushrules/");
        await network.last.welcome();
        await settle();
        expect(network.last.of("req")).toHaveLength(1);
        network.last.answer(0, 200, { global: {} });
        expect(await (await answer).json()).toEqual({ global: {} });
        expect(httpRequests).toEqual([]);
    });

    it("go over HTTP when the first socket takes too long", async () => {
        transport.start({ accessToken: "T" });
        const answer = get("/_matrix/client/v3/pushrules/");
        await vi.advanceTimersByTimeAsync(FIRST_OPEN_GRACE_MS);
        expect(await (await answer).json()).toEqual({ over: "http" });
    });

    it("are repeated over HTTP if the connection broke and they may be repeated", async () => {
        await begin();
        const read = get("/_matrix/client/v3/a");
        const send = put("/_matrix/client/v3/rooms/!r/send/m.room.message/t1", { body: "x" });
        const create = post("/_matrix/client/v3/createRoom", {});
        await settle();
        network.last.break();
        expect(await (await read).json()).toEqual({ over: "http" });
        expect(await (await send).json()).toEqual({ over: "http" });
        await expect(create).rejects.toBeInstanceOf(TypeError);
        expect(httpRequests).toEqual(["GET /_matrix/client/v3/a", "PUT /_matrix/client/v3/rooms/!r/send/m.room.message/t1"]);
    });

    it("are not sent when already aborted, and cancelled when aborted later", async () => {
        await begin();
        await expect(get("/_matrix/client/v3/a", { signal: AbortSignal.abort() })).rejects.toMatchObject({ name: "AbortError" });
        const abort = new AbortController();
        const answer = get("/_matrix/client/v3/b", { signal: abort.signal });
        await settle();
        abort.abort();
        await expect(answer).rejects.toMatchObject({ name: "AbortError" });
        expect(network.last.of("req")).toHaveLength(1);
        expect(network.last.of("cancel")).toHaveLength(1);
        expect(httpRequests).toEqual([]);
    });

    it("can be aborted while they wait for the first socket", async () => {
        transport.start({ accessToken: "T" });
        const abort = new AbortController();
        const answer = get("/_matrix/client/v3/a", { signal: abort.signal });
        await settle();
        abort.abort();
        await expect(answer).rejects.toMatchObject({ name: "AbortError" });
    });
});

describe("sync", () => {
    it("is an initial sync without a position, and goes on from frame to frame", async () => {
        transport.start({ accessToken: "T", filter: { room: {} } });
        const first = sync();
        await network.last.welcome();
        expect(network.last.hello).toEqual({ op: "hello", access_token: "T", sync: true, filter: { room: {} } });
        network.last.sync({ next_batch: "s1", account_data: { events: [] } });
        expect(await (await first).json()).toEqual({ next_batch: "s1", account_data: { events: [] } });

        const second = sync("s1");
        await settle();
        network.last.sync({ mark: ["12", "90b"], rooms: message("$1") as never });
        const body = await (await second).json();
        expect(body.next_batch).toBe("s1~12.90b");
        expect(eventIds(body)).toEqual(["$1"]);

        network.last.sync({ mark: ["12", "90c"], rooms: message("$2") as never });
        network.last.sync({ mark: ["3", "4"], rooms: message("$3", "@you:x", "!s") as never });
        const third = await (await sync("s1~12.90b")).json();
        expect(third.next_batch).toBe("s1~12.90c~3.4");
        expect(eventIds(third)).toEqual(["$2", "$3"]);
        expect(network.sockets).toHaveLength(1);
        expect(httpRequests).toEqual([]);
    });

    it("hands out what was pushed before it was asked for", async () => {
        transport.start({ accessToken: "T", since: "s0~1.2" });
        await network.last.welcome();
        expect(network.last.hello).toMatchObject({ since: "s0", marks: { "1": "2" } });
        network.last.sync({ next_batch: "s5" });
        expect((await (await sync("s0~1.2", 0)).json()).next_batch).toBe("s5");
    });

    it("ends an empty poll with the same position", async () => {
        await begin();
        const poll = sync("s1", 30_000);
        await vi.advanceTimersByTimeAsync(30_000);
        expect(await (await poll).json()).toEqual({ next_batch: "s1" });
        expect(await (await sync("s1", 0)).json()).toEqual({ next_batch: "s1" });
    });

    it("does not answer an initial sync, or an impatient one without a connection, with nothing", async () => {
        transport.start({ accessToken: "T" });
        let settled = false;
        void sync(undefined, 0).then(() => (settled = true));
        await network.last.welcome();
        await vi.advanceTimersByTimeAsync(25_000);
        expect(settled).toBe(false);
        network.last.sync({ next_batch: "s1" });
        await settle();
        expect(settled).toBe(true);
    });

    it("gives an impatient poll a moment for the first frame of a connection", async () => {
        transport.start({ accessToken: "T", since: "s0" });
        const poll = sync("s0", 0);
        await network.last.welcome();
        await vi.advanceTimersByTimeAsync(CATCH_UP_WAIT_MS - 1);
        network.last.sync({ next_batch: "s7" });
        expect((await (await poll).json()).next_batch).toBe("s7");
    });

    it("rejects when aborted, and loses nothing by it", async () => {
        await begin();
        const abort = new AbortController();
        const poll = sync("s1", 30_000, { signal: abort.signal });
        await settle();
        abort.abort();
        await expect(poll).rejects.toMatchObject({ name: "AbortError" });
        network.last.sync({ mark: ["1", "a"], rooms: message("$1") as never });
        expect(eventIds(await (await sync("s1")).json())).toEqual(["$1"]);
    });

    it("resumes a broken connection after the last frame that arrived", async () => {
        await begin();
        network.last.sync({ mark: ["1", "a"], rooms: message("$1") as never });
        network.last.break();
        const poll = await (await sync("s1")).json();
        expect(eventIds(poll)).toEqual(["$1"]);
        await vi.advanceTimersByTimeAsync(1_000);
        await network.last.welcome();
        expect(network.sockets).toHaveLength(2);
        expect(network.last.hello).toMatchObject({ since: "s1", marks: { "1": "a" } });
        network.last.sync({ next_batch: "s9", rooms: { join: { "!r": { timeline: { events: [], limited: true, prev_batch: "p" } } } } });
        const next = await (await sync("s1~1.a")).json();
        expect(next).toEqual({ next_batch: "s9", rooms: { join: { "!r": { timeline: { events: [], limited: true, prev_batch: "p" } } } } });
    });

    it("starts anew where the client says it is, if that is elsewhere", async () => {
        await begin();
        network.last.sync({ mark: ["1", "a"], rooms: message("$1") as never });
        await (await sync("s1")).json();
        const poll = sync("s1~1.0"); // the client lost the last response
        await settle();
        expect(network.sockets).toHaveLength(2);
        await network.last.welcome();
        expect(network.last.hello).toMatchObject({ since: "s1", marks: { "1": "0" } });
        network.last.sync({ next_batch: "s2", rooms: message("$1") as never });
        expect(eventIds(await (await poll).json())).toEqual(["$1"]);
    });

    it("leaves a second initial sync to HTTP", async () => {
        await begin();
        expect(await (await sync(undefined, 0)).json()).toEqual({ over: "http" });
        network.last.sync({ next_batch: "s2" });
        expect((await (await sync("s1")).json()).next_batch).toBe("s2");
        expect(network.sockets).toHaveLength(1);
    });

    it("acknowledges to-device messages when the client asks for what comes after them", async () => {
        await begin();
        network.last.sync({ next_batch: "s2", to_device: { events: [{ type: "m.x" }] } });
        await (await sync("s1")).json();
        expect(network.last.of("ack")).toEqual([]);
        network.last.sync({ mark: ["1", "a"] });
        await (await sync("s2")).json();
        expect(network.last.of("ack")).toEqual([{ op: "ack", since: "s2" }]);
        network.last.sync({ mark: ["1", "b"] });
        await (await sync("s2~1.a")).json();
        expect(network.last.of("ack")).toHaveLength(1);
    });

    it("does not say that to-device messages arrived before the client has them", async () => {
        await begin();
        network.last.sync({ mark: ["1", "a"], rooms: message("$1") as never });
        network.last.sync({ next_batch: "s2", to_device: { events: [{ type: "m.x" }] } });
        network.last.break();
        await vi.advanceTimersByTimeAsync(1_000);
        await network.last.welcome();
        expect(network.last.hello.since).toBe("s1");
        expect(network.last.hello.marks).toBeUndefined();
        network.last.sync({ next_batch: "s3", to_device: { events: [{ type: "m.x" }] }, rooms: message("$1") as never });
        const body = await (await sync("s1")).json();
        expect(body.to_device.events).toHaveLength(1);

        network.last.break();
        await vi.advanceTimersByTimeAsync(1_000);
        await network.last.open();
        expect(network.last.received).toEqual([]); // the client has been given s3, but has not confirmed it
        void sync("s3").catch(() => undefined);
        await settle();
        expect(network.last.hello.since).toBe("s3");
    });

    it("ends the connection of a client that does not ask, and serves it when it does", async () => {
        await begin();
        for (let i = 0; i <= MAX_FRAMES; i++) network.last.sync({ mark: ["1", String(i)] });
        expect(network.last.closedWith).toBe(1000);
        const poll = sync("s1");
        await settle();
        expect(network.sockets).toHaveLength(2);
        await network.last.welcome();
        expect(network.last.hello).toMatchObject({ since: "s1" });
        network.last.sync({ next_batch: "s8" });
        expect((await (await poll).json()).next_batch).toBe("s8");
    });

    it("says that the position is lost", async () => {
        await begin();
        network.last.break(4409);
        expect(lost).toBe(1);
        await vi.advanceTimersByTimeAsync(600_000);
        expect(network.sockets).toHaveLength(1);
    });
});

describe("own messages", () => {
    const send = (txn: string): Promise<Response> => put(`/_matrix/client/v3/rooms/!r/send/m.room.message/${txn}`, { body: "x" });
    const txnOf = (body: unknown): unknown => (body as { rooms: { join: Record<string, { timeline: { events: { unsigned?: { transaction_id?: string } }[] } }> } }).rooms.join["!r"]!.timeline.events[0]!.unsigned?.transaction_id;

    it("are recognised by their transaction, though the frame does not say it", async () => {
        await begin();
        const answer = send("t%2F1");
        await settle();
        network.last.answer(0, 200, { event_id: "$me" });
        await answer;
        network.last.sync({ mark: ["1", "a"], rooms: message("$me", "@me:x") as never });
        expect(txnOf(await (await sync("s1")).json())).toBe("t/1");
    });

    it("wait for their answer if the frame comes first", async () => {
        await begin();
        const answer = send("t1");
        const poll = sync("s1");
        await settle();
        network.last.sync({ mark: ["1", "a"], rooms: message("$me", "@me:x") as never });
        let settled = false;
        void poll.then(() => (settled = true));
        await settle();
        expect(settled).toBe(false);
        network.last.answer(0, 200, { event_id: "$me" });
        await answer;
        expect(txnOf(await (await poll).json())).toBe("t1");
    });

    it("wait also behind the messages of others", async () => {
        await begin();
        const answer = send("t1");
        await settle();
        network.last.sync({ mark: ["1", "a"], rooms: message("$you") as never });
        network.last.sync({ mark: ["1", "b"], rooms: message("$me", "@me:x", "!r") as never });
        const poll = sync("s1");
        await settle();
        network.last.answer(0, 200, { event_id: "$me" });
        await answer;
        const body = await (await poll).json();
        expect(body.rooms.join["!r"].timeline.events.map((e: { unsigned?: object }) => e.unsigned)).toEqual([undefined, { transaction_id: "t1" }]);
    });

    it("are not held back for long, and others not at all", async () => {
        await begin();
        void send("t1").catch(() => undefined);
        await settle();
        network.last.sync({ mark: ["1", "a"], rooms: message("$you") as never });
        expect(eventIds(await (await sync("s1")).json())).toEqual(["$you"]);
        network.last.sync({ mark: ["1", "b"], rooms: message("$me", "@me:x") as never });
        const poll = sync("s1~1.a");
        await vi.advanceTimersByTimeAsync(ECHO_HOLD_MS);
        expect(txnOf(await (await poll).json())).toBeUndefined();
    });

    it("do not lend their transaction to somebody else's event", async () => {
        await begin();
        const answer = send("t1");
        await settle();
        network.last.answer(0, 200, { event_id: "$e" });
        await answer;
        network.last.sync({ mark: ["1", "a"], rooms: message("$e", "@you:x") as never });
        expect(txnOf(await (await sync("s1")).json())).toBeUndefined();
    });
});

describe("without a socket", () => {
    /** No socket can be opened. */
    async function blocked(): Promise<void> {
        transport.start({ accessToken: "T", since: "s1" });
        network.last.break();
        await vi.advanceTimersByTimeAsync(600);
        network.last.break();
        await settle();
    }

    it("polls over HTTP when only the socket is blocked", async () => {
        http = async (url) => Response.json(url.includes("/sync") ? { next_batch: "h1" } : { versions: [] });
        const poll = (transport.start({ accessToken: "T", since: "s1" }), sync("s1"));
        network.last.break();
        await vi.advanceTimersByTimeAsync(600);
        network.last.break();
        await settle();
        expect(await (await poll).json()).toEqual({ next_batch: "h1" });
        expect(httpRequests).toEqual(["GET /_matrix/client/versions", "GET /_matrix/client/v3/sync?timeout=30000&since=s1"]);
        expect(statuses.at(-1)).toBe("http");
        expect(await (await get("/_matrix/client/v3/x")).json()).toEqual({ versions: [] });
    });

    it("tries the socket again, and goes on there from HTTP's position", async () => {
        http = async (url) => Response.json(url.includes("/sync") ? { next_batch: "h5~1.2" } : { versions: [] });
        await blocked();
        expect((await (await sync("s1")).json()).next_batch).toBe("h5~1.2");
        await vi.advanceTimersByTimeAsync(SOCKET_RETRY_MS);
        expect(network.sockets).toHaveLength(3);
        const trial = network.last;
        await trial.welcome();
        expect(trial.hello).toEqual({ op: "hello", access_token: "T" });
        expect(trial.closedWith).toBe(1000);
        const poll = sync("h5~1.2");
        await settle();
        expect(network.sockets).toHaveLength(4);
        await network.last.welcome();
        expect(network.last.hello).toMatchObject({ sync: true, since: "h5", marks: { "1": "2" } });
        network.last.sync({ next_batch: "s9" });
        expect((await (await poll).json()).next_batch).toBe("s9");
        expect(statuses.at(-1)).toBe("socket");
    });

    /** A server that answers no poll before the socket is there. */
    const silent = (_: string, init?: RequestInit): Promise<Response> => new Promise((_, reject) => init!.signal!.addEventListener("abort", () => reject(new DOMException("cut", "AbortError"))));

    it("ends a poll over HTTP when the socket opens, with nothing taken", async () => {
        await blocked();
        http = silent;
        const poll = sync("s1");
        await vi.advanceTimersByTimeAsync(SOCKET_RETRY_MS);
        await network.last.welcome();
        expect(await (await poll).json()).toEqual({ next_batch: "s1" });
        const next = sync("s1");
        await settle();
        await network.last.welcome();
        expect(network.last.hello).toMatchObject({ sync: true, since: "s1" });
        network.last.sync({ next_batch: "s2" });
        expect((await (await next).json()).next_batch).toBe("s2");
        expect(statuses.at(-1)).toBe("socket");
    });

    it("does not cut a poll off whose answer has begun, nor one that the client ends itself", async () => {
        await blocked();
        let signal: AbortSignal | undefined;
        http = async (_, init) => {
            signal = init!.signal!;
            return Response.json({ next_batch: "h1" });
        };
        const begun = await sync("s1");
        http = silent;
        const own = new AbortController();
        const ended = sync("h1", 30_000, { signal: own.signal });
        await settle();
        own.abort();
        await expect(ended).rejects.toMatchObject({ name: "AbortError" });
        await vi.advanceTimersByTimeAsync(SOCKET_RETRY_MS);
        await network.last.welcome();
        expect(signal!.aborted).toBe(false);
        expect((await begun.json()).next_batch).toBe("h1");
    });

    it("tries the socket less and less often", async () => {
        await blocked();
        const opened = (): number => network.sockets.length;
        await vi.advanceTimersByTimeAsync(SOCKET_RETRY_MS);
        expect(opened()).toBe(3);
        network.last.break();
        await vi.advanceTimersByTimeAsync(SOCKET_RETRY_MS);
        expect(opened()).toBe(3);
        await vi.advanceTimersByTimeAsync(SOCKET_RETRY_MS);
        expect(opened()).toBe(4);
        network.last.break();
        transport.wake();
        expect(opened()).toBe(5);
    });

    it("is offline when HTTP does not work either, and comes back by itself", async () => {
        http = async () => {
            throw new TypeError("fetch failed");
        };
        await blocked();
        expect(transport.status).toMatchObject({ kind: "offline" });
        await expect(get("/_matrix/client/v3/x")).rejects.toBeInstanceOf(TypeError);
        const poll = sync("s1");
        transport.wake();
        await network.last.welcome();
        network.last.sync({ next_batch: "s2" });
        expect((await (await poll).json()).next_batch).toBe("s2");
        expect(statuses).toEqual(["connecting", "offline", "socket"]);
    });

    it("does not take a network that came back for one without sockets", async () => {
        let answer: (response: Response) => void = () => undefined;
        http = () => new Promise((resolve) => (answer = resolve));
        await blocked();
        transport.wake(); // the device is online; the question whether HTTP works was asked before
        answer(Response.json({ versions: [] }));
        await settle();
        await network.last.welcome();
        expect(transport.status.kind).toBe("socket");
    });

    it("treats a proxy's error page as no connection", async () => {
        http = async () => new Response("bad gateway", { status: 502 });
        await blocked();
        expect(transport.status.kind).toBe("offline");
    });

    it("lets HTTP tell why the token is refused", async () => {
        http = async () => Response.json({ errcode: "M_UNKNOWN_TOKEN", soft_logout: true }, { status: 401 });
        await begin();
        const poll = sync("s1");
        await settle();
        network.last.break(4401);
        const response = await poll;
        expect(response.status).toBe(401);
        expect(await response.json()).toMatchObject({ errcode: "M_UNKNOWN_TOKEN" });
    });

    it("opens the socket with a new token", async () => {
        await begin();
        transport.setAccessToken("T2");
        expect(network.last.of("auth")).toEqual([{ op: "auth", access_token: "T2" }]);
        network.last.break(4401);
        transport.setAccessToken("T3");
        await network.last.welcome();
        expect(network.last.hello).toEqual({ op: "hello", access_token: "T3" });
    });

    it("does not come back to the socket after a final code", async () => {
        await begin();
        network.last.break(4403);
        expect(transport.status.kind).toBe("http");
        await vi.advanceTimersByTimeAsync(3_600_000);
        expect(network.sockets).toHaveLength(1);
    });

    it("hears over HTTP that the position is lost", async () => {
        await blocked();
        http = async () => Response.json({ errcode: "M_UNKNOWN_POS" }, { status: 400 });
        await sync("s1");
        expect(lost).toBe(1);
    });
});

it("is plain fetch before start and after stop", async () => {
    expect(await (await get("/_matrix/client/v3/x")).json()).toEqual({ over: "http" });
    await begin();
    const poll = sync("s1");
    await settle();
    transport.stop();
    expect(await (await poll).json()).toEqual({ over: "http" });
    expect(transport.status).toEqual({ kind: "stopped" });
});

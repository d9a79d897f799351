import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import type { SyncFrame } from "../../src/protocol/frames.ts";
import { CONNECT_TIMEOUT_MS, MAX_OPEN_CALLS, NotSentError, PROBE_TIMEOUT_MS, Socket, SocketLostError, type SocketState, STABLE_AFTER_MS } from "../../src/protocol/socket.ts";
import { FakeNetwork, settle } from "./fakesocket.ts";

let network: FakeNetwork;
let frames: SyncFrame[];
let socket: Socket;
let random = 1;

beforeEach(() => {
    vi.useFakeTimers();
    network = new FakeNetwork();
    frames = [];
    random = 0.5;
    socket = new Socket({
        url: "wss://x/_hubbub/v1/ws",
        connect: network.connect,
        hello: () => ({ access_token: "T", sync: true }),
        onFrame: (frame) => frames.push(frame),
        onState: () => undefined,
        random: () => random,
    });
});

afterEach(() => {
    socket.stop();
    expect(vi.getTimerCount()).toBe(0);
    vi.useRealTimers();
});

describe("opening", () => {
    it("offers the subprotocol, says hello first, and is open when that is answered", async () => {
        socket.start();
        expect(network.last.url).toBe("wss://x/_hubbub/v1/ws");
        expect(network.last.protocol).toBe("hubbub.v1");
        await network.last.open();
        expect(network.last.received).toEqual([{ op: "hello", access_token: "T", sync: true }]);
        expect(socket.state.kind).toBe("connecting");
        network.last.push({ op: "hello", user_id: "@a:x", heartbeat_ms: 30000, max_message_bytes: 10 });
        expect(socket.state).toMatchObject({ kind: "open", hello: { user_id: "@a:x" } });
    });

    it("gives up a connection that does not come to hello in time", async () => {
        socket.start();
        await network.last.open();
        vi.advanceTimersByTime(CONNECT_TIMEOUT_MS);
        expect(socket.state).toMatchObject({ kind: "waiting", failures: 1 });
        expect(network.last.closedWith).toBe(4999);
    });

    it("survives a constructor that throws", () => {
        const refusing = new Socket({
            url: "wss://x",
            connect: () => {
                throw new Error("forbidden by policy");
            },
            hello: () => ({}),
            onFrame: () => undefined,
            onState: () => undefined,
        });
        refusing.start();
        expect(refusing.state.kind).toBe("waiting");
        refusing.stop();
    });

    it("does not open a second connection when started twice", () => {
        socket.start();
        socket.start();
        expect(network.sockets).toHaveLength(1);
    });
});

describe("coming back", () => {
    it("waits longer after each failure, and from the beginning after a good connection", async () => {
        random = 0.999;
        const delays: number[] = [];
        socket.start();
        for (let i = 0; i < 8; i++) {
            network.last.break();
            const state = socket.state as SocketState & { kind: "waiting" };
            delays.push(Math.round((state.retryAt - Date.now()) / 1000));
            vi.advanceTimersByTime(state.retryAt - Date.now());
        }
        expect(delays).toEqual([1, 2, 4, 8, 16, 32, 60, 60]);
        await network.last.welcome();
        vi.advanceTimersByTime(STABLE_AFTER_MS);
        network.last.break();
        expect(socket.state).toMatchObject({ kind: "waiting", retryAt: Date.now() + 999, failures: 0 });
    });

    it("does not forget the back-off when the server lets it in only to drop it", async () => {
        random = 0.999;
        socket.start();
        for (const expected of [999, 1998, 3996]) {
            await network.last.welcome();
            network.last.break(4500);
            expect(socket.state).toMatchObject({ kind: "waiting", retryAt: Date.now() + expected });
            vi.advanceTimersByTime(expected);
        }
    });

    it.each([1002, 1007, 1009, 4400, 4401, 4403])("does not come back after %i", async (code) => {
        socket.start();
        await network.last.welcome();
        network.last.break(code);
        expect(socket.state).toEqual({ kind: "refused", code });
        vi.advanceTimersByTime(600_000);
        expect(network.sockets).toHaveLength(1);
    });

    it("waits at least a minute after 4429, and up to 5 s after 4503", async () => {
        random = 0;
        socket.start();
        await network.last.welcome();
        network.last.break(4429);
        expect(socket.state).toMatchObject({ retryAt: Date.now() + 60_000 });
        vi.advanceTimersByTime(60_000);
        random = 0.5;
        await network.last.welcome();
        network.last.break(4503);
        expect(socket.state).toMatchObject({ retryAt: Date.now() + 2_500 });
    });

    it("connects at once when woken while it waits", () => {
        socket.start();
        network.last.break();
        socket.wake();
        expect(network.sockets).toHaveLength(2);
    });

    it("ignores what a given-up connection still says", async () => {
        socket.start();
        await network.last.welcome();
        const old = network.last;
        const handler = old.onmessage!;
        socket.restart();
        handler(new MessageEvent("message", { data: '{"op":"sync","next_batch":"s1"}' }));
        expect(frames).toEqual([]);
        expect(old.closedWith).toBe(1000);
    });
});

describe("ending", () => {
    it("sends nothing once the end has begun, though it has not heard of it", async () => {
        socket.start();
        await network.last.welcome();
        const waiting = new AbortController();
        const call = socket.call("GET", "/slow", undefined, waiting.signal);
        const ending = network.last;
        ending.readyState = 2; // the browser has the server's close frame, and tells it next
        const before = ending.received.length;
        await expect(socket.call("GET", "/late", undefined)).rejects.toBeInstanceOf(NotSentError);
        expect(socket.tell({ op: "ack", since: "s" })).toBe(false);
        socket.wake();
        waiting.abort();
        await expect(call).rejects.toThrow();
        expect(ending.received).toHaveLength(before);
        ending.break(4503);
        expect(socket.state.kind).toBe("waiting");
    });
});

describe("keeping alive", () => {
    it("pings a silent server, and gives it up if it stays silent", async () => {
        socket.start();
        await network.last.welcome();
        const first = network.last;
        vi.advanceTimersByTime(30_000);
        expect(first.of("ping")).toHaveLength(1);
        vi.advanceTimersByTime(30_000);
        expect(socket.state.kind).toBe("waiting");
    });

    it("stays while the server is heard", async () => {
        socket.start();
        await network.last.welcome();
        for (let i = 0; i < 10; i++) {
            vi.advanceTimersByTime(30_000);
            network.last.push({ op: "pong" });
            await settle();
        }
        expect(socket.state.kind).toBe("open");
        expect(network.last.of("ping").length).toBeGreaterThanOrEqual(5);
        vi.advanceTimersByTime(20_000);
        network.last.sync({});
        const pings = network.last.of("ping").length;
        vi.advanceTimersByTime(25_000);
        expect(network.last.of("ping")).toHaveLength(pings);
    });

    it("does not trust an open connection after waking", async () => {
        socket.start();
        await network.last.welcome();
        vi.advanceTimersByTime(1_000);
        socket.wake();
        expect(network.last.of("ping")).toHaveLength(1);
        vi.advanceTimersByTime(PROBE_TIMEOUT_MS);
        expect(socket.state.kind).toBe("waiting");
    });

    it("gives up a server whose messages it cannot read", async () => {
        for (const nonsense of ["{", "[]", '{"op":"res"}', '{"op":"sync","mark":["1"]}', '{"op":"sync","next_batch":1}']) {
            socket.restart();
            await network.last.welcome();
            network.last.push(nonsense);
            expect(socket.state.kind).toBe("waiting");
        }
        socket.restart();
        await network.last.welcome();
        network.last.push({ op: "something new" });
        expect(socket.state.kind).toBe("open");
    });
});

describe("calls", () => {
    beforeEach(async () => {
        socket.start();
        await network.last.welcome();
    });

    it("matches answers that come in another order", async () => {
        const a = socket.call("GET", "/a", undefined);
        const b = socket.call("PUT", "/b?x=1", { y: 2 });
        expect(network.last.of("req")).toEqual([
            { op: "req", id: 1, method: "GET", path: "/a" },
            { op: "req", id: 2, method: "PUT", path: "/b?x=1", body: { y: 2 } },
        ]);
        network.last.answer(1, 403, { errcode: "M_FORBIDDEN" });
        network.last.answer(0, 200, { ok: true });
        expect(await a).toEqual({ status: 200, body: { ok: true } });
        expect(await b).toEqual({ status: 403, body: { errcode: "M_FORBIDDEN" } });
    });

    it("rejects open calls when the connection breaks, and when it is given up", async () => {
        const a = socket.call("GET", "/a", undefined);
        network.last.break();
        await expect(a).rejects.toBeInstanceOf(SocketLostError);
        await expect(socket.call("GET", "/b", undefined)).rejects.toBeInstanceOf(NotSentError);
        socket.wake();
        await network.last.welcome();
        const c = socket.call("GET", "/c", undefined);
        socket.stop();
        await expect(c).rejects.toBeInstanceOf(SocketLostError);
    });

    it("cancels an aborted call and ignores its answer", async () => {
        const abort = new AbortController();
        const a = socket.call("GET", "/a", undefined, abort.signal);
        abort.abort();
        await expect(a).rejects.toMatchObject({ name: "AbortError" });
        expect(network.last.of("cancel")).toEqual([{ op: "cancel", id: 1 }]);
        network.last.answer(0, 200, {});
        await expect(socket.call("GET", "/a", undefined, abort.signal)).rejects.toMatchObject({ name: "AbortError" });
        expect(network.last.of("req")).toHaveLength(1);
    });

    it("takes no more calls than the server allows, and none that is too large", async () => {
        const open = Array.from({ length: MAX_OPEN_CALLS }, (_, i) => socket.call("GET", `/${i}`, undefined));
        await expect(socket.call("GET", "/one-more", undefined)).rejects.toBeInstanceOf(NotSentError);
        network.last.answer(0, 200, {});
        await open[0];
        await expect(socket.call("PUT", "/large", { body: "ü".repeat(65_536) })).rejects.toBeInstanceOf(NotSentError);
        const fits = socket.call("PUT", "/fits", { body: "ü".repeat(65_000) });
        expect(network.last.of("req")).toHaveLength(MAX_OPEN_CALLS + 1);
        socket.stop();
        await Promise.allSettled([...open, fits]);
    });
});

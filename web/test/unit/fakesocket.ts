/** The server's end of the sockets that a test opens: it answers when the test says so, and never by itself. */
import type { Hello, SyncFrame } from "../../src/protocol/frames.ts";
import type { WebSocketLike } from "../../src/protocol/socket.ts";

export class FakeSocket implements WebSocketLike {
    readyState = 0;
    onopen: WebSocketLike["onopen"] = null;
    onmessage: WebSocketLike["onmessage"] = null;
    onclose: WebSocketLike["onclose"] = null;
    onerror: WebSocketLike["onerror"] = null;
    readonly received: Record<string, unknown>[] = [];
    closedWith: number | undefined;

    constructor(
        readonly url: string,
        readonly protocol: string,
    ) {}

    send(data: string): void {
        if (this.readyState !== 1) throw new Error("the socket is not open");
        this.received.push(JSON.parse(data) as Record<string, unknown>);
    }

    close(code?: number): void {
        this.readyState = 3;
        this.closedWith = code;
    }

    of(op: string): Record<string, unknown>[] {
        return this.received.filter((message) => message.op === op);
    }

    get hello(): Hello & { op: string } {
        return this.of("hello")[0] as unknown as Hello & { op: string };
    }

    /** Completes the upgrade; the client's hello follows in a microtask. */
    async open(): Promise<void> {
        this.readyState = 1;
        this.onopen?.(new Event("open"));
        await settle();
    }

    /** Completes the upgrade and answers hello. */
    async welcome(answer: Record<string, unknown> = {}): Promise<void> {
        await this.open();
        this.push({ op: "hello", user_id: "@me:x", device_id: "D", heartbeat_ms: 30_000, max_message_bytes: 131_072, ...answer });
        await settle();
    }

    push(message: object | string): void {
        this.onmessage?.(new MessageEvent("message", { data: typeof message === "string" ? message : JSON.stringify(message) }));
    }

    sync(frame: Omit<SyncFrame, "op">): void {
        this.push({ op: "sync", ...frame });
    }

    answer(index: number, status: number, body?: unknown): void {
        this.push({ op: "res", id: this.of("req")[index]!.id, status, ...(body === undefined ? {} : { body }) });
    }

    /** The connection ends from the server's side, or on the way. */
    break(code = 1006): void {
        this.readyState = 3;
        this.onclose?.(Object.assign(new Event("close"), { code, reason: "", wasClean: false }) as CloseEvent);
    }
}

export class FakeNetwork {
    readonly sockets: FakeSocket[] = [];

    readonly connect = (url: string, protocol: string): FakeSocket => {
        const socket = new FakeSocket(url, protocol);
        this.sockets.push(socket);
        return socket;
    };

    get last(): FakeSocket {
        return this.sockets.at(-1)!;
    }
}

/** Lets everything that waits for a promise go on. */
export async function settle(): Promise<void> {
    for (let i = 0; i < 20; i++) await Promise.resolve();
}

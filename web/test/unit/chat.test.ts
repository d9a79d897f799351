/** The whole app without a page: two people with the real SDK, over real sockets, against the fake server. */
import "fake-indexeddb/auto";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { WebSocket } from "ws";
import { App, type View } from "../../src/domain/app.ts";
import type { Chat } from "../../src/domain/chat.ts";
import type { Item, Message } from "../../src/domain/entries.ts";
import type { PushBrowser } from "../../src/domain/notifications.ts";
import type { Timeline } from "../../src/domain/timeline.ts";
import type { WebSocketLike } from "../../src/protocol/socket.ts";
import { MemoryKeyValue } from "../../src/store/keyvalue.ts";
import { FakeServer } from "../fake/server.mjs";

let server: FakeServer;
const apps: App[] = [];
let reloads = 0;

beforeEach(async () => {
    reloads = 0;
    server = new FakeServer();
    await server.listen();
});

afterEach(async () => {
    for (const app of apps.splice(0)) await app.signOut();
    await server.close();
});

function newApp(kv = new MemoryKeyValue(), push?: PushBrowser): App {
    const app = new App({
        origin: server.origin,
        fetch: (input, init) => fetch(input, init),
        connect: (url, protocol) => new WebSocket(url, protocol) as unknown as WebSocketLike,
        kv,
        indexedDB,
        ...(push ? { push } : {}),
        reload: () => reloads++,
    });
    apps.push(app);
    return app;
}

/** Waits until a look gives something; looks again whenever a moment has passed. */
async function until<T>(look: () => Promise<T | undefined | false> | T | undefined | false, what: string): Promise<T> {
    const deadline = Date.now() + 10_000;
    for (;;) {
        const found = await look();
        if (found !== undefined && found !== false) return found;
        if (Date.now() > deadline) throw new Error(`waited in vain for ${what}`);
        await new Promise((resolve) => setTimeout(resolve, 5));
    }
}

const chatOf = (app: App): Chat => {
    const view: View = app.view.value;
    if (view.kind !== "signed-in") throw new Error(`not signed in but ${JSON.stringify(view)}`);
    return view.chat;
};
const messages = (timeline: Timeline): Message[] => timeline.items.value.flatMap((item: Item) => (item.kind === "group" ? item.messages : []));
const texts = (timeline: Timeline): string[] => messages(timeline).map((m) => m.text);

async function join(name: string, kv?: MemoryKeyValue, push?: PushBrowser): Promise<App> {
    const app = newApp(kv, push);
    await app.signUp({ username: name, password: "secret", token: "" });
    await until(() => chatOf(app).ready.value && app.connection.value.kind === "socket", `${name}'s first sync`);
    return app;
}

/** Neither socket nor HTTP get through, for all. */
async function goOffline(app: App): Promise<void> {
    server.offline();
    await until(() => app.connection.value.kind === "offline", "the app to be offline");
}

/** Two people in one room, each with its timeline open. */
async function pair(): Promise<{ ada: App; bob: App; roomId: string; hers: Timeline; his: Timeline }> {
    const [ada, bob] = [await join("ada"), await join("bob")];
    const roomId = await chatOf(ada).createRoom("Garden", "bob");
    await until(() => chatOf(bob).rooms.value.find((r) => r.kind === "invite" && r.name === "Garden" && r.inviter === "ada"), "the invitation");
    await chatOf(bob).accept(roomId);
    const [hers, his] = [chatOf(ada).open(roomId), chatOf(bob).open(roomId)];
    await until(() => hers.members.value === 2 && his.members.value === 2, "both to be in the room");
    return { ada, bob, roomId, hers, his };
}

describe("two people", () => {
    it("meet in a room and talk, all over the socket", async () => {
        const { hers, his, roomId } = await pair();
        for (let i = 0; i < 5; i++) {
            hers.send(`ada ${i}`);
            await until(() => texts(his).includes(`ada ${i}`), "her message");
            his.send(`bob ${i}`);
            await until(() => texts(hers).includes(`bob ${i}`), "his message");
        }
        const expected = Array.from({ length: 5 }, (_, i) => [`ada ${i}`, `bob ${i}`]).flat();
        expect(texts(hers)).toEqual(expected);
        expect(texts(his)).toEqual(expected);
        expect(messages(hers).every((m) => m.delivery === "sent")).toBe(true);
        const path = `/_matrix/client/v3/rooms/${encodeURIComponent(roomId)}`;
        expect(server.overSocket.filter((call) => call.includes("/send/"))).toHaveLength(10);
        expect(server.overSocket.some((call) => call.startsWith(`PUT ${path}`))).toBe(true);
        expect(server.overHttp.filter((call) => !/versions|register|info/.test(call))).toEqual([]);
    });

    it("send many messages at once, which stay in order and come once", async () => {
        const { hers, his } = await pair();
        const sent = Array.from({ length: 40 }, (_, i) => `message ${i}`);
        for (const text of sent) hers.send(text);
        await until(() => texts(his).length >= 40 && messages(hers).every((m) => m.delivery === "sent"), "all to arrive");
        expect(texts(his)).toEqual(sent);
        expect(texts(hers)).toEqual(sent);
        const keys = messages(hers).map((m) => m.key);
        expect(new Set(keys).size).toBe(40);
    });

    it("see who is typing, what is unread, and that it was read", async () => {
        const { bob, roomId, hers, his } = await pair();
        hers.isTyping(false);
        await until(() => his.typing.value.join() === "ada", "typing to show");
        hers.send("one");
        hers.send("two");
        await until(() => his.typing.value.length === 0, "typing to end");
        const unread = (): number => chatOf(bob).rooms.value.find((r) => r.id === roomId)!.unread;
        await until(() => unread() === 2, "two unread");
        his.markRead();
        await until(() => unread() === 0, "nothing unread");
    });

    it("are not said to type on by a request that another overtook", async () => {
        const { hers } = await pair();
        let answer!: () => void;
        const said = vi.spyOn(hers["client"], "sendTyping").mockImplementation(() => new Promise((done) => (answer = () => done({}))));
        hers.isTyping(false);
        hers.isTyping(true);
        await until(() => said.mock.calls.length === 1, "the first to be said");
        await new Promise((done) => setTimeout(done, 10));
        expect(said.mock.calls.map((call) => call[1])).toEqual([true]);
        answer();
        await until(() => said.mock.calls.length === 2, "the second to be said");
        expect(said.mock.calls[1]![1]).toBe(false);
        answer();
    });

    it("see that only some may speak, and where a room goes on", async () => {
        const { bob, roomId, hers, his } = await pair();
        const ada = "@ada:example.org";
        expect([hers.floor.mine.value, his.floor.mine.value, his.floor.successor.value]).toEqual([true, true, undefined]);
        server.setState(ada, roomId, "m.room.power_levels", { users: { [ada]: 100 }, events_default: 50 });
        await until(() => !his.floor.mine.value, "bob to be silent");
        expect(hers.floor.mine.value).toBe(true);
        const { room_id: next } = server.createRoom(ada, { name: "Garden 2", invite: ["@bob:example.org"] });
        server.setState(ada, roomId, "m.room.tombstone", { body: "moved", replacement_room: next });
        await until(() => hers.floor.successor.value === next && his.floor.successor.value === next, "both to know the way");
        await chatOf(bob).join(next);
        expect(chatOf(bob).open(next).floor).toMatchObject({ mine: { value: true }, successor: { value: undefined } });
        server.setState(ada, roomId, "m.room.tombstone", {}); // as one that was redacted
        server.setState(ada, roomId, "m.room.power_levels", { users: { [ada]: 100 } });
        await until(() => his.floor.mine.value && his.floor.successor.value === undefined, "all to be as before");
    });

    it("have one direct conversation, not two", async () => {
        const [ada, bob] = [await join("ada"), await join("bob")];
        const first = await chatOf(ada).createDirect("@bob");
        const invitation = await until(() => chatOf(bob).rooms.value.find((r) => r.kind === "invite"), "the invitation");
        expect(invitation).toMatchObject({ direct: true, inviter: "ada", name: "ada" });
        await chatOf(bob).accept(first);
        await until(() => chatOf(ada).rooms.value[0]?.direct && chatOf(bob).rooms.value[0]?.direct, "both to know");
        expect(await chatOf(ada).createDirect("bob")).toBe(first);
        expect(await chatOf(bob).createDirect("ada")).toBe(first);
        expect(chatOf(ada).rooms.value[0]!.name).toBe("bob");
    });

    it("invite each other as long as they allow it, on whichever device they say so", async () => {
        const [ada, bob, elsewhere] = [await join("ada"), await join("bob"), newApp()];
        await elsewhere.signIn("bob", "secret");
        const [one, other] = [chatOf(bob).invites, chatOf(elsewhere).invites];
        const room = await chatOf(ada).createRoom("Garden", "");
        expect(one.allowed.value).toBe(true);
        await one.allow(false);
        expect(one.allowed.value).toBe(false);
        await until(() => !other.allowed.value, "the other device to follow");
        await expect(chatOf(ada).invite(room, "bob")).rejects.toThrow("Somebody you want to invite accepts no invitations.");
        await expect(chatOf(ada).createDirect("bob")).rejects.toThrow(/accepts no invitations/);
        await other.allow(true);
        await until(() => one.allowed.value, "the first device to follow");
        await chatOf(ada).invite(room, "bob");
        await until(() => chatOf(bob).rooms.value.find((r) => r.kind === "invite"), "the invitation");
    });
});

describe("when things go wrong", () => {
    it("a dropped connection loses nothing and repeats nothing", async () => {
        const { hers, his } = await pair();
        hers.send("before");
        await until(() => texts(his).includes("before"), "the first message");
        server.dropSockets(4500);
        await new Promise((resolve) => setTimeout(resolve, 5));
        hers.send("during");
        his.send("meanwhile");
        await until(() => texts(his).includes("during") && texts(hers).includes("meanwhile"), "what was sent while the connection was down");
        hers.send("after");
        await until(() => texts(his).includes("after") && messages(hers).every((m) => m.delivery === "sent"), "the last message");
        expect([...texts(his)].sort()).toEqual(["after", "before", "during", "meanwhile"]);
        expect(texts(hers)).toEqual(texts(his));
    });

    it("a gap is shown as the newest messages, and the older ones can be loaded", async () => {
        const { hers, his, roomId } = await pair();
        hers.send("early");
        await until(() => texts(his).includes("early"), "the first message");
        server.blockSockets = true;
        server.dropSockets(4500);
        const session = { txns: new Map<string, string>() };
        for (let i = 0; i < 60; i++) server.send("@ada:example.org", roomId, "m.room.message", `g${i}`, { msgtype: "m.text", body: `gap ${i}` }, session);
        server.blockSockets = false;
        await until(() => texts(his).includes("gap 59"), "the newest message");
        expect(texts(his)).not.toContain("early");
        for (let i = 0; i < 5 && !texts(his).includes("early"); i++) await his.loadOlder();
        expect(texts(his)).toEqual(["early", ...Array.from({ length: 60 }, (_, i) => `gap ${i}`)]);
    });

    it("a message that fails stays, and can be sent again or thrown away", async () => {
        const { hers, his } = await pair();
        server.failSends = true;
        hers.send("first");
        hers.send("second");
        const failed = await until(() => {
            const all = messages(hers).filter((m) => m.delivery === "failed");
            return all.length === 2 ? all : undefined;
        }, "both to fail");
        server.failSends = false;
        hers.discard(failed[0]!.key);
        hers.retry(failed[1]!.key);
        await until(() => texts(his).includes("second"), "the second message");
        await until(() => messages(hers).length === 1 && messages(hers)[0]!.delivery === "sent", "the first to be gone");
        expect(texts(his)).toEqual(["second"]);
    });

    it("what was written without a network outlives the page, and comes once and in order", async () => {
        const kv = new MemoryKeyValue();
        const ada = await join("ada", kv);
        const roomId = await chatOf(ada).createRoom("Garden", "");
        const hers = chatOf(ada).open(roomId);
        hers.send("first");
        const first = await until(() => messages(hers).find((m) => m.delivery === "sent" && m.eventId), "the first");
        await new Promise((resolve) => setTimeout(resolve, 50)); // its echo comes in a frame of its own
        await ada.save();
        await goOffline(ada);
        hers.context.value = { kind: "edit", message: first };
        hers.send("first, changed");
        hers.context.value = { kind: "reply", message: first };
        hers.send("second");
        hers.react(first, "👍");
        hers.send("third");
        await until(() => messages(hers).filter((m) => m.delivery === "waiting").length === 2, "both to wait");
        expect(texts(hers)).toEqual(["first, changed", "second", "third"]);
        expect((await kv.list("outbox:")).length).toBe(4);

        const again = newApp(kv);
        await again.start();
        const opened = await until(() => chatOf(again).rooms.value.length === 1 && chatOf(again).open(roomId), "the stored room");
        await until(() => messages(opened).filter((m) => m.delivery === "waiting").length === 2, "what waits");
        expect(messages(opened)[0]).toMatchObject({ text: "first, changed", change: { failed: false }, reactions: [{ key: "👍" }] });
        expect(messages(opened)[1]!.quote).toMatchObject({ eventId: first.eventId });
        server.online();
        for (const app of [again, ada]) app.wake(); // two pages of one session, with the same messages
        for (const timeline of [opened, hers]) await until(() => messages(timeline).length === 3 && messages(timeline).every((m) => m.delivery === "sent" && !m.change), "all to be sent");
        await until(async () => (await kv.list("outbox:")).length === 0, "nothing to wait any more");
        const sent = (server as unknown as { rooms: Map<string, { events: { type: string; content: { body?: string } }[] }> }).rooms.get(roomId)!.events.filter((e) => /message|reaction/.test(e.type));
        expect(sent.map((e) => e.content.body)).toEqual(["first", "* first, changed", "second", undefined, "third"]);
    });

    it("what the server refused is still there after a reload, and can be thrown away", async () => {
        const kv = new MemoryKeyValue();
        const ada = await join("ada", kv);
        const roomId = await chatOf(ada).createRoom("Garden", "");
        const hers = chatOf(ada).open(roomId);
        hers.send("kept");
        const kept = await until(() => messages(hers).find((m) => m.delivery === "sent" && m.eventId), "the message");
        server.failSends = true;
        hers.context.value = { kind: "edit", message: kept };
        hers.send("not allowed");
        hers.send("nor this");
        hers.react(kept, "👍");
        await until(() => messages(hers)[0]!.change?.failed && messages(hers)[1]?.delivery === "failed" && !messages(hers)[0]!.reactions, "all to be refused");
        await ada.save();
        server.failSends = false;
        const again = newApp(kv);
        await again.start();
        const opened = await until(() => chatOf(again).rooms.value.length === 1 && chatOf(again).open(roomId), "the room");
        await until(() => messages(opened)[0]?.change?.failed && messages(opened)[1]?.delivery === "failed", "what was refused");
        opened.discard(messages(opened)[0]!.change!.key);
        opened.discard(messages(opened)[1]!.key);
        await until(() => texts(opened).join() === "kept", "it to be gone");
        expect(await kv.list("outbox:")).toEqual([]);
    });

    it("works over plain HTTP while sockets are blocked", async () => {
        server.blockSockets = true;
        const app = newApp();
        await app.signUp({ username: "ada", password: "secret", token: "" });
        await until(() => app.connection.value.kind === "http" && chatOf(app).ready.value, "the fallback");
        const roomId = await chatOf(app).createRoom("Alone", "");
        const timeline = chatOf(app).open(roomId);
        timeline.send("hello");
        await until(() => messages(timeline)[0]?.delivery === "sent", "the message");
        expect(server.overHttp.some((call) => call.includes("/send/"))).toBe(true);
        expect(server.overSocket).toEqual([]);
    });

    it("starts over when the server does not know the position", async () => {
        const ada = await join("ada");
        const roomId = await chatOf(ada).createRoom("Garden", "");
        const hers = chatOf(ada).open(roomId);
        hers.send("kept by the server");
        await until(() => messages(hers)[0]?.delivery === "sent", "the message");
        const before = chatOf(ada);
        const real = server.position.bind(server);
        let refused = 0;
        server.position = (token) => {
            if (token && refused++ === 0) throw new Error("unknown");
            return real(token);
        };
        server.dropSockets(4500);
        await until(() => ada.view.value.kind === "signed-in" && chatOf(ada) !== before && chatOf(ada).ready.value, "a new beginning");
        const again = chatOf(ada).open(roomId);
        expect(texts(again)).toEqual(["kept by the server"]);
    });

    it("says so when the session was ended elsewhere", async () => {
        const ada = await join("ada");
        const token = (server as unknown as { tokens: Map<string, unknown> }).tokens.keys().next().value!;
        (server as unknown as { logout(token: string): void }).logout(token);
        await until(() => ada.view.value.kind === "signed-out", "the way out");
        expect(ada.view.value).toMatchObject({ why: expect.stringContaining("signed out") });
    });
});

describe("the session", () => {
    it("is there again after a reload, with what was stored, from where it was", async () => {
        const kv = new MemoryKeyValue();
        const first = await join("ada", kv);
        const roomId = await chatOf(first).createRoom("Garden", "");
        const timeline = chatOf(first).open(roomId);
        timeline.send("stored");
        await until(() => messages(timeline)[0]?.delivery === "sent", "the message");
        await new Promise((resolve) => setTimeout(resolve, 50)); // its echo comes in a frame of its own
        await first.save();

        await goOffline(first); // the second page shows what it has without any server
        const second = newApp(kv);
        await second.start();
        await until(() => chatOf(second).rooms.value.some((r) => r.id === roomId), "the stored room");
        expect(texts(chatOf(second).open(roomId))).toEqual(["stored"]);
        server.online();
        second.wake();
        await until(() => second.connection.value.kind === "socket" || second.connection.value.kind === "http", "the connection");
    });

    it("leaves nothing behind on signing out", async () => {
        const kv = new MemoryKeyValue();
        const ada = await join("ada", kv);
        const roomId = await chatOf(ada).createRoom("Garden", "");
        server.failSends = true;
        chatOf(ada).open(roomId).send("never sent");
        await until(async () => (await kv.list("outbox:")).length === 1, "the message to be kept");
        const names = async (): Promise<string[]> => (await indexedDB.databases()).map((db) => db.name ?? "").filter((name) => name.includes("@ada"));
        expect(await names()).not.toEqual([]);
        await ada.signOut();
        expect(await kv.list("")).toEqual([]);
        expect(await names()).toEqual([]);
        expect((server as unknown as { tokens: Map<string, unknown> }).tokens.size).toBe(0);
    });

    it("ends a sign-out that something kept from its end when the page is there anew", async () => {
        const kv = new MemoryKeyValue();
        const ada = await join("ada", kv);
        const names = async (): Promise<string[]> => (await indexedDB.databases()).map((db) => db.name ?? "").filter((name) => name.includes("@ada"));
        const held = await new Promise<IDBDatabase>((done) => {
            const request = indexedDB.open("matrix-js-sdk:hubbub-sync:@ada:example.org");
            request.onsuccess = () => done(request.result);
        });
        await ada.signOut();
        expect(reloads).toBe(1);
        expect(await kv.list("")).toEqual([["leaving", expect.objectContaining({ userId: "@ada:example.org" })]]);
        expect(await names()).not.toEqual([]);
        expect((server as unknown as { tokens: Map<string, unknown> }).tokens.size).toBe(0);
        held.close();
        await kv.set("draft:@ada:example.org:!old:example.org", "half a word");
        const anew = newApp(kv);
        await anew.start();
        expect(anew.view.value.kind).toBe("signed-out");
        await until(async () => (await kv.list("")).length === 0, "the end of the sign-out");
        expect(await names()).toEqual([]);
    });

    it("does not wait for a service worker that never comes before it signs out", async () => {
        const kv = new MemoryKeyValue();
        const never = (): Promise<never> => new Promise(() => undefined);
        const ada = await join("ada", kv, {
            supported: true,
            numbersAlone: true,
            deviceName: "test",
            permission: () => "default",
            ask: never,
            subscription: never,
            subscribe: never,
            unsubscribe: never,
            listen: () => () => undefined,
            close: never,
            open: () => undefined,
        });
        await ada.signOut();
        expect(await kv.list("")).toEqual([]);
        expect((server as unknown as { tokens: Map<string, unknown> }).tokens.size).toBe(0);
    });

    it("is refused in words", async () => {
        await join("ada");
        const app = newApp();
        await expect(app.signIn("ada", "wrong")).rejects.toThrow("The name or the password is not right.");
        await expect(app.signUp({ username: "ada", password: "secret", token: "" })).rejects.toThrow(/already taken/);
        await expect(app.signUp({ username: "eve", password: "x", token: "" })).rejects.toThrow(/too weak/);
        server.registrationToken = "tok";
        expect(await app.auth.signUpForm()).toMatchObject({ needsToken: true });
        await expect(app.signUp({ username: "eve", password: "secret", token: "bad" })).rejects.toThrow(/token is not valid/);
        await app.signUp({ username: "eve", password: "secret", token: "tok" });
        expect(chatOf(app).userId).toBe("@eve:example.org");
        await until(() => chatOf(app).ready.value, "her first sync");
    });

    it("refuses people that are none, before the server is asked", async () => {
        const ada = await join("ada");
        await expect(chatOf(ada).createDirect("bob, carol")).rejects.toThrow(/one person/);
        await expect(chatOf(ada).createDirect("bob:elsewhere.org")).rejects.toThrow(/not a name on this server/);
        await expect(chatOf(ada).createDirect("ada")).rejects.toThrow(/That is you/);
        await expect(chatOf(ada).createDirect("nobody")).rejects.toThrow(/could not be found/);
    });
});

/** What the service worker does with what it is pushed; the browser around it is made of objects. */
import { beforeEach, describe, expect, it } from "vitest";
import { notifyOf } from "../../src/domain/roomnotify.ts";
import { MemoryKeyValue } from "../../src/store/keyvalue.ts";
import { type DeviceNotes, isQuiet, loadDevice, loadNotes, type NoteWords, pusherOf, saveDevice, saveNotes, type ToPage } from "../../src/store/notes.ts";
import { OutboxStore } from "../../src/store/outbox.ts";
import { saveSession } from "../../src/store/session.ts";
import { type Page, Push, type Showing, type Shown } from "../../src/sw/push.ts";

const WORDS: NoteWords = { newMessage: "Neue Nachricht", newMessageIn: "Neue Nachricht in {room}", read: "Gelesen", reply: "Antworten", replyHint: "…", dir: "ltr", lang: "de" };
const SEALED = "!sealed:x";
const OPEN = "!open:x";
const KEYS = { endpoint: "https://push.example/new", p256dh: "new", auth: "secret" };

class World {
    readonly kv = new MemoryKeyValue();
    readonly pages: (Page & { told: ToPage[]; answer: unknown })[] = [];
    readonly requests: { method: string; path: string; body: unknown; token: string | null }[] = [];
    readonly showings: Showing[] = [];
    readonly opened: string[] = [];
    readonly badges: number[] = [];
    shown: (Shown & { closed: boolean })[] = [];
    now = new Date("2026-05-04T12:00:00");
    answers: Record<string, unknown> = {};
    online = true;

    readonly push = new Push({
        kv: this.kv,
        fetch: (path, init) => {
            if (!this.online) return Promise.reject(new TypeError("Failed to fetch"));
            const method = init?.method ?? "GET";
            this.requests.push({ method, path: String(path), body: typeof init?.body === "string" ? JSON.parse(init.body) : undefined, token: new Headers(init?.headers).get("Authorization") });
            const answer = this.answers[`${method} ${String(path)}`] ?? (method === "GET" ? undefined : {});
            return Promise.resolve(answer === undefined ? new Response("{}", { status: 404 }) : new Response(JSON.stringify(answer)));
        },
        now: () => this.now,
        pages: () => Promise.resolve(this.pages),
        openPage: (path) => Promise.resolve(void this.opened.push(path)),
        shown: () => Promise.resolve(this.shown),
        show: (showing) => Promise.resolve(void this.showings.push(showing)),
        badge: (unread) => Promise.resolve(void this.badges.push(unread)),
        subscribe: () => Promise.resolve(KEYS),
    });

    async ready(): Promise<this> {
        await saveSession(this.kv, { userId: "@me:x", deviceId: "D", accessToken: "token" });
        await saveNotes(this.kv, { rooms: { [SEALED]: { name: "Garden", sealed: true }, [OPEN]: { name: "Lobby", sealed: false } }, words: WORDS });
        return this;
    }

    page(answer: unknown, focused = false): World["pages"][number] {
        const told: ToPage[] = [];
        const page = { focused, told, answer, ask: (question: ToPage) => (told.push(question), Promise.resolve(answer)), tell: (message: ToPage) => void told.push(message), focus: () => Promise.resolve() };
        this.pages.push(page);
        return page;
    }

    onScreen(roomId: string, eventId: string): World["shown"][number] {
        const one = { roomId, eventId, closed: false, close: () => void (one.closed = true) };
        this.shown.push(one);
        return one;
    }

    get said(): (readonly [string, string])[] {
        return this.showings.map(({ title, body }) => [title, body] as const);
    }
}

let world: World;
beforeEach(async () => void (world = await new World().ready()));
const message = (roomId: string, more: Record<string, unknown> = {}): Record<string, unknown> => ({ room_id: roomId, event_id: "$e", unread: 3, prio: "high", ...more });

describe("a message that is pushed", () => {
    it("is told as an open page says, which has it decrypted", async () => {
        world.page(undefined);
        const page = world.page({ title: "Garden", body: "ada: the peas are in" });
        await world.push.pushed(message(SEALED));
        expect(world.showings).toEqual([{ title: "Garden", body: "ada: the peas are in", roomId: SEALED, eventId: "$e", silent: false, again: true, words: WORDS }]);
        expect(page.told).toEqual([{ type: "describe", roomId: SEALED, eventId: "$e" }]);
        expect(world.badges).toEqual([3]);
        expect(world.requests).toEqual([]);
    });
    it("is not told where somebody looks, or where a page knows that it was read", async () => {
        world.page({ title: "x", body: "y" }, true);
        await world.push.pushed(message(SEALED));
        world.pages.length = 0;
        world.page(null);
        await world.push.pushed(message(SEALED));
        expect(world.showings).toEqual([]);
    });
    it("of an encrypted room is told without its text, and the server is not asked", async () => {
        await world.push.pushed(message(SEALED, { content: { body: "never shown" } }));
        expect(world.said).toEqual([["Garden", "Neue Nachricht in Garden"]]);
        expect(world.requests).toEqual([]);
    });
    it("of a room that is not encrypted is told with its text, if the server gives it", async () => {
        const path = `GET /_matrix/client/v3/rooms/${encodeURIComponent(OPEN)}/event/%24e`;
        world.answers[path] = { sender: "@ada:x", type: "m.room.message", content: { body: "hello" } };
        await world.push.pushed(message(OPEN, { prio: "low" }));
        world.answers[path] = { sender: "@ada:x", type: "m.room.encrypted", content: { ciphertext: "x" } };
        await world.push.pushed(message(OPEN));
        world.online = false;
        await world.push.pushed(message(OPEN));
        expect(world.said).toEqual([["Lobby", "ada: hello"], ["Lobby", "Neue Nachricht in Lobby"], ["Lobby", "Neue Nachricht in Lobby"]]);
        expect(world.showings.map(({ again }) => again)).toEqual([false, true, true]);
        expect(world.requests[0]?.token).toBe("Bearer token");
    });
    it("is told of in some way whatever is known", async () => {
        world = new World();
        await world.push.pushed(message("!other:x"));
        expect(world.said).toEqual([["hubbub", "New message"]]);
        for (const data of [undefined, null, 7, "x", {}, { room_id: 1, event_id: 2 }, { unread: "3" }]) await world.push.pushed(data);
        expect(world.showings.length).toBe(1);
    });
    it("makes no sound in quiet hours", async () => {
        await saveNotes(world.kv, { rooms: {}, words: WORDS, quiet: { from: "22:00", to: "07:00" } });
        for (const [time, silent] of [["21:59", false], ["22:00", true], ["03:00", true], ["06:59", true], ["07:00", false]] as const) {
            world.now = new Date(`2026-05-04T${time}:00`);
            await world.push.pushed(message(SEALED));
            expect(world.showings.at(-1), time).toMatchObject({ silent, again: !silent });
        }
        expect(isQuiet({ from: "09:00", to: "17:00" }, new Date("2026-05-04T12:00:00"))).toBe(true);
        expect(isQuiet({ from: "09:00", to: "09:00" }, new Date("2026-05-04T09:00:00"))).toBe(false);
        expect(isQuiet({ from: "soon", to: "17:00" }, new Date("2026-05-04T12:00:00"))).toBe(false);
    });
});

describe("what was read elsewhere", () => {
    it("goes from the screen: all of it when nothing is unread", async () => {
        const shown = [world.onScreen(SEALED, "$1"), world.onScreen(OPEN, "$2")];
        await world.push.pushed({ unread: 0 });
        expect(shown.map(({ closed }) => closed)).toEqual([true, true]);
        expect([world.badges, world.requests]).toEqual([[0], []]);
    });
    it("goes by what the server says was read", async () => {
        world.answers["GET /_matrix/client/v3/notifications?limit=100"] = { notifications: [{ read: true, event: { event_id: "$1" } }, { read: false, event: { event_id: "$2" } }, {}] };
        const shown = [world.onScreen(SEALED, "$1"), world.onScreen(OPEN, "$2"), world.onScreen(OPEN, "$3")];
        await world.push.pushed({ unread: 2 });
        expect(shown.map(({ closed }) => closed)).toEqual([true, false, false]);
        expect(world.showings).toEqual([]);
    });
});

describe("a notification that is pressed", () => {
    it("opens its room in the page there is, or in a new one", async () => {
        await world.push.pressed("", SEALED, "$e", null);
        expect(world.opened).toEqual([`/#/room/${encodeURIComponent(SEALED)}`]);
        const page = world.page(undefined);
        await world.push.pressed("reply", SEALED, "$e", " "); // where nothing can be typed into it
        expect(page.told).toEqual([{ type: "open", roomId: SEALED }]);
        expect(world.opened.length).toBe(1);
    });
    it("marks as read without a page", async () => {
        await world.push.pressed("read", SEALED, "$e", null);
        expect(world.requests).toEqual([{ method: "POST", path: `/_matrix/client/v3/rooms/${encodeURIComponent(SEALED)}/receipt/m.read/%24e`, body: {}, token: "Bearer token" }]);
        expect(world.opened).toEqual([]);
    });
    it("replies by a page, which can encrypt", async () => {
        world.page(false);
        const page = world.page(true);
        await world.push.pressed("reply", SEALED, "$e", " yes ");
        expect(page.told).toEqual([{ type: "reply", roomId: SEALED, text: "yes" }]);
        expect(world.requests).toEqual([]);
    });
    it("replies without a page: at once where nothing is to be encrypted, else as soon as a page is open", async () => {
        const outbox = new OutboxStore(world.kv, "@me:x");
        await world.push.pressed("reply", OPEN, "$e", "yes");
        expect(world.requests[0]).toMatchObject({ method: "PUT", body: { msgtype: "m.text", body: "yes" } });
        expect(await outbox.messages()).toEqual([]);
        await world.push.pressed("reply", SEALED, "$e", "secretly");
        expect(world.requests.length).toBe(1);
        expect(await outbox.messages()).toMatchObject([{ roomId: SEALED, content: { body: "secretly" } }]);
        world.online = false;
        world.now = new Date(world.now.getTime() + 1);
        await world.push.pressed("reply", OPEN, "$e", "later");
        expect((await outbox.messages()).map(({ content }) => content.body)).toEqual(["secretly", "later"]);
        expect(world.opened).toEqual([SEALED, OPEN].map((id) => `/#/room/${encodeURIComponent(id)}`));
    });
    it("does nothing for who is signed out", async () => {
        world = new World();
        await world.push.pressed("read", SEALED, "$e", null);
        await world.push.pressed("reply", SEALED, "$e", "yes");
        expect([world.requests, world.opened]).toEqual([[], []]);
    });
});

describe("the subscription", () => {
    it("is proved to the server, and pages are told", async () => {
        const page = world.page(undefined);
        await world.push.pushed({ app_id: "chat.hubbub.web", ack_token: "abc" });
        expect(world.requests).toEqual([{ method: "POST", path: "/_matrix/client/unstable/org.matrix.msc4174/pushers/ack", body: { app_id: "chat.hubbub.web", ack_token: "abc" }, token: "Bearer token" }]);
        expect(page.told).toEqual([{ type: "active" }]);
        expect(world.showings).toEqual([]);
    });
    it("is renewed when the browser ends it, and the old pusher goes", async () => {
        const device: DeviceNotes = { on: true, pushkey: "old", vapid: "BKey", eventsOnly: true, deviceName: "hubbub web", lang: "de" };
        await saveDevice(world.kv, device);
        await world.push.renew();
        expect(world.requests.map(({ path, body }) => [path, body])).toEqual([
            ["/_matrix/client/v3/pushers/set", pusherOf(KEYS, device)],
            ["/_matrix/client/v3/pushers/set", { app_id: "chat.hubbub.web", pushkey: "old", kind: null }],
        ]);
        expect(await loadDevice(world.kv)).toEqual({ ...device, pushkey: "new" });
    });
    it("stays off where it was switched off", async () => {
        await saveDevice(world.kv, { on: false, vapid: "BKey" });
        await world.push.renew();
        expect(world.requests).toEqual([]);
    });
});

it("notes that are none are as if there were none", async () => {
    const kv = new MemoryKeyValue();
    await kv.set("push:notes", "x");
    await kv.set("push:device", { on: "yes" });
    expect([await loadNotes(kv), await loadDevice(kv)]).toEqual([undefined, { on: false }]);
});

it("a room notifies of what its rules say", () => {
    const rules = (kind: string, actions: unknown[], more: object = {}): never => ({ global: { [kind]: [{ rule_id: OPEN, actions, enabled: true, ...more }] } }) as never;
    expect(notifyOf(undefined, OPEN)).toBe("all");
    expect(notifyOf(rules("override", []), OPEN)).toBe("none");
    expect(notifyOf(rules("override", ["dont_notify"]), OPEN)).toBe("none");
    expect(notifyOf(rules("override", [], { enabled: false }), OPEN)).toBe("all");
    expect(notifyOf(rules("room", []), OPEN)).toBe("mentions");
    expect(notifyOf(rules("room", ["notify"]), OPEN)).toBe("all");
    expect(notifyOf(rules("room", []), SEALED)).toBe("all");
});

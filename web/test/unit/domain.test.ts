import { describe, expect, it, vi } from "vitest";
import { Auth } from "../../src/domain/auth.ts";
import fold from "../../src/domain/confusables.ts";
import { type Entry, type EventView, GROUP_WINDOW_MS, type Item, previewOf, toEntry, toItems } from "../../src/domain/entries.ts";
import { describeError, ServerError } from "../../src/domain/errors.ts";
import { localpart, serverOf, toUserId, toUserIds } from "../../src/domain/ids.ts";
import { splitLinks } from "../../src/domain/links.ts";
import { byUse, type RoomSummary } from "../../src/domain/rooms.ts";
import { MemoryKeyValue } from "../../src/store/keyvalue.ts";
import { clearSession, loadSession, saveSession } from "../../src/store/session.ts";
import { parseRoute, formatRoute } from "../../src/ui/route.ts";
import { dayName, listTime } from "../../src/ui/time.ts";

describe("splitLinks", () => {
    const links = (text: string): string[] => splitLinks(text).flatMap((s) => s.href ?? []);

    it.each([
        ["see https://a.example/x?y=1#z now", ["https://a.example/x?y=1#z"]],
        ["(https://a.example/x)", ["https://a.example/x"]],
        ["https://a.example/x_(y)", ["https://a.example/x_(y)"]],
        ["https://a.example/x. And", ["https://a.example/x"]],
        ["*https://a.example*", ["https://a.example/"]],
        ["www.a.example/x", ["https://www.a.example/x"]],
        ["http://localhost:8080/a", ["http://localhost:8080/a"]],
        ["https://a.example https://b.example", ["https://a.example/", "https://b.example/"]],
        ["HTTPS://A.EXAMPLE/Ü", ["https://a.example/%C3%9C"]],
    ])("finds the addresses in %j", (text, expected) => {
        expect(links(text)).toEqual(expected);
    });

    it.each([
        "javascript:alert(1)",
        "data:text/html,<script>alert(1)</script>",
        "https://user:pass@evil.example",
        "https://good.example@evil.example",
        "https://",
        "https://word",
        "www.",
        "xhttps://a.example",
        "https://a.example".padEnd(3000, "x"),
    ])("makes no link of %j", (text) => {
        expect(links(text)).toEqual([]);
    });

    it("keeps every character, in order", () => {
        for (const text of ["", "a", "<b>https://a.example</b>", "x https://a.example/\u202egnp.exe y", 'https://a.example/"onclick="x', "\n https://a.example \n"]) {
            expect(splitLinks(text).map((s) => s.text).join("")).toBe(text);
        }
    });

    it("stops an address at what may not be in one", () => {
        expect(links('https://a.example/"onclick="x')).toEqual(["https://a.example/"]);
        expect(links("https://a.example/x\u202egnp.exe")).toEqual(["https://a.example/x"]);
    });

    it("comes to an end with hostile text", () => {
        for (const text of [`https://a.example/${"(".repeat(1000)}${")".repeat(20_000)}`, " www.".repeat(10_000), "https://".repeat(10_000), `https://a.example/${"!".repeat(50_000)}`]) {
            expect(splitLinks(text).map((s) => s.text).join("")).toBe(text);
        }
    });
});

describe("describeError", () => {
    const server = (status: number, errcode: string, more = {}): ServerError => new ServerError(status, { errcode, error: "the server's words", ...more });

    it.each([
        [server(400, "M_WEAK_PASSWORD"), "sign-up", "That password is too weak."],
        [server(400, "M_USER_IN_USE"), "sign-up", "That name is already taken."],
        [server(429, "M_LIMIT_EXCEEDED", { retry_after_ms: 2500 }), "sign-in", "Try again in 3 seconds."],
        [server(429, "M_LIMIT_EXCEEDED", { retry_after_ms: 1000 }), "sign-in", "Try again in a second."],
        [server(429, "M_LIMIT_EXCEEDED", { retry_after_ms: 600_000 }), "sign-in", "Try again in 10 minutes."],
        [server(429, "M_LIMIT_EXCEEDED"), "sign-in", "Wait a moment"],
        [server(403, "M_FORBIDDEN"), "sign-in", "The name or the password is not right."],
        [server(403, "M_FORBIDDEN"), "other", "the server's words."],
        [server(403, "M_SOMETHING"), "other", "the server's words."],
        [server(403, "M_INVITE_BLOCKED"), "other", "Somebody you want to invite accepts no invitations."],
        [server(403, "constructor"), "other", "the server's words."],
        [server(500, ""), "other", "The server has a problem of its own."],
        [new TypeError("fetch failed"), "other", "The server cannot be reached."],
        [Object.assign(new Error("x"), { name: "ConnectionError" }), "other", "The server cannot be reached."],
        [undefined, "other", "Something went wrong."],
    ] as const)("puts %o at %s into words", (error, doing, expected) => {
        expect(describeError(error, doing)).toContain(expected);
    });
});

describe("user IDs", () => {
    it.each([
        ["bob", "@bob:example.org"],
        ["@bob", "@bob:example.org"],
        [" @Bob:example.org ", "@bob:example.org"],
        ["bob:other.example", undefined],
        ["bo b", undefined],
        ["", undefined],
        ["@", undefined],
        ["böb", undefined],
        ["x".repeat(255), undefined],
    ])("reads %j", (typed, expected) => {
        expect(toUserId(typed, "example.org")).toBe(expected);
    });

    it("reads lists, and says what it cannot read", () => {
        expect(toUserIds("bob, @carol:example.org;bob\nd%d", "example.org")).toEqual({ ids: ["@bob:example.org", "@carol:example.org"], invalid: ["d%d"] });
    });

    it("takes an ID apart", () => {
        expect(localpart("@bob:localhost:8008")).toBe("bob");
        expect(serverOf("@bob:localhost:8008")).toBe("localhost:8008");
    });

    it("folds look-alikes", () => {
        expect(fold("раураl")).toBe(fold("paypal"));
        expect(fold("ａdmin")).toBe(fold("admin"));
        expect(fold("alice")).not.toBe(fold("bob"));
    });
});

interface Fake {
    id?: string;
    txn?: string;
    type?: string;
    sender?: string;
    key?: string;
    ts?: number;
    content?: Record<string, unknown>;
    prev?: Record<string, unknown>;
    redacted?: boolean;
    status?: string | null;
    replacedBy?: string;
    /** What came with the event about the change, and whether the change came as an event too. */
    bundled?: Record<string, unknown>;
    replacing?: unknown;
}
let nextId = 0;
function event(fake: Fake): EventView {
    const id = fake.id ?? `$${nextId++}`;
    return {
        getId: () => id,
        getTxnId: () => fake.txn,
        getType: () => fake.type ?? "m.room.message",
        getSender: () => fake.sender ?? "@bob:x",
        getStateKey: () => fake.key,
        getTs: () => fake.ts ?? 0,
        getContent: () => fake.content ?? { msgtype: "m.text", body: "hello" },
        getPrevContent: () => fake.prev ?? {},
        getUnsigned: () => (fake.bundled ? ({ "m.relations": { "m.replace": { content: fake.bundled } } } as object) : {}),
        isRedacted: () => fake.redacted ?? false,
        replacingEventId: () => fake.replacedBy,
        replacingEvent: () => fake.replacing,
        status: fake.status ?? null,
    };
}
const people = { me: "@ada:x", nameOf: (id: string) => localpart(id) };
const entry = (fake: Fake): Entry | undefined => toEntry(event(fake), people);
const member = (membership: string, from: string | undefined, fake: Fake = {}): string | undefined =>
    entry({ type: "m.room.member", key: "@carol:x", sender: "@carol:x", content: { membership }, prev: from ? { membership: from } : {}, ...fake })?.text;

describe("toEntry", () => {
    it("shows what was said, as text", () => {
        expect(entry({ content: { msgtype: "m.text", body: "<b>hi</b>", formatted_body: "<img src=x>" } })).toMatchObject({ kind: "message", text: "<b>hi</b>", style: "text", own: false, senderName: "bob" });
        expect(entry({ sender: "@ada:x" })).toMatchObject({ own: true });
        expect(entry({ content: { msgtype: "m.image", body: "cat.jpg", url: "mxc://x/y" } })).toMatchObject({ text: "Picture: cat.jpg", style: "file" });
        expect(entry({ type: "m.room.encrypted", content: {} })).toMatchObject({ style: "locked" });
        expect(entry({ redacted: true, content: {} })).toMatchObject({ style: "removed" });
        expect(entry({ replacedBy: "$2" })).toMatchObject({ edited: true });
        const bundled = { "m.new_content": { msgtype: "m.text", body: "changed" } };
        expect(entry({ replacedBy: "$2", bundled })).toMatchObject({ edited: true, text: "changed" });
        expect(entry({ replacedBy: "$3", bundled, replacing: {} })).toMatchObject({ text: "hello" }); // a later change, which the SDK shows
        expect(entry({ replacedBy: "$2", bundled, redacted: true })).toMatchObject({ style: "removed" });
        expect(entry({ bundled: { "m.new_content": "odd" } })).toMatchObject({ text: "hello" });
    });

    it.each([
        ["an empty message", { content: {} }],
        ["a body that is no text", { content: { msgtype: "m.text", body: { a: 1 } } }],
        ["a message type that is no text", { content: { msgtype: ["m.text"], body: "" } }],
        ["an edit", { content: { msgtype: "m.text", body: "* x", "m.relates_to": { rel_type: "m.replace", event_id: "$1" } } }],
        ["a reaction", { type: "m.reaction" }],
        ["power levels", { type: "m.room.power_levels", key: "" }],
        ["a redacted name", { type: "m.room.name", key: "", redacted: true, content: { name: "x" } }],
        ["state of an odd name", { type: "constructor", key: "" }],
    ])("does not show %s", (_name, fake) => {
        expect(entry(fake)).toBeUndefined();
    });

    it("survives a relation that is none", () => {
        expect(entry({ content: { msgtype: "m.text", body: "x", "m.relates_to": null } })).toBeDefined();
        expect(entry({ content: { msgtype: "toString", body: "x" } })).toMatchObject({ style: "text" });
    });

    it("keeps its key when the event gets its ID", () => {
        const before = entry({ id: "~!r:t1", txn: "t1", status: "sending" });
        const after = entry({ id: "$1", txn: "t1", status: null });
        expect(before!.key).toBe(after!.key);
        expect(before).toMatchObject({ delivery: "sending", eventId: undefined });
        expect(after).toMatchObject({ delivery: "sent", eventId: "$1" });
        expect(entry({ status: "not_sent" })).toMatchObject({ delivery: "failed" });
    });

    it.each([
        ["invite", undefined, { sender: "@bob:x" }, "bob invited carol"],
        ["invite", "invite", { sender: "@bob:x" }, undefined],
        ["join", "invite", {}, "carol joined"],
        ["join", undefined, {}, "carol joined"],
        ["join", "join", {}, undefined],
        ["join", "join", { content: { membership: "join", displayname: "Caro" } }, "carol is now called Caro"],
        ["leave", "join", {}, "carol left"],
        ["leave", "join", { sender: "@bob:x" }, "bob removed carol"],
        ["leave", "invite", {}, "carol declined the invitation"],
        ["leave", "invite", { sender: "@bob:x" }, "bob took back the invitation of carol"],
        ["leave", "ban", { sender: "@bob:x" }, "bob lifted the ban of carol"],
        ["leave", undefined, {}, undefined],
        ["ban", "join", { sender: "@bob:x" }, "bob banned carol"],
        ["knock", undefined, {}, "carol asks to join"],
        ["nonsense", "join", {}, undefined],
    ] as const)("says what %s after %s means", (to, from, fake, expected) => {
        expect(member(to, from, fake)).toBe(expected);
    });
});

describe("toItems", () => {
    const dayOf = (ts: number): string => String(Math.floor(ts / 86_400_000));
    const message = (ts: number, sender = "@bob:x"): Entry => entry({ ts, sender })!;
    const shape = (items: Item[]): string[] => items.map((i) => (i.kind === "group" ? `${i.senderName}:${i.messages.length}` : i.kind === "notice" ? i.text : "day"));

    it("groups by day, by person and by time", () => {
        const later = 86_400_000;
        const entries = [message(0), message(1000), message(2000, "@carol:x"), message(3000), message(3000 + GROUP_WINDOW_MS + 1), message(later)];
        expect(shape(toItems(entries, dayOf))).toEqual(["day", "bob:2", "carol:1", "bob:1", "bob:1", "day", "bob:1"]);
    });

    it("gives unique keys that do not change when more is added at the end", () => {
        const entries = [message(0), message(1000), message(2000, "@carol:x"), message(90_000_000)];
        const keys = toItems(entries, dayOf).map((i) => i.key);
        expect(new Set(keys).size).toBe(keys.length);
        expect(toItems([...entries, message(90_000_001)], dayOf).map((i) => i.key)).toEqual(keys);
    });

    it("puts notices together that say the same of several people", () => {
        const notice = (sender: string, key: string, membership: string): Entry => entry({ type: "m.room.member", sender, key, content: { membership } })!;
        const entries = [
            entry({ type: "m.room.create", key: "", sender: "@ada:x", content: {} })!,
            notice("@ada:x", "@ada:x", "join"),
            notice("@ada:x", "@bob:x", "invite"),
            notice("@ada:x", "@carol:x", "invite"),
            notice("@bob:x", "@dave:x", "invite"),
            notice("@bob:x", "@bob:x", "join"),
            notice("@carol:x", "@carol:x", "join"),
            notice("@dave:x", "@dave:x", "join"),
        ];
        expect(shape(toItems(entries, dayOf))).toEqual(["day", "ada created this room", "ada invited bob and carol", "bob invited dave", "bob, carol, and dave joined"]);
    });

    it("does not change the entries it is given", () => {
        const entries = [message(0), message(1)];
        const before = JSON.stringify(entries);
        toItems(entries, dayOf);
        toItems(entries, dayOf);
        expect(JSON.stringify(entries)).toBe(before);
    });
});

describe("the room list", () => {
    const room = (id: string, ts: number, kind: "join" | "invite" = "join"): RoomSummary => ({ id, ts, kind, name: id, avatar: undefined, colouredAs: id, direct: false, preview: "", unread: 0, mentions: 0, inviter: undefined, encrypted: false, favourite: false, space: false, children: [], members: 2 });

    it("has invitations first, then the newest", () => {
        const rooms = [room("!a", 1), room("!b", 3), room("!c", 2, "invite"), room("!d", 3)];
        expect(rooms.sort(byUse).map((r) => r.id)).toEqual(["!c", "!b", "!d", "!a"]);
    });

    it("previews in one line", () => {
        expect(previewOf(entry({ content: { msgtype: "m.text", body: "a\n b" } })!, false)).toBe("bob: a b");
        expect(previewOf(entry({})!, true)).toBe("hello");
        expect(previewOf(entry({ sender: "@ada:x" })!, false)).toBe("You: hello");
        expect(previewOf(entry({ content: { msgtype: "m.emote", body: "waves" } })!, true)).toBe("bob waves");
        expect(previewOf(entry({ sender: "@ada:x", status: "not_sent" })!, true)).toBe("Not sent: hello");
    });
});

describe("Auth", () => {
    const SESSION = { user_id: "@ada:x", device_id: "D", access_token: "T" };
    const flows = (...stages: string[][]): object => ({ session: "S", params: {}, flows: stages.map((s) => ({ stages: s })) });
    const form = { username: "ada", password: "pw", token: "" };

    function server(...answers: [number, object][]): { auth: Auth; bodies: Record<string, unknown>[] } {
        const bodies: Record<string, unknown>[] = [];
        const fetch = vi.fn(async (_url: RequestInfo | URL, init?: RequestInit) => {
            bodies.push(JSON.parse((init?.body as string | undefined) ?? "{}") as Record<string, unknown>);
            const [status, body] = answers.shift()!;
            return Response.json(body, { status });
        });
        return { auth: new Auth(fetch, "https://x"), bodies };
    }

    it.each([
        ["the plain flow", [401, flows(["m.login.dummy"])], { kind: "open", needsToken: false, offersToken: false }],
        ["a token", [401, flows(["m.login.registration_token"])], { kind: "open", needsToken: true, offersToken: true }],
        ["a choice", [401, flows(["m.login.dummy"], ["m.login.registration_token"])], { kind: "open", needsToken: false, offersToken: true }],
        ["nothing we know", [401, flows(["m.login.recaptcha"])], { kind: "closed" }],
        ["nothing at all", [401, {}], { kind: "closed" }],
        ["closed registration", [403, { errcode: "M_FORBIDDEN", error: "Closed" }], { kind: "closed", reason: "Closed" }],
    ])("reads from the server's question: %s", async (_name, answer, expected) => {
        const { auth } = server(answer as [number, object]);
        expect(await auth.signUpForm()).toMatchObject(expected);
    });

    it("answers the dummy stage", async () => {
        const { auth, bodies } = server([401, flows(["m.login.dummy"])], [200, SESSION]);
        expect(await auth.signUp(form)).toEqual({ userId: "@ada:x", deviceId: "D", accessToken: "T" });
        expect(bodies[1]).toMatchObject({ username: "ada", password: "pw", auth: { type: "m.login.dummy", session: "S" } });
    });

    it("goes through several stages, and prefers the flow that takes the token", async () => {
        const both = flows(["m.login.dummy"], ["m.login.registration_token", "m.login.dummy"]);
        const { auth, bodies } = server([401, both], [401, { ...both, completed: ["m.login.registration_token"] }], [200, SESSION]);
        await auth.signUp({ ...form, token: "tok" });
        expect(bodies[1]!.auth).toEqual({ type: "m.login.registration_token", session: "S", token: "tok" });
        expect(bodies[2]!.auth).toEqual({ type: "m.login.dummy", session: "S" });
    });

    it("says that the token is not valid, and asks for one where it must", async () => {
        const question = flows(["m.login.registration_token"]);
        const wrong = server([401, question], [401, { ...question, completed: [], errcode: "M_UNAUTHORIZED" }]);
        await expect(wrong.auth.signUp({ ...form, token: "bad" })).rejects.toThrow(/token is not valid/);
        const none = server([401, question]);
        await expect(none.auth.signUp(form)).rejects.toThrow(/asks for a registration token/);
    });

    it("does not ask for ever", async () => {
        const question = flows(["m.login.dummy"]);
        const { auth } = server([401, question], [401, { ...question, completed: ["m.login.dummy"] }]);
        await expect(auth.signUp(form)).rejects.toBeInstanceOf(ServerError);
    });

    it("passes on what the server says", async () => {
        const { auth } = server([400, { errcode: "M_USER_IN_USE", error: "Taken" }]);
        await expect(auth.signUp(form)).rejects.toMatchObject({ errcode: "M_USER_IN_USE", httpStatus: 400 });
        const limited = server([429, { errcode: "M_LIMIT_EXCEEDED", retry_after_ms: 2000 }]);
        await expect(limited.auth.signIn("ada", "pw")).rejects.toMatchObject({ data: { retry_after_ms: 2000 } });
        const broken = server([200, { user_id: "@ada:x" }]);
        await expect(broken.auth.signIn("ada", "pw")).rejects.toBeInstanceOf(ServerError);
    });

    it("reads what the server says of itself, and bears what it does not say", async () => {
        const { auth } = server([200, { server_name: "x", version: "1", registration: "open", test_mode: true }], [200, {}]);
        expect(await auth.info()).toEqual({ serverName: "x", version: "1", registration: "open", testMode: true });
        expect(await auth.info()).toEqual({ serverName: "", version: "", registration: "token", testMode: false });
    });
});

describe("the stored session", () => {
    it("comes back as it was, and not if it is not whole", async () => {
        const kv = new MemoryKeyValue();
        expect(await loadSession(kv)).toBeUndefined();
        const session = { userId: "@a:x", deviceId: "D", accessToken: "T" };
        await saveSession(kv, session);
        expect(await loadSession(kv)).toEqual(session);
        for (const broken of [null, "x", { userId: "@a:x" }, { ...session, accessToken: "" }, { ...session, deviceId: 1 }]) {
            await kv.set("session", broken);
            expect(await loadSession(kv)).toBeUndefined();
        }
        await clearSession(kv);
        expect(await loadSession(kv)).toBeUndefined();
    });
});

describe("addresses in the app", () => {
    it.each([
        ["", { page: "rooms" }],
        ["#/", { page: "rooms" }],
        ["#/room/!a%3Ax", { page: "room", roomId: "!a:x" }],
        ["#/room/%E0%A4%A", { page: "rooms" }],
        ["#/room/", { page: "rooms" }],
        ["#/signup?token=a%2Bb", { page: "signup", token: "a+b" }],
        ["#/signup", { page: "signup", token: "" }],
        ["#/signin", { page: "signin" }],
        ["#/elsewhere", { page: "rooms" }],
    ])("reads %s", (hash, expected) => {
        expect(parseRoute(hash)).toEqual(expected);
    });

    it("writes what it reads, but no token", () => {
        expect(parseRoute(formatRoute({ page: "room", roomId: "!ä/b?c#d:x" }))).toEqual({ page: "room", roomId: "!ä/b?c#d:x" });
        expect(formatRoute({ page: "signup", token: "secret" })).not.toContain("secret");
    });
});

describe("times", () => {
    const now = new Date(2026, 10, 23, 12).getTime();
    const at = (day: number, hour = 10): number => new Date(2026, 10, day, hour).getTime();

    it("names days", () => {
        expect(dayName(at(23), now)).toBe("Today");
        expect(dayName(at(22, 23), now)).toBe("Yesterday");
        expect(dayName(at(20), now)).toBe("Friday");
        expect(dayName(at(1), now)).toMatch(/November/);
        expect(dayName(new Date(2024, 1, 1).getTime(), now)).toMatch(/2024/);
    });

    it("is short in lists", () => {
        expect(listTime(0, now)).toBe("");
        expect(listTime(at(23), now)).toMatch(/10/);
        expect(listTime(at(20), now)).toBe("Fri");
        expect(listTime(at(1), now)).toMatch(/Nov/);
    });
});

/** Preferences from an account that may hold anything, and what the service worker touches. */
import { afterEach, describe, expect, it, vi } from "vitest";
import { Known } from "../../src/domain/known.ts";
import { DEFAULTS, PREFERENCES_TYPE, readPreferences } from "../../src/domain/preferences.ts";
import { PreferencesStore } from "../../src/domain/preferencestore.ts";
import { MemoryKeyValue } from "../../src/store/keyvalue.ts";
import { keptUnder, routeOf } from "../../src/sw/rules.ts";

describe("preferences", () => {
    it("are what is understood of what is there", () => {
        expect(readPreferences({ theme: "dark", density: "compact", language: "de", previews: "all", other: 1, quiet: { on: true, from: "21:30", to: "9" } })).toEqual({ theme: "dark", accent: "green", density: "compact", language: "de", previews: "all", quiet: { on: true, from: "21:30", to: "07:00" }, shortcuts: "on" });
        for (const content of [undefined, null, "dark", { theme: "__proto__", density: 5, language: "constructor", previews: true, quiet: "all day" }]) expect(readPreferences(content)).toEqual(DEFAULTS);
    });
});

describe("the service worker", () => {
    const way = (path: string, method = "GET", navigation = false): string => routeOf(method, new URL(path, "https://chat.example"), "https://chat.example", navigation);
    it("keeps the app's own files and the page", () => {
        expect(way("/assets/index-abc.js")).toBe("file");
        expect(way("/manifest.webmanifest")).toBe("file");
        expect(way("/", "GET", true)).toBe("page");
        expect(way("/some/path", "GET", true)).toBe("page");
    });
    it("never touches the API, other hosts, or itself", () => {
        for (const path of ["/_matrix/client/v3/sync", "/_matrix/client/v1/media/download/x/y", "/_hubbub/v1/info", "/sw.js", "https://evil.example/assets/x.js", "/.well-known/matrix/client"]) {
            expect(way(path)).toBe("network");
            expect(way(path, "GET", true)).toBe("network");
        }
        expect(way("/assets/index-abc.js", "POST")).toBe("network");
    });
    it("throws away all builds but the one before", () => {
        expect(keptUnder(["hubbub-files-3", "other", "hubbub-files-1", "hubbub-files-2"])).toEqual(["hubbub-files-1", "hubbub-files-2"]);
        expect(keptUnder([])).toEqual([]);
    });
});

describe("without a network", () => {
    const authorized = { headers: { Authorization: "Bearer x" } };
    const broken = (): Promise<Response> => Promise.reject(new TypeError("Failed to fetch"));
    it("what the server said last is known, and nothing else is made up", async () => {
        const kv = new MemoryKeyValue();
        const online = (await Known.load(kv, "@a:x")).around((address) => Promise.resolve(new Response(JSON.stringify({ from: String(address) }))));
        await online("https://x/_matrix/client/v3/pushrules/", authorized);
        await online("https://x/_matrix/client/v3/user/@a:x/filter", { method: "POST", body: "{}", ...authorized });
        await online("https://x/_matrix/client/v3/sync", authorized);
        const known = await Known.load(kv, "@a:x");
        const offline = known.around(broken);
        expect(await (await offline("https://x/_matrix/client/versions", authorized)).json()).toEqual({ versions: ["v1.1", "v1.11"] });
        expect(await (await offline("https://x/_matrix/client/v3/pushrules/", authorized)).json()).toEqual({ from: "https://x/_matrix/client/v3/pushrules/" });
        expect((await offline("https://x/_matrix/client/v3/user/@a:x/filter", { method: "POST", body: "{}" })).ok).toBe(true);
        for (const [address, init] of [
            ["https://x/_matrix/client/v3/sync", authorized],
            ["https://x/_matrix/client/v3/user/@a:x/filter", { method: "POST", body: "another" }],
            ["https://x/_matrix/client/versions", {}], // by which the SDK finds out whether the server is there again
        ] as const) {
            await expect(offline(address, init)).rejects.toThrow("Failed to fetch");
        }
        known.rulesAre({ global: {} });
        expect(await (await (await Known.load(kv, "@a:x")).around(broken)("https://x/_matrix/client/v3/pushrules/")).json()).toEqual({ global: {} });
        await expect((await Known.load(kv, "@b:x")).around(broken)("https://x/_matrix/client/v3/pushrules/")).rejects.toThrow();
    });
    it("what the server answers is what is told, and a refusal is not remembered", async () => {
        const kv = new MemoryKeyValue();
        const refused = (await Known.load(kv, "@a:x")).around(() => Promise.resolve(new Response("{}", { status: 401 })));
        expect((await refused("https://x/_matrix/client/versions", authorized)).status).toBe(401);
        expect(await kv.list("known:")).toEqual([]);
    });
});

describe("preferences in the account", () => {
    /** An account whose server answers when it is told to. */
    class Account {
        content: Record<string, unknown> | undefined;
        readonly puts: { content: Record<string, unknown>; done: () => void; fail: () => void }[] = [];
        private told: ((event: { getType(): string }) => void) | undefined;
        readonly store: PreferencesStore;

        constructor() {
            this.store = new PreferencesStore({
                on: (_: unknown, told: Account["told"]) => (this.told = told),
                getAccountData: () => (this.content ? { getContent: () => this.content } : undefined),
                setAccountDataRaw: (_: string, content: Record<string, unknown>) => new Promise<void>((done, fail) => this.puts.push({ content, done, fail: () => fail(new Error("no network")) })),
            } as never);
        }

        arrives(content: Record<string, unknown>): void {
            this.content = content;
            this.told?.({ getType: () => PREFERENCES_TYPE });
        }
    }
    afterEach(() => vi.useRealTimers());

    it("are written one after another, and not undone by an older change that comes back late", async () => {
        const account = new Account();
        const { store, puts } = account;
        store.change({ theme: "dark" });
        store.change({ density: "compact" });
        expect(puts.length).toBe(1);
        account.arrives(puts[0]!.content);
        expect(store.current.value).toMatchObject({ theme: "dark", density: "compact" });
        puts[0]!.done();
        await vi.waitFor(() => expect(puts[1]?.content).toMatchObject({ theme: "dark", density: "compact" }));
        store.change({ language: "de" });
        account.arrives(puts[1]!.content);
        puts[1]!.done();
        await vi.waitFor(() => expect(puts.length).toBe(3));
        account.arrives(puts[2]!.content);
        puts[2]!.done();
        expect(store.current.value).toMatchObject({ theme: "dark", density: "compact", language: "de" });
        account.arrives({ theme: "light", later: 1 }); // another device
        expect(store.current.value).toMatchObject({ theme: "light", density: "comfortable", language: "system" });
        await vi.waitFor(() => {
            store.change({ density: "compact" });
            expect(puts[3]?.content).toMatchObject({ theme: "light", density: "compact", later: 1 });
        });
    });
    it("are those of another device that was the last to say something", async () => {
        vi.useFakeTimers();
        const account = new Account();
        account.store.change({ theme: "dark" });
        account.arrives({ theme: "light" }); // the sync tells the last state alone
        expect(account.store.current.value?.theme).toBe("dark");
        account.puts[0]!.done();
        await vi.advanceTimersByTimeAsync(2_000);
        expect(account.store.current.value?.theme).toBe("light");
    });
    it("hold on this device where the server is not reached", async () => {
        const account = new Account();
        account.store.change({ theme: "dark" });
        account.puts[0]!.fail();
        await Promise.resolve();
        expect(account.store.current.value?.theme).toBe("dark");
        await vi.waitFor(() => {
            account.arrives({ theme: "light" });
            expect(account.store.current.value?.theme).toBe("light");
        });
    });
});

/** Preferences from an account that may hold anything, and what the service worker touches. */
import { describe, expect, it } from "vitest";
import { versionsKnown } from "../../src/domain/client.ts";
import { DEFAULTS, readPreferences } from "../../src/domain/preferences.ts";
import { keptUnder, routeOf } from "../../src/sw/rules.ts";

describe("preferences", () => {
    it("are what is understood of what is there", () => {
        expect(readPreferences({ theme: "dark", density: "compact", language: "de", other: 1 })).toEqual({ theme: "dark", density: "compact", language: "de" });
        for (const content of [undefined, null, "dark", { theme: "__proto__", density: 5, language: "constructor" }]) expect(readPreferences(content)).toEqual(DEFAULTS);
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
    const broken = versionsKnown(() => Promise.reject(new TypeError("Failed to fetch")));
    it("the server's versions are known, and nothing else is made up", async () => {
        expect(await (await broken("https://x/_matrix/client/versions")).json()).toEqual({ versions: ["v1.1", "v1.11"] });
        await expect(broken("https://x/_matrix/client/v3/sync")).rejects.toThrow("Failed to fetch");
    });
    it("what the server answers is what is told", async () => {
        const answer = new Response("{}");
        expect(await versionsKnown(() => Promise.resolve(answer))("https://x/_matrix/client/versions")).toBe(answer);
    });
});

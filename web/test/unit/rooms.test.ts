/** Roles, search, and what cannot be decrypted. */
import { describe, expect, it } from "vitest";
import { type EventView, toEntry } from "../../src/domain/entries.ts";
import { roleOf, rolesToGive } from "../../src/domain/roomsettings.ts";
import { holds } from "../../src/domain/search.ts";

describe("roles", () => {
    it("are what every client calls these levels", () => {
        expect([0, 49, 50, 99, 100, 1000].map(roleOf)).toEqual(["member", "member", "moderator", "moderator", "owner", "owner"]);
    });
    it.each([
        [100, 0, false, ["owner", "moderator", "member"]],
        [100, 100, false, []], // nobody lowers whoever stands beside
        [100, 100, true, ["owner", "moderator", "member"]], // but oneself
        [50, 0, false, []], // 100 is needed
        [0, 0, true, []],
    ])("of level %s may be given to level %s (self: %s): %s", (own, theirs, self, roles) => {
        expect(rolesToGive(own, theirs, self, 100)).toEqual(roles);
    });
    it("above one's own are not to be given", () => {
        expect(rolesToGive(50, 0, false, 50)).toEqual(["moderator", "member"]);
    });
});

it("words are found wherever they are, in whatever case and with whatever accents", () => {
    expect(holds("Die Schubkarre ist repariert", "KARRE repar")).toBe(true);
    expect(holds("Café au lait", "cafe")).toBe(true);
    expect(holds("Café au lait", "cafe tea")).toBe(false);
});

describe("encrypted messages", () => {
    const event = (type: string, content: Record<string, unknown>, failed: boolean): EventView => ({
        getId: () => "$1", getTxnId: () => undefined, getType: () => type, getSender: () => "@a:x", getStateKey: () => undefined, getTs: () => 1, getContent: () => content,
        getPrevContent: () => ({}), getUnsigned: () => ({}), isRedacted: () => false, replacingEventId: () => undefined, status: null, isDecryptionFailure: () => failed,
    }); // prettier-ignore
    const people = { me: "@me:x", nameOf: () => "A" };
    it("say calmly that they cannot be read, and not what the SDK says", () => {
        const failed = event("m.room.message", { msgtype: "m.bad.encrypted", body: "** Unable to decrypt: OlmError **" }, true);
        expect(toEntry(failed, people)).toMatchObject({ style: "locked", text: "This message cannot be read on this device." });
        expect(toEntry(event("m.room.encrypted", {}, false), people)).toMatchObject({ style: "locked", text: "Decrypting…" });
        expect(toEntry(event("m.room.message", { msgtype: "m.text", body: "clear" }, false), people)).toMatchObject({ style: "text", text: "clear" });
    });
});

/** Keys that work from anywhere: which press means what, and where a step leads. */
import { describe, expect, it } from "vitest";
import { type Press, shortcutOf, stepFrom } from "../../src/domain/shortcuts.ts";

const press = (key: string, held: Partial<Press> = {}): Press => ({ key, altKey: false, shiftKey: false, ctrlKey: false, metaKey: false, ...held });

describe("a press of keys", () => {
    it("means what is held with it", () => {
        expect(shortcutOf(press("k", { ctrlKey: true }))).toBe("search");
        expect(shortcutOf(press("K", { metaKey: true }))).toBe("search");
        expect(shortcutOf(press("ArrowDown", { altKey: true }))).toBe("next");
        expect(shortcutOf(press("ArrowDown", { altKey: true, shiftKey: true }))).toBe("unread");
        expect(shortcutOf(press("ArrowUp", { altKey: true }))).toBe("previous");
        expect(shortcutOf(press("/", { ctrlKey: true, shiftKey: true }))).toBe("help");
    });
    it("means nothing where letters are written or other programs listen", () => {
        for (const other of [press("k"), press("k", { shiftKey: true }), press("k", { ctrlKey: true, altKey: true }), press("k", { ctrlKey: true, metaKey: true }), press("/"), press("ArrowDown"), press("ArrowUp", { altKey: true, shiftKey: true }), press("ArrowDown", { ctrlKey: true })]) expect(shortcutOf(other)).toBeUndefined();
    });
});

describe("a step", () => {
    const rooms = [
        { id: "a", unread: 0 },
        { id: "b", unread: 0 },
        { id: "c", unread: 2 },
    ];
    it("goes round the ends of the list", () => {
        expect(stepFrom(rooms, "a", "next")).toBe("b");
        expect(stepFrom(rooms, "c", "next")).toBe("a");
        expect(stepFrom(rooms, "a", "previous")).toBe("c");
        expect(stepFrom(rooms, "b", "previous")).toBe("a");
    });
    it("begins at the top where no conversation is open", () => {
        expect(stepFrom(rooms, undefined, "next")).toBe("a");
        expect(stepFrom(rooms, undefined, "previous")).toBe("a");
    });
    it("finds what is unread, and nothing if nothing is", () => {
        expect(stepFrom(rooms, "a", "unread")).toBe("c");
        expect(stepFrom(rooms, "c", "unread")).toBeUndefined();
        expect(stepFrom([], undefined, "next")).toBeUndefined();
        expect(stepFrom([{ id: "a", unread: 0 }], "a", "next")).toBeUndefined();
    });
});

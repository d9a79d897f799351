/** Emoji by their names, in the tables that the build makes. */
import { afterEach, describe, expect, it } from "vitest";
import { emojisLike, loadEmojis, readTable } from "../../src/domain/emojis.ts";
import { setLanguage } from "../../src/domain/i18n.ts";

afterEach(() => setLanguage("en"));

describe("emoji", () => {
    it("are found by name and by other words, the best first", () => {
        const table = readTable("😿\tcrying cat\tsad\n🐈\tcat\tpet\n🐱\tcat face\n🦁\tlion\tcat");
        expect(emojisLike(table, "cat").map(({ symbol }) => symbol)).toEqual(["🐈", "🦁", "🐱", "😿"]);
        expect(emojisLike(table, "cat_f").map(({ symbol }) => symbol)).toEqual(["🐱"]);
        expect(emojisLike(table, "dog")).toEqual([]);
        expect(emojisLike(table, "c", 1)).toHaveLength(1);
    });
    it.each([["en", "thumbs up", "👍"], ["de", "daumen hoch", "👍"], ["es", "pulgar", "👍"], ["zh", "拇指", "👍"], ["ar", "thumbs up", "👍"]] as const)("have names in %s", async (language, typed, symbol) => {
        await setLanguage(language);
        const table = await loadEmojis();
        expect(table.length).toBeGreaterThan(1500);
        expect(emojisLike(table, typed).some((emoji) => emoji.symbol.startsWith(symbol))).toBe(true);
    });
});

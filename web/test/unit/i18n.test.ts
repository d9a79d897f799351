/** That no language lacks a word, and that none is said past the tables. */
import { readdirSync, readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import { pickLanguage, setLanguage, t } from "../../src/domain/i18n.ts";
import german from "../../src/domain/words.de.ts";

const SRC = resolve(import.meta.dirname, "../../src");
const files = readdirSync(SRC, { recursive: true, encoding: "utf8" }).filter((name) => /\.tsx?$/.test(name) && !name.includes("words."));
const text = (name: string): string => readFileSync(join(SRC, name), "utf8");
const unescape = (literal: string): string => JSON.parse(`"${literal}"`) as string;

/** The words in calls of t, and those in tables whose values go through it. */
function wordsIn(name: string): string[] {
    const patterns = [/\b(?:t|listed)\(\s*"((?:[^"\\]|\\.)*)"/g];
    if (name.endsWith("errors.ts")) patterns.push(/^\s+M_\w+: "([^"]+)"/gm);
    if (name.endsWith("entries.ts")) patterns.push(/"m\.\w+": "(\w+)"/g, /FILES\[\w+\] \?\? "(\w+)"/g);
    return patterns.flatMap((pattern) => [...text(name).matchAll(pattern)].map((match) => unescape(match[1]!)));
}

const used = new Set(files.flatMap(wordsIn));

describe("German", () => {
    it("has a word for each English one, and for no other", () => {
        expect(used.size).toBeGreaterThan(200);
        expect([...used].filter((word) => !Object.hasOwn(german, word))).toEqual([]);
        expect(Object.keys(german).filter((word) => !used.has(word))).toEqual([]);
    });
    it.each(Object.entries(german))("says with the same values: %s", (english, translated) => {
        const values = (words: string): string[] => [...new Set(words.match(/\{\w+\}/g))].sort();
        expect(values(translated)).toEqual(values(english));
        expect(translated.split("|").length).toBe(english.split("|").length);
    });
});

it.each(files.filter((name) => name.endsWith(".tsx")))("%s says nothing past the tables", (name) => {
    const code = text(name).replace(/\/\*[\s\S]*?\*\//g, "");
    const said = [
        ...code.matchAll(/\s(?:label|title|hint|aria-label|placeholder|alt)="([^"]*[a-z]{2}[^"]*)"/g),
        ...code.matchAll(/^\s*<\w[^>{}]*>([^<{]*[A-Za-z]{3}[^<{]*)<\//gm),
    ].map((match) => match[1]);
    expect(said.filter((words) => words !== "bob, carol" && words !== "hubbub")).toEqual([]);
});

describe("words", () => {
    afterEach(() => setLanguage("en"));
    it("are those of the language, with values and numbers", async () => {
        expect(t("{count} person|{count} people", { count: 1 })).toBe("1 person");
        expect(t("{count} person|{count} people", { count: 2 })).toBe("2 people");
        await setLanguage("de");
        expect(t("{count} person|{count} people", { count: 2 })).toBe("2 Leute");
        expect(t("Reply to {name}", { name: "{name}" })).toBe("Antwort an {name}");
        expect(t("not in any table")).toBe("not in any table");
    });
    it("are in the first language that the reader wants and the app has", () => {
        expect(pickLanguage(["fr-FR", "de-AT", "en"])).toBe("de");
        expect(pickLanguage(["fr"])).toBe("en");
        expect(pickLanguage([])).toBe("en");
    });
});

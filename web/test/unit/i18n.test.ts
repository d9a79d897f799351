/** That no language lacks a word, and that none is said past the tables. */
import { readdirSync, readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import { FORMS, language, type Language, listOf, number, pickLanguage, setLanguage, t } from "../../src/domain/i18n.ts";
import arabic from "../../src/domain/words.ar.ts";
import german from "../../src/domain/words.de.ts";
import spanish from "../../src/domain/words.es.ts";
import chinese from "../../src/domain/words.zh.ts";

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

const TABLES: [Language, Record<string, string>][] = [["de", german], ["es", spanish], ["ar", arabic], ["zh", chinese]];

describe.each(TABLES)("%s", (tongue, words) => {
    it("has a word for each English one, and for no other", () => {
        expect(used.size).toBeGreaterThan(200);
        expect([...used].filter((word) => !Object.hasOwn(words, word))).toEqual([]);
        expect(Object.keys(words).filter((word) => !used.has(word))).toEqual([]);
    });
    it("says each with the same values, in as many forms as the language has", () => {
        const values = (text: string): string => [...new Set(text.match(/\{\w+\}/g))].sort().join();
        const forms = (english: string): number => (english.includes("|") ? FORMS[tongue].length : 1);
        const wrong = Object.entries(words).filter(([english, said]) => said.trim() === "" || values(said) !== values(english) || said.split("|").length !== forms(english));
        expect(wrong).toEqual([]);
    });
    it("has the forms that the language has", () => {
        const { pluralCategories } = new Intl.PluralRules(tongue).resolvedOptions();
        expect([...pluralCategories].filter((form) => !(tongue === "es" && form === "many")).sort()).toEqual([...FORMS[tongue]].sort());
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
    it("take the form that the number asks for", async () => {
        const people = (count: number): string => t("{count} person|{count} people", { count });
        await setLanguage("ar");
        expect([0, 1, 2, 3, 11, 100].map(people)).toEqual(["لا أحد", "شخص واحد", "شخصان", "3 أشخاص", "11 شخصًا", "100 شخص"]);
        expect(t("{count} cow|{count} cows", { count: 2 }), "English where the table lacks a word").toBe("2 cows");
        await setLanguage("zh");
        expect([1, 2].map(people)).toEqual(["1 人", "2 人"]);
        await setLanguage("es");
        expect([1, 2, 1_000_000].map(people)).toEqual(["1 persona", "2 personas", "1.000.000 personas"]);
    });
    it("are listed and counted as the language does", async () => {
        expect(listOf([])).toBe("");
        expect(listOf(["ada"])).toBe("ada");
        await setLanguage("de", ["en-GB", "de-CH"]);
        expect(listOf(["ada", "bob", "carol"])).toBe("ada, bob und carol");
        expect(number(12345)).toMatch(/^12['’]345$/); // as in Switzerland, which the browser named
        await setLanguage("ar", ["ar-EG"]);
        expect(number(12)).toBe("١٢");
        expect(listOf(["ada", "ليلى"])).toBe("\u2068ada\u2069 وليلى");
    });
    it("keep a name of the other direction apart", async () => {
        expect(t("{name} is typing", { name: "ليلى" })).toBe("\u2068ليلى\u2069 is typing");
        expect(t("{name} is typing", { name: "ada" })).toBe("ada is typing");
        await setLanguage("ar");
        expect(t("{name} is typing", { name: "ada" })).toBe("\u2068ada\u2069 يكتب");
        expect(t("{name} is typing", { name: "ليلى" })).toBe("ليلى يكتب");
    });
    it("are of the language that was chosen last, whichever came first", async () => {
        await Promise.all([setLanguage("de"), setLanguage("en")]);
        expect(t("Save")).toBe("Save");
        expect(language.value).toBe("en");
    });
    it("are in the first language that the reader wants and the app has", () => {
        expect(pickLanguage(["fr-FR", "de-AT", "en"])).toBe("de");
        expect(pickLanguage(["zh-Hans-CN", "en"])).toBe("zh");
        expect(pickLanguage(["AR-eg"])).toBe("ar");
        expect(pickLanguage(["fr"])).toBe("en");
        expect(pickLanguage([])).toBe("en");
    });
});

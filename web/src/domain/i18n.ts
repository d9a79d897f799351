/**
 * What the app says, in the reader's language. The English words are the keys, so that the code can be read; other
 * languages are tables from them (words.de.ts), loaded at need. test/unit/i18n.test.ts finds what a table lacks.
 */
import { signal } from "@preact/signals-core";

export type Language = "en" | "de";
export const LANGUAGES: readonly (readonly [Language, string])[] = [
    ["en", "English"],
    ["de", "Deutsch"],
];

export const language = signal<Language>("en");
let table: Readonly<Record<string, string>> = {};

/** The words for an English text. `{name}` stands for a value; where `count` is given, "{count} one|{count} many" chooses. */
export function t(english: string, values: Record<string, string | number> = {}): string {
    const found = Object.hasOwn(table, english) ? table[english]! : english;
    const [one, many] = "count" in values ? found.split("|") : [found];
    const form = many === undefined || values.count === 1 ? one! : many;
    return form.replace(/\{(\w+)\}/g, (whole, name: string) => (Object.hasOwn(values, name) ? String(values[name]) : whole));
}

/** The first language of the list that the app speaks. */
export function pickLanguage(wanted: readonly string[]): Language {
    for (const tag of wanted) {
        const found = LANGUAGES.find(([id]) => tag.toLowerCase().split("-")[0] === id);
        if (found) return found[0];
    }
    return "en";
}

export async function setLanguage(to: Language): Promise<void> {
    table = to === "de" ? (await import("./words.de.ts")).default : {};
    language.value = to;
}

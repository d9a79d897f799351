/**
 * What the app says, in the reader's language. The English words are the keys, so that the code can be read; other
 * languages are tables from them (words.de.ts and its like), each loaded when it is chosen. Numbers, lists and the forms
 * that words take beside a number are the browser's own (Intl). test/unit/i18n.test.ts finds what a table lacks.
 */
import { signal } from "@preact/signals-core";

export type Language = "en" | "de" | "es" | "ar" | "zh";
type Words = Readonly<Record<string, string>>;

/** Each in its own words, for whoever looks for it does not read the others. */
export const LANGUAGES: readonly (readonly [Language, string])[] = [
    ["en", "English"],
    ["de", "Deutsch"],
    ["es", "Español"],
    ["ar", "العربية"],
    ["zh", "简体中文"],
];

/** The forms of a word beside a number, in the order in which a text gives them, with `|` between. Spanish has another one for millions, which none here reaches. */
export const FORMS: Readonly<Record<Language, readonly Intl.LDMLPluralRule[]>> = {
    en: ["one", "other"],
    de: ["one", "other"],
    es: ["one", "other"],
    ar: ["zero", "one", "two", "few", "many", "other"],
    zh: ["other"],
};

const TABLES: Readonly<Record<Exclude<Language, "en">, () => Promise<{ default: Words }>>> = {
    de: () => import("./words.de.ts"),
    es: () => import("./words.es.ts"),
    ar: () => import("./words.ar.ts"),
    zh: () => import("./words.zh.ts"),
};

export const language = signal<Language>("en");

/** The language in one of its countries' forms, where the browser names one: dates and digits differ between them. */
let locale = "en";
let table: Words = {};
let choices = 0;

/** Formatters take long to make, and a list of messages needs the same ones again and again. */
const made = new Map<string, unknown>();

export function formatter<T>(kind: string, make: (locale: string) => T): T {
    const known = made.get(kind) as T | undefined;
    if (known !== undefined) return known;
    const fresh = make(locale);
    made.set(kind, fresh);
    return fresh;
}

export const direction = (of: Language): "ltr" | "rtl" => (of === "ar" ? "rtl" : "ltr");

/**
 * The words for an English text. `{name}` stands for a value; where `count` is given, the text holds a form for each
 * that its language has (FORMS), as "{count} one|{count} many".
 */
export function t(english: string, values: Record<string, string | number> = {}): string {
    const translated = Object.hasOwn(table, english);
    const text = translated ? table[english]! : english;
    const form = typeof values.count === "number" ? formOf(text, values.count, translated ? language.value : "en") : text;
    return form.replace(/\{(\w+)\}/g, (whole, name: string) => {
        if (!Object.hasOwn(values, name)) return whole;
        const value = values[name]!;
        return typeof value === "number" ? number(value) : isolated(value);
    });
}

function formOf(text: string, count: number, tongue: Language): string {
    const forms = text.split("|");
    if (forms.length === 1) return text;
    const rules = formatter(`plural ${tongue}`, () => new Intl.PluralRules(tongue));
    return forms[FORMS[tongue].indexOf(rules.select(count))] ?? forms.at(-1)!;
}

export function number(value: number, options?: Intl.NumberFormatOptions): string {
    return formatter(`number ${options ? JSON.stringify(options) : ""}`, (tongue) => new Intl.NumberFormat(tongue, options)).format(value);
}

/** Several names as one speaks them: "ada, bob and carol". */
export function listOf(names: readonly string[]): string {
    return formatter("list", (tongue) => new Intl.ListFormat(tongue, { type: "conjunction" })).format(names.map(isolated));
}

const RIGHT_TO_LEFT = /[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc]/;
const LEFT_TO_RIGHT = /[A-Za-z\u00c0-\u058f]|[\u0900-\u1fff]/;

/** A name that is written the other way must not turn the sentence around it (first strong isolate, Unicode UAX 9). */
function isolated(value: string): string {
    const other = direction(language.value) === "rtl" ? LEFT_TO_RIGHT : RIGHT_TO_LEFT;
    return other.test(value) ? `\u2068${value}\u2069` : value;
}

/** The first language of the list that the app speaks. */
export function pickLanguage(wanted: readonly string[]): Language {
    for (const tag of wanted) {
        const found = LANGUAGES.find(([id]) => baseOf(tag) === id);
        if (found) return found[0];
    }
    return "en";
}

const baseOf = (tag: string): string => tag.toLowerCase().split("-")[0]!;

/** Speaks a language from now on. Of what the reader's browser wants, the form of this language is taken. */
export async function setLanguage(to: Language, wanted: readonly string[] = []): Promise<void> {
    const asked = ++choices;
    const words = to === "en" ? {} : (await TABLES[to]()).default;
    if (asked !== choices) return; // another one was chosen meanwhile
    table = words;
    locale = wanted.find((tag) => baseOf(tag) === to) ?? to;
    made.clear();
    language.value = to;
}

/** Emoji by their names, for who types ":cat". The tables are made when the app is built (build.ts), and loaded when the first name is typed. */
import { language } from "./i18n.ts";

export interface Emoji {
    symbol: string;
    name: string;
    /** Other words that lead to it. */
    words: readonly string[];
}

type Table = readonly Emoji[];

const loaders: Record<string, () => Promise<{ default: string }>> = {
    en: () => import("virtual:emojis/emojis-en"),
    de: () => import("virtual:emojis/emojis-de"),
    es: () => import("virtual:emojis/emojis-es"),
    zh: () => import("virtual:emojis/emojis-zh"),
};

const tables = new Map<string, Promise<Table>>();

/** Those of the reader's language, or English where there are none. */
export function loadEmojis(): Promise<Table> {
    const tongue = Object.hasOwn(loaders, language.value) ? language.value : "en";
    let table = tables.get(tongue);
    if (!table) {
        tables.set(tongue, (table = loaders[tongue]!().then((module) => readTable(module.default))));
        table.catch(() => tables.delete(tongue)); // the next name tries again
    }
    return table;
}

/** One a line: the symbol, its name, and further words, with tabs between. */
export function readTable(text: string): Table {
    return text.split("\n").map((line): Emoji => {
        const [symbol = "", name = "", ...words] = line.split("\t");
        return { symbol, name, words };
    });
}

/** The best of those that a beginning of a word leads to: names that begin so, then words of names, then further words. */
export function emojisLike(table: Table, typed: string, limit = 8): Emoji[] {
    const start = typed.toLowerCase().replaceAll("_", " ");
    const ranked: [rank: number, emoji: Emoji][] = [];
    for (const emoji of table) {
        const rank = rankOf(emoji, start);
        if (rank < 5) ranked.push([rank, emoji]);
    }
    // The table's order is that of keyboards, in which the common ones come first.
    return ranked.sort((a, b) => a[0] - b[0]).slice(0, limit).map(([, emoji]) => emoji); // prettier-ignore
}

function rankOf({ name, words }: Emoji, start: string): number {
    if (name === start) return 0;
    if (words.includes(start)) return 1;
    if (name.startsWith(start)) return 2;
    if (name.includes(` ${start}`)) return 3;
    return words.some((word) => word.startsWith(start)) ? 4 : 5;
}

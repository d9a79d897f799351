/**
 * Which of the items of a timeline are drawn: enough to fill the screen and some more on both sides. The window is held
 * by the keys of its first and last entry, so that it stays where it is when items are put before or after it.
 */
import type { Item } from "../domain/entries.ts";

/** Messages that are drawn at most, which fills a tall screen and a good part above and below it, and by how many the window is moved. */
export const DRAWN = 160;
export const STEP = 20;

export interface Range {
    from: number;
    to: number;
}

/** Where a window begins and ends; without an end it reaches to the last item. */
export interface Window {
    start: string | undefined;
    end: string | undefined;
}

export const AT_END: Window = { start: undefined, end: undefined };

const weight = (item: Item): number => (item.kind === "group" ? item.messages.length : 1);

/** The key of an entry in an item, from its beginning or from its end: groups may come to be cut otherwise. */
function keyIn(item: Item | undefined, side: "first" | "last"): string | undefined {
    if (item?.kind !== "group") return item?.key;
    return item.messages.at(side === "first" ? 0 : -1)!.key;
}

export function indexOf(items: readonly Item[], key: string): number {
    return items.findIndex((item) => item.key === key || (item.kind === "group" && item.messages.some((message) => message.key === key)));
}

/** The items of a window, at least one screen of them. */
export function rangeOf(items: readonly Item[], { start, end }: Window): Range {
    const last = end === undefined ? -1 : indexOf(items, end);
    const to = last < 0 ? items.length : last + 1;
    const first = start === undefined ? -1 : indexOf(items, start);
    return { from: first < 0 || first >= to ? back(items, to, DRAWN) : first, to };
}

export function windowOf(items: readonly Item[], { from, to }: Range): Window {
    return { start: keyIn(items[from], "first"), end: to >= items.length ? undefined : keyIn(items[to - 1], "last") };
}

/** The window a step further up or down; what is too far on the other side is no longer drawn. */
export function moved(items: readonly Item[], range: Range, towards: "older" | "newer"): Range {
    if (towards === "older") {
        const from = back(items, range.from, STEP);
        return { from, to: Math.min(range.to, forth(items, from, DRAWN)) };
    }
    const to = forth(items, range.to, STEP);
    return { from: Math.max(range.from, back(items, to, DRAWN)), to };
}

/** A window with an item in its middle. */
export function around(items: readonly Item[], index: number): Range {
    return { from: back(items, index, DRAWN / 2), to: forth(items, index, DRAWN / 2) };
}

function back(items: readonly Item[], from: number, messages: number): number {
    let at = from;
    for (let left = messages; at > 0 && left > 0; left -= weight(items[at]!)) at--;
    return at;
}

function forth(items: readonly Item[], from: number, messages: number): number {
    let at = from;
    for (let left = messages; at < items.length && left > 0; at++) left -= weight(items[at]!);
    return at;
}

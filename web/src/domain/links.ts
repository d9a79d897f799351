/** Finds the web addresses in a plain text. The result is data; nothing here makes markup. */

export type Segment = { text: string; href?: undefined } | { text: string; href: string };

const CANDIDATE = /\b(?:https?:\/\/|www\.)[^\s<>"'`\u00a0\u200b-\u200f\u202a-\u202e\u2066-\u2069]+/giu;
/** Longer addresses are text: nobody reads them before clicking. */
const MAX_LENGTH = 2048;

/** The text in parts, in order; joined they are the text. Only http and https addresses become links. */
export function splitLinks(text: string): Segment[] {
    const segments: Segment[] = [];
    let end = 0;
    for (const match of text.matchAll(CANDIDATE)) {
        const shown = trimEnd(match[0]);
        const href = toHref(shown);
        if (href === undefined) continue;
        if (match.index > end) segments.push({ text: text.slice(end, match.index) });
        segments.push({ text: shown, href });
        end = match.index + shown.length;
    }
    if (end < text.length) segments.push({ text: text.slice(end) });
    return segments;
}

function toHref(shown: string): string | undefined {
    if (shown.length > MAX_LENGTH) return undefined;
    try {
        const url = new URL(/^www\./i.test(shown) ? `https://${shown}` : shown);
        if (url.protocol !== "https:" && url.protocol !== "http:") return undefined;
        // Credentials in an address serve to show one host and open another.
        if (url.username !== "" || url.password !== "" || !url.hostname.includes(".") && url.hostname !== "localhost") return undefined;
        return url.href;
    } catch {
        return undefined;
    }
}

/** The punctuation of the sentence is not part of the address, nor is a bracket that was opened before it. */
function trimEnd(address: string): string {
    let end = address.length;
    for (;;) {
        const last = address[end - 1] ?? "";
        if (/[.,:;!?…*_~]/.test(last)) end--;
        else if (last === ")" && count(address.slice(0, end), ")") > count(address.slice(0, end), "(")) end--;
        else if (last === "]" && count(address.slice(0, end), "]") > count(address.slice(0, end), "[")) end--;
        else return address.slice(0, end);
    }
}

function count(text: string, letter: string): number {
    return text.split(letter).length - 1;
}

/**
 * From what people type to the HTML of a message: the few signs of Markdown that people use in a chat. HTML that is
 * typed stays text. What comes out passes html.ts at the reader like everybody else's.
 */

/** The person an "@name" means in this room, if it means one. */
export type MentionOf = (name: string) => { userId: string; name: string } | undefined;

export interface Written {
    /** Absent if the text says it all. */
    html: string | undefined;
    mentions: string[];
}

const nobody: MentionOf = () => undefined;

export function write(text: string, mentionOf: MentionOf = nobody): Written {
    const writer = new Writer(mentionOf);
    const html = writer.blocks(text.replace(/\r\n?/g, "\n").split("\n"));
    return { html: writer.marked ? html : undefined, mentions: [...writer.mentions] };
}

/** Quotes and lists inside each other. */
const MAX_NESTING = 8;

class Writer {
    marked = false;
    readonly mentions = new Set<string>();

    constructor(private readonly mentionOf: MentionOf) {}

    blocks(lines: string[], nesting = 0): string {
        const out: string[] = [];
        let paragraph: string[] = [];
        const flush = (): void => {
            if (paragraph.length > 0) out.push(this.paragraph(paragraph));
            paragraph = [];
        };
        for (let i = 0; i < lines.length; ) {
            const [html, next] = this.block(lines, i, nesting);
            if (html === undefined) {
                if (lines[i]!.trim() === "") flush();
                else paragraph.push(lines[i]!);
                i++;
            } else {
                flush();
                this.marked = true;
                out.push(html);
                i = next;
            }
        }
        flush();
        return out.length === 1 ? out[0]!.replace(/^<p>(.*)<\/p>$/s, "$1") : out.join("");
    }

    private paragraph(lines: string[]): string {
        return `<p>${this.inline(lines.join("\n")).replaceAll("\n", "<br>")}</p>`;
    }

    /** The block that begins at a line, and the line after it; nothing for a line of a paragraph. */
    private block(lines: string[], at: number, nesting: number): [string | undefined, number] {
        const line = lines[at]!;
        const fence = /^\s*```\s*([\w+#-]*)\s*$/.exec(line);
        if (fence) {
            const end = lines.findIndex((other, i) => i > at && /^\s*```\s*$/.test(other));
            const until = end < 0 ? lines.length : end;
            const language = fence[1] === "" ? "" : ` class="language-${fence[1]}"`;
            return [`<pre><code${language}>${escapeHtml(lines.slice(at + 1, until).join("\n"))}</code></pre>`, until + 1];
        }
        const heading = /^(#{1,6}) (.+)$/.exec(line);
        if (heading) return [`<h${heading[1]!.length}>${this.inline(heading[2]!)}</h${heading[1]!.length}>`, at + 1];
        if (nesting >= MAX_NESTING) return [undefined, at];
        if (/^>/.test(line)) {
            const end = endOfRun(lines, at, /^>/);
            const inner = lines.slice(at, end).map((quoted) => quoted.replace(/^> ?/, ""));
            return [`<blockquote>${this.blocks(inner, nesting + 1)}</blockquote>`, end];
        }
        if (/^[-*] \S/.test(line)) return this.list(lines, at, /^[-*] /, "ul", nesting);
        const numbered = /^(\d{1,6})[.)] \S/.exec(line);
        if (numbered) return this.list(lines, at, /^\d{1,6}[.)] /, "ol", nesting, numbered[1] === "1" ? "" : ` start="${Number(numbered[1])}"`);
        return [undefined, at];
    }

    private list(lines: string[], at: number, mark: RegExp, tag: string, nesting: number, attribute = ""): [string, number] {
        const items: string[][] = [];
        let i = at;
        for (; i < lines.length; i++) {
            const line = lines[i]!;
            if (mark.test(line)) items.push([line.replace(mark, "")]);
            else if (/^ {2,}\S/.test(line)) items.at(-1)!.push(line.replace(/^ {2,4}/, ""));
            else break;
        }
        return [`<${tag}${attribute}>${items.map((item) => `<li>${this.blocks(item, nesting + 1)}</li>`).join("")}</${tag}>`, i];
    }

    private inline(text: string, depth = 0): string {
        let out = "";
        let plain = "";
        const put = (html: string): void => {
            out += escapeHtml(plain) + html;
            plain = "";
        };
        for (let i = 0; i < text.length; ) {
            const found = this.mark(text, i, depth);
            if (found) {
                put(found.html);
                i = found.end;
                this.marked ||= found.html !== "" && found.marks;
            } else plain += text[i++]!;
        }
        put("");
        return out;
    }

    private mark(text: string, at: number, depth: number): { html: string; end: number; marks: boolean } | undefined {
        const rest = text.slice(at, at + 2_000);
        const char = text[at]!;
        const before = at === 0 ? " " : text[at - 1]!;
        if (char === "\\" && /^\\[\\`*_~|[\]#>]/.test(rest)) return { html: escapeHtml(rest[1]!), end: at + 2, marks: true };
        if (char === "`") {
            const code = /^(`+)(.+?)\1(?!`)/s.exec(rest);
            return code ? { html: `<code>${escapeHtml(code[2]!.trim())}</code>`, end: at + code[0].length, marks: true } : undefined;
        }
        if (char === "h" && /^https?:\/\//.test(rest)) {
            const address = /^\S+/.exec(rest)![0]; // what stands in an address is no mark
            return { html: escapeHtml(address), end: at + address.length, marks: false };
        }
        if (char === "@" && /[\s(]/.test(before)) return this.mention(rest, at);
        if (depth >= MAX_NESTING) return undefined;
        if (char === "[") {
            const link = /^\[([^[\]\n]+)\]\((https?:\/\/[^\s()]+(?:\([^\s()]*\))?[^\s()]*|mailto:[^\s()]+)\)/.exec(rest);
            if (!link) return undefined;
            return { html: `<a href="${escapeHtml(link[2]!)}">${this.inline(link[1]!, depth + 1)}</a>`, end: at + link[0].length, marks: true };
        }
        for (const [pattern, tag] of MARKS) {
            const found = pattern.exec(rest);
            // In the middle of a word a sign is a sign: snake_case, 2*3*4.
            if (!found || /[\p{L}\p{N}]/u.test(before) || /^[\p{L}\p{N}]/u.test(text.slice(at + found[0].length, at + found[0].length + 2))) continue;
            const [open, close] = tag === "spoiler" ? ["<span data-mx-spoiler>", "</span>"] : [`<${tag}>`, `</${tag}>`];
            return { html: open + this.inline(found[1]!, depth + 1) + close, end: at + found[0].length, marks: true };
        }
        return undefined;
    }

    private mention(rest: string, at: number): { html: string; end: number; marks: boolean } | undefined {
        const name = /^@([\p{L}\p{N}._=/+-]*[\p{L}\p{N}])/u.exec(rest)?.[1];
        const person = name === undefined ? undefined : this.mentionOf(name);
        if (!person) return undefined;
        this.mentions.add(person.userId);
        const html = `<a href="https://matrix.to/#/${encodeURIComponent(person.userId)}">${escapeHtml(person.name)}</a>`;
        return { html, end: at + 1 + name!.length, marks: true };
    }
}

const MARKS: readonly (readonly [RegExp, string])[] = [
    [/^\*\*(?!\s)([^\n]+?)(?<!\s)\*\*/, "strong"],
    [/^\*(?![\s*])([^*\n]+?)(?<!\s)\*/, "em"],
    [/^_(?![\s_])([^_\n]+?)(?<!\s)_/, "em"],
    [/^~~(?!\s)([^\n]+?)(?<!\s)~~/, "del"],
    [/^\|\|(?!\s)([^\n]+?)(?<!\s)\|\|/, "spoiler"],
];

function endOfRun(lines: string[], from: number, pattern: RegExp): number {
    let end = from;
    while (end < lines.length && pattern.test(lines[end]!)) end++;
    return end;
}

export function escapeHtml(text: string): string {
    return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;").replaceAll('"', "&quot;");
}

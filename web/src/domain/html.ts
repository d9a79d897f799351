/**
 * The HTML of messages, read into a tree of what is allowed. There is no way from text to markup: the screen makes
 * elements of the tree's nodes, so whatever is not named here cannot come to be, however it is written.
 * spec: client-server §m.room.message msgtypes, "formatted_body"
 */

export type Rich = string | RichElement;

export interface RichElement {
    tag: Tag;
    children: Rich[];
    /** Of links: checked, absolute. */
    href?: string;
    /** Of links to a person: who it is. */
    person?: string;
    /** Of `span` and `font`: "#rrggbb". */
    colour?: string;
    background?: string;
    /** Hidden until asked for; the reason, if one was given, else "". */
    spoiler?: string;
    /** Of `ol`. */
    start?: number;
    /** Of `code`: the language it names. */
    language?: string;
}

const TAGS = [
    "del", "s", "h1", "h2", "h3", "h4", "h5", "h6", "blockquote", "p", "a", "ul", "ol", "sup", "sub", "li", "b", "i", "u", "strong", "em", "code",
    "hr", "br", "div", "table", "thead", "tbody", "tr", "th", "td", "caption", "pre", "span", "details", "summary",
] as const; // prettier-ignore
export type Tag = (typeof TAGS)[number];
const ALLOWED: ReadonlySet<string> = new Set(TAGS);
const VOID: ReadonlySet<string> = new Set(["hr", "br"]);
/** Of these nothing is shown, neither the element nor what is in it. `mx-reply` repeats what is quoted anyway. */
const DROPPED: ReadonlySet<string> = new Set([
    "mx-reply", "script", "style", "title", "template", "iframe", "noscript", "noembed", "noframes", "textarea", "xmp", "svg", "math", "object", "select",
]); // prettier-ignore
const OLD_NAMES: Record<string, Tag> = { strike: "del", font: "span" };

/** Elements inside each other; what is deeper is shown without its own markup. Recommended by the specification. */
export const MAX_DEPTH = 100;
/** An event holds 64 KB; nothing longer came from one. */
export const MAX_HTML = 70_000;

interface Open {
    tag: string;
    children: Rich[];
}

/** Reads HTML as a message holds it. Never fails: what is no markup is text. */
export function parseHtml(html: string): Rich[] {
    const text = html.slice(0, MAX_HTML);
    const root: Open = { tag: "", children: [] };
    const stack: Open[] = [root];
    let at = 0;
    while (at < text.length) {
        const open = text.indexOf("<", at);
        if (open !== at) addText(stack, text.slice(at, open < 0 ? text.length : open));
        if (open < 0) break;
        const token = readTag(text, open);
        if (!token) {
            addText(stack, "<");
            at = open + 1;
            continue;
        }
        if (token === "unfinished") {
            addText(stack, text.slice(open));
            break;
        }
        at = token.end;
        if (DROPPED.has(token.name)) {
            if (!token.closing) at = endOf(text, token.name, at);
        } else if (token.closing) close(stack, token.name);
        else begin(stack, token);
    }
    return root.children;
}

/** The text that a tree holds, for previews. */
export function textOf(nodes: readonly Rich[]): string {
    return nodes.map((node) => (typeof node === "string" ? node : node.tag === "br" ? "\n" : textOf(node.children))).join("");
}

interface TagToken {
    name: string;
    closing: boolean;
    attributes: string;
    end: number;
}

/** The tag, comment or declaration at a "<"; nothing if it begins none. */
function readTag(text: string, open: number): TagToken | "unfinished" | undefined {
    if (text.startsWith("<!--", open)) {
        const end = text.indexOf("-->", open + 4);
        return end < 0 ? "unfinished" : { name: "", closing: true, attributes: "", end: end + 3 };
    }
    const head = /^<(\/?)([a-z][a-z0-9-]{0,30}|[!?])/i.exec(text.slice(open, open + 40));
    if (!head) return undefined;
    const from = open + head[0].length;
    let quote = "";
    for (let i = from; i < text.length; i++) {
        const char = text[i]!;
        if (quote !== "") {
            if (char === quote) quote = "";
        } else if (char === ">") return { name: head[2]!.toLowerCase(), closing: head[1] === "/", attributes: text.slice(from, i), end: i + 1 };
        else if ((char === '"' || char === "'") && /[=\s]$/.test(text.slice(from, i))) quote = char;
    }
    return "unfinished";
}

function endOf(text: string, name: string, from: number): number {
    const close = text.toLowerCase().indexOf(`</${name}`, from);
    if (close < 0) return text.length;
    const end = text.indexOf(">", close);
    return end < 0 ? text.length : end + 1;
}

function addText(stack: Open[], raw: string): void {
    if (raw === "") return;
    const siblings = stack.at(-1)!.children;
    const text = decodeEntities(raw);
    if (typeof siblings.at(-1) === "string") siblings[siblings.length - 1] += text;
    else siblings.push(text);
}

function begin(stack: Open[], token: TagToken): void {
    const tag = Object.hasOwn(OLD_NAMES, token.name) ? OLD_NAMES[token.name]! : token.name;
    const attributes = readAttributes(token.attributes);
    if (token.name === "img") return addText(stack, attributes.get("alt") ?? ""); // custom emoji; pictures come as messages of their own
    if (!ALLOWED.has(tag)) return;
    if (tag === "li" && stack.at(-1)!.tag === "li") stack.pop();
    if (stack.length > MAX_DEPTH) return;
    const element = describe(tag as Tag, attributes);
    stack.at(-1)!.children.push(element);
    if (!VOID.has(tag)) stack.push(element);
}

function close(stack: Open[], name: string): void {
    const tag = Object.hasOwn(OLD_NAMES, name) ? OLD_NAMES[name]! : name;
    for (let i = stack.length - 1; i > 0; i--) {
        if (stack[i]!.tag !== tag) continue;
        stack.length = i;
        return;
    }
}

function describe(tag: Tag, attributes: Map<string, string>): RichElement {
    const element: RichElement = { tag, children: [] };
    if (tag === "a") {
        const href = safeHref(attributes.get("href"));
        if (href !== undefined) element.href = href;
        const person = personOf(href);
        if (person !== undefined) element.person = person;
    }
    if (tag === "span") {
        const [colour, background] = [colourIn(attributes, "data-mx-color") ?? colourIn(attributes, "color"), colourIn(attributes, "data-mx-bg-color")];
        if (colour !== undefined) element.colour = colour;
        if (background !== undefined) element.background = background;
        const spoiler = attributes.get("data-mx-spoiler");
        if (spoiler !== undefined) element.spoiler = spoiler.slice(0, 200);
    }
    const start = Number(attributes.get("start"));
    if (tag === "ol" && Number.isInteger(start) && start > 0 && start < 1e9) element.start = start;
    const language = /^language-([a-z0-9+#-]{1,20})$/i.exec(attributes.get("class") ?? "")?.[1];
    if (tag === "code" && language !== undefined) element.language = language.toLowerCase();
    return element;
}

function colourIn(attributes: Map<string, string>, name: string): string | undefined {
    const value = attributes.get(name) ?? "";
    return /^#[0-9a-f]{6}$/i.test(value) ? value : undefined;
}

function readAttributes(text: string): Map<string, string> {
    const attributes = new Map<string, string>();
    for (const [, name, , double, single, bare] of text.slice(0, 5_000).matchAll(/([a-z][a-z0-9-]*)\s*(=\s*(?:"([^"]*)"|'([^']*)'|([^\s"']+)))?/gi)) {
        const key = name!.toLowerCase();
        if (!attributes.has(key)) attributes.set(key, decodeEntities(double ?? single ?? bare ?? ""));
    }
    return attributes;
}

/** The address of a link that may be followed, else nothing. */
export function safeHref(value: string | undefined): string | undefined {
    // A browser leaves control characters out before it reads the scheme: whoever puts some in hides something.
    if (value === undefined || value.length > 2048 || /[\u0000-\u001f\u007f]/.test(value)) return undefined;
    try {
        const url = new URL(value);
        return ["https:", "http:", "mailto:"].includes(url.protocol) && url.username === "" && url.password === "" ? url.href : undefined;
    } catch {
        return undefined; // relative: there is nothing that it could be relative to
    }
}

/** spec: appendices §matrix.to navigation */
function personOf(href: string | undefined): string | undefined {
    const id = /^https:\/\/matrix\.to\/#\/([^/?]+)/.exec(href ?? "")?.[1];
    try {
        const person = id === undefined ? "" : decodeURIComponent(id);
        return /^@[^:\s]*:\S+$/.test(person) ? person : undefined;
    } catch {
        return undefined;
    }
}

const ENTITIES: Record<string, string> = {
    amp: "&", lt: "<", gt: ">", quot: '"', apos: "'", nbsp: "\u00a0", hellip: "…", mdash: "—", ndash: "–", laquo: "«", raquo: "»",
    ldquo: "“", rdquo: "”", lsquo: "‘", rsquo: "’", copy: "©", reg: "®", trade: "™", euro: "€", times: "×", middot: "·", bull: "•",
    larr: "←", rarr: "→", uarr: "↑", darr: "↓", deg: "°", para: "¶", sect: "§",
}; // prettier-ignore

function decodeEntities(text: string): string {
    return text.replace(/&(?:#(\d{1,7})|#x([0-9a-f]{1,6})|([a-z]{2,8}));/gi, (whole, decimal?: string, hex?: string, name?: string) => {
        if (name !== undefined) return Object.hasOwn(ENTITIES, name) ? ENTITIES[name]! : whole;
        const code = decimal !== undefined ? Number(decimal) : Number.parseInt(hex!, 16);
        return code > 0 && code <= 0x10ffff && !(code >= 0xd800 && code < 0xe000) ? String.fromCodePoint(code) : "\ufffd";
    });
}

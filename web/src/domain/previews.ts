/**
 * What a page that somebody links to is about, as the server found out. The server learns the address by being asked,
 * which is why it is asked in encrypted rooms only if the person wants it. spec: client-server §GET preview_url
 */
import type { Message } from "./entries.ts";
import { splitLinks } from "./links.ts";
import { parseMxc } from "./media.ts";

export interface Preview {
    title: string;
    description: string | undefined;
    site: string;
    /** The mxc address of a picture. */
    picture: string | undefined;
}

const MAX_KEPT = 300;

export class Previews {
    private readonly kept = new Map<string, Promise<Preview | undefined>>();

    constructor(
        private readonly fetch: typeof globalThis.fetch,
        private readonly origin: string,
        private readonly token: () => string | null,
    ) {}

    /** Nothing where there is nothing to show, or the server makes no previews. */
    of(url: string): Promise<Preview | undefined> {
        let asked = this.kept.get(url);
        if (asked) return asked;
        asked = this.load(url).catch(() => undefined);
        this.kept.set(url, asked);
        const oldest = this.kept.keys().next().value;
        if (this.kept.size > MAX_KEPT && oldest !== undefined) this.kept.delete(oldest);
        return asked;
    }

    private async load(url: string): Promise<Preview | undefined> {
        const answer = await this.fetch.call(undefined, `${this.origin}/_matrix/client/v1/media/preview_url?url=${encodeURIComponent(url)}`, {
            headers: { Authorization: `Bearer ${this.token() ?? ""}` },
            credentials: "omit",
        });
        return answer.ok ? previewIn(await answer.json(), url) : undefined;
    }
}

export function previewIn(answer: unknown, url: string): Preview | undefined {
    const given = (typeof answer === "object" && answer !== null ? answer : {}) as Record<string, unknown>;
    const text = (key: string): string | undefined => {
        const value = given[key];
        return typeof value === "string" && value.trim() !== "" ? value.trim().slice(0, 300) : undefined;
    };
    const title = text("og:title");
    if (title === undefined) return undefined;
    const picture = text("og:image");
    return { title, description: text("og:description"), site: text("og:site_name") ?? new URL(url).host, picture: picture !== undefined && parseMxc(picture) ? picture : undefined };
}

/** The link of a message that is shown with a preview: the first one to a page. */
export function linkIn({ text, style }: Message): string | undefined {
    if (style !== "text" && style !== "notice" && style !== "emote") return undefined;
    return splitLinks(text).find(({ href }) => href !== undefined && /^https?:/.test(href) && !href.startsWith("https://matrix.to/"))?.href;
}

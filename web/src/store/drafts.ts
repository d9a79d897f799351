/** What was begun and not sent, by place (a room, or the message that began a thread). Outlives the page, and ends with the session. */
import type { KeyValue } from "./keyvalue.ts";

/** Typing goes on for a moment: it is written down after it, or when the page goes. */
const WRITE_AFTER_MS = 400;

const prefixOf = (userId: string): string => `draft:${userId}:`;

export class Drafts {
    private readonly texts = new Map<string, string>();
    private readonly unwritten = new Set<string>();
    private timer: ReturnType<typeof setTimeout> | undefined;

    constructor(
        private readonly kv: KeyValue,
        private readonly userId: string,
    ) {}

    async load(): Promise<void> {
        const prefix = prefixOf(this.userId);
        for (const [key, value] of await this.kv.list(prefix)) if (typeof value === "string") this.texts.set(key.slice(prefix.length), value);
    }

    get(place: string): string {
        return this.texts.get(place) ?? "";
    }

    set(place: string, text: string): void {
        if (text === "") this.texts.delete(place);
        else this.texts.set(place, text);
        this.unwritten.add(place);
        this.timer ??= setTimeout(() => void this.write(), WRITE_AFTER_MS);
    }

    /** Writes down what has changed. */
    async write(): Promise<void> {
        clearTimeout(this.timer);
        this.timer = undefined;
        const places = [...this.unwritten];
        this.unwritten.clear();
        for (const place of places) {
            const [key, text] = [prefixOf(this.userId) + place, this.texts.get(place)];
            await (text === undefined ? this.kv.delete(key) : this.kv.set(key, text)).catch(() => undefined);
        }
    }

    static async clear(kv: KeyValue, userId: string): Promise<void> {
        for (const [key] of await kv.list(prefixOf(userId))) await kv.delete(key);
    }
}

/** The pictures, videos and files of a room: those among the messages that are shown, and all there ever were. */
import { signal } from "@preact/signals-core";
import { Direction } from "matrix-js-sdk/lib/models/event-timeline";
import { Filter } from "matrix-js-sdk/lib/filter";
import type { MatrixEvent } from "matrix-js-sdk/lib/models/event";
import type { MatrixClient } from "./client.ts";
import { type Item, type Message, toEntry } from "./entries.ts";
import { type Attachment, isShown } from "./media.ts";
import { peopleOf } from "./rooms.ts";

export interface MediaItem {
    key: string;
    attachment: Attachment;
    caption: string | undefined;
    senderName: string;
    ts: number;
}

/** What is opened large, and gone through one by one. */
export const isSeen = ({ kind, type }: Attachment): boolean => (kind === "image" || kind === "video") && isShown(type);

/** What can be seen among the messages, oldest first. */
export function seenIn(items: readonly Item[]): MediaItem[] {
    return items.flatMap((item) => (item.kind === "group" ? item.messages.flatMap(itemOf) : [])).filter(({ attachment }) => isSeen(attachment));
}

function itemOf({ key, attachment, caption, senderName, ts, style }: Message): MediaItem[] {
    return attachment && style !== "removed" ? [{ key, attachment, caption, senderName, ts }] : [];
}

/** Events of one answer, and answers of one look: in encrypted rooms the server cannot tell where the files are. */
const PAGE = 100;
const PAGES = 5;
/** A look that found this many is enough to fill a screen. */
const ENOUGH = 24;

/** All files of a room, newest first, fetched as they are looked for. */
export class RoomFiles {
    readonly items = signal<readonly MediaItem[]>([]);
    readonly state = signal<"more" | "loading" | "none" | "failed">("more");
    private from: string | null = null;

    constructor(
        private readonly client: MatrixClient,
        private readonly roomId: string,
    ) {}

    async load(): Promise<void> {
        if (this.state.value === "loading" || this.state.value === "none") return;
        this.state.value = "loading";
        const before = this.items.value.length;
        try {
            for (let page = 0; page < PAGES && this.items.value.length < before + ENOUGH; page++) {
                if (!(await this.page())) return void (this.state.value = "none");
            }
            this.state.value = "more";
        } catch {
            this.state.value = "failed";
        }
    }

    /** False if there is nothing before it. */
    private async page(): Promise<boolean> {
        const room = this.client.getRoom(this.roomId);
        if (!room) return false;
        const filter = new Filter(this.client.getUserId());
        // spec: client-server §RoomEventFilter, contains_url: of what it cannot read the server says that it has none
        if (!room.hasEncryptionStateEvent()) filter.setDefinition({ room: { timeline: { contains_url: true } } });
        const { chunk, end } = await this.client.createMessagesRequest(this.roomId, this.from, PAGE, Direction.Backward, filter);
        const events = chunk.map(this.client.getEventMapper());
        await Promise.all(events.map((event) => this.client.decryptEventIfNeeded(event).catch(() => undefined)));
        const people = peopleOf(room, this.client.getSafeUserId());
        const found = events.flatMap((event: MatrixEvent) => {
            const entry = toEntry(event, people);
            return entry?.kind === "message" ? itemOf(entry) : [];
        });
        this.items.value = [...this.items.value, ...found];
        this.from = end ?? null;
        return end !== undefined && end !== null;
    }
}

/**
 * A thread as a timeline of its own: the message that began it, and the replies. They come with the room's timeline as
 * far as that is loaded, and from the server before that. spec: client-server §Threading
 */
import { Direction } from "matrix-js-sdk/lib/models/event-timeline";
import type { MatrixEvent } from "matrix-js-sdk/lib/models/event";
import { type Context, Timeline, withContext } from "./timeline.ts";

const PAGE = 40;

export class ThreadTimeline extends Timeline {
    /** Asked for on its own, oldest first. Undefined while the timeline is being made. */
    private fetched: MatrixEvent[] | undefined = [];
    private next: string | undefined;
    private asked = false;

    override async loadOlder(): Promise<void> {
        if (this.older.value === "loading" || this.older.value === "none") return;
        this.older.value = "loading";
        try {
            const { chunk, next_batch: next } = await this.client.fetchRelations(this.roomId, this.threadRoot!, "m.thread", null, { dir: Direction.Backward, limit: PAGE, ...(this.next === undefined ? {} : { from: this.next }) });
            const raw = this.room.findEventById(this.threadRoot!) || this.asked ? chunk : [await this.client.fetchRoomEvent(this.roomId, this.threadRoot!), ...chunk];
            const events = raw.map(this.client.getEventMapper());
            await Promise.all(events.map((event) => this.client.decryptEventIfNeeded(event)));
            this.asked = true;
            this.next = next;
            this.fetched = [...events, ...(this.fetched ?? [])];
            this.refresh();
            this.older.value = this.hasOlder() ? "more" : "none";
        } catch {
            this.older.value = "failed";
        }
    }

    override goTo(eventId: string): Promise<boolean> {
        return Promise.resolve(this.known().some((event) => event.getId() === eventId));
    }

    /** The room's receipts go as far as its last message, of whatever thread. */
    override markRead(): void {}

    protected override hasOlder(): boolean {
        return !this.asked || this.next !== undefined;
    }

    protected override known(): MatrixEvent[] {
        const all = new Map<string, MatrixEvent>();
        const root = this.room.findEventById(this.threadRoot!);
        for (const event of [...(root ? [root] : []), ...(this.fetched ?? []), ...super.known()]) {
            const id = event.getId();
            if (id !== undefined && this.shows(event)) all.set(id, event);
        }
        return [...all.values()].sort((a, b) => (a.getId() === this.threadRoot ? -1 : b.getId() === this.threadRoot ? 1 : a.getTs() - b.getTs()));
    }

    /** A reply names the thread, and for apps that know no threads the message before it. */
    protected override related(content: Record<string, unknown>, context: Context | undefined): Record<string, unknown> {
        if (context?.kind === "edit") return withContext(content, context);
        const answered = context?.message.eventId;
        const before = this.known().findLast((event) => event.status === null)?.getId() ?? this.threadRoot!;
        return {
            ...content,
            "m.relates_to": { rel_type: "m.thread", event_id: this.threadRoot!, is_falling_back: answered === undefined, "m.in_reply_to": { event_id: answered ?? before } },
        };
    }
}

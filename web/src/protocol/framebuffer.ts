/**
 * The frames between the socket, which pushes, and the client, which asks.
 *
 * Two positions: `received` is after the last frame that arrived, and is where a new socket goes on; `delivered`
 * is after the last response that was handed out, and is what the client must name as `since` to get the next.
 */
import type { SyncFrame, SyncResponse } from "./frames.ts";
import { bodyOf, tryMerge } from "./merge.ts";
import { advance, format, type Position, START } from "./position.ts";

/** Frames kept for a client that does not ask. Some seconds of a very busy account; beyond, they are read again later. */
export const MAX_FRAMES = 2_000;
/** Frames put into one response at most, so that a busy moment does not become one long task. */
export const MAX_MERGED_FRAMES = 100;

export class FrameBuffer {
    private frames: SyncFrame[] = [];
    private receivedAt: Position = START;
    private deliveredAt: Position = START;
    /** The server says counts only when they change; a client takes their absence for none. */
    private counts: Pick<SyncResponse, "device_one_time_keys_count" | "device_unused_fallback_key_types"> = {};

    get received(): Position {
        return this.receivedAt;
    }

    get delivered(): Position {
        return this.deliveredAt;
    }

    get size(): number {
        return this.frames.length;
    }

    /** Whether a frame that waits is such. */
    some(predicate: (frame: SyncFrame) => boolean): boolean {
        return this.frames.some(predicate);
    }

    /** Forgets all frames and goes on at the position. */
    reset(position: Position): void {
        this.frames = [];
        this.receivedAt = position;
        this.deliveredAt = position;
    }

    /** Forgets what was not handed out, to be received again. */
    rewind(): void {
        this.reset(this.deliveredAt);
    }

    /** False if the buffer is full: the frame is not kept, and the caller must end the socket. */
    push(frame: SyncFrame): boolean {
        if (this.frames.length >= MAX_FRAMES) return false;
        this.frames.push(frame);
        this.receivedAt = advance(this.receivedAt, frame);
        return true;
    }

    /** The next response: the frames that wait, as many as can be one. `undefined` if none waits. */
    take(): SyncResponse | undefined {
        const first = this.frames[0];
        if (!first) return undefined;
        let body = bodyOf(first);
        let position = advance(this.deliveredAt, first);
        let count = 1;
        while (count < Math.min(this.frames.length, MAX_MERGED_FRAMES)) {
            const frame = this.frames[count]!;
            const merged = tryMerge(body, bodyOf(frame));
            if (merged === undefined) break;
            body = merged;
            position = advance(position, frame);
            count++;
        }
        this.frames.splice(0, count);
        this.deliveredAt = position;
        return this.respond(body);
    }

    /** A response that says that nothing happened. */
    empty(): SyncResponse {
        return this.respond({});
    }

    private respond(body: ReturnType<typeof bodyOf>): SyncResponse {
        const { device_one_time_keys_count, device_unused_fallback_key_types } = body;
        if (device_one_time_keys_count) this.counts = { ...this.counts, device_one_time_keys_count };
        if (device_unused_fallback_key_types) this.counts = { ...this.counts, device_unused_fallback_key_types };
        return { ...this.counts, ...body, next_batch: format(this.deliveredAt) ?? "" };
    }
}

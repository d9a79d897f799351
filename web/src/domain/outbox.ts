/**
 * Everything this person says goes through here: it stands in the room at once, is kept on the device until the server
 * has it, and is sent in the order in which it was written, room by room. Without a network it waits; what the server
 * refuses stays until it is retried or thrown away. A message keeps its transaction ID through all attempts and
 * reloads, so the server takes it once. spec: client-server §Transaction identifiers
 *
 * What is kept is not encrypted, in encrypted rooms either: the keys of those rooms are kept on the same device.
 */
import { MatrixEvent } from "matrix-js-sdk/lib/models/event";
import { EventStatus } from "matrix-js-sdk/lib/models/event-status";
import { type Room, RoomEvent } from "matrix-js-sdk/lib/models/room";
import type { Drafts } from "../store/drafts.ts";
import { newTransaction, type OutboxStore, type Unsent } from "../store/outbox.ts";
import type { MatrixClient } from "./client.ts";
import type { PreparedFile } from "./filecontent.ts";
import { POLL_END, POLL_RESPONSE } from "./polls.ts";

/** The pause after the first failed attempt, doubled with each further one. */
const FIRST_PAUSE_MS = 1_000;
const LONGEST_PAUSE_MS = 60_000;
/** A server that has trouble with one message this often is not asked again until the person says so. */
const MAX_ATTEMPTS = 5;

/** What has no place on the screen to say that it failed: if it is refused, it is as if it had not been said. */
const SILENT: ReadonlySet<string> = new Set(["m.reaction", "m.room.redaction", POLL_RESPONSE, POLL_END]);

interface Job {
    record: Unsent;
    event: MatrixEvent;
    attempts: number;
}

/** What waits in one room. */
interface Line {
    room: Room;
    jobs: Job[];
    running: boolean;
    timer: ReturnType<typeof setTimeout> | undefined;
}

export class Outbox {
    private readonly lines = new Map<string, Line>();
    private readonly restored = new Set<string>();
    private stopped = false;
    private written = 0;

    constructor(
        private readonly client: MatrixClient,
        readonly store: OutboxStore<PreparedFile>,
        /** What is not even said yet. */
        readonly drafts: Drafts,
        /** Whether it makes sense to try. */
        private readonly online: () => boolean,
    ) {}

    /** Says something in a room that is known. `redacts` names the event that a redaction removes. */
    send(roomId: string, type: string, content: Record<string, unknown>, more: { redacts?: string; txnId?: string } = {}): void {
        const { txnId = newTransaction(), redacts } = more;
        const record: Unsent = { roomId, type, content, txnId, ts: this.now(), ...(redacts === undefined ? {} : { redacts }) };
        this.store.put(record).catch(() => undefined); // where nothing can be kept, it is sent all the same
        this.enqueue(record);
        this.pump(roomId);
    }

    /** Whether a message that did not get through is tried again by itself. */
    refused(txnId: string): boolean {
        return this.find(txnId)?.job.record.refused === true;
    }

    /** Whether a message of this transaction waits here, or did when the page began. */
    took(txnId: string): boolean {
        return this.restored.has(txnId) || this.find(txnId) !== undefined;
    }

    retry(txnId: string): void {
        const found = this.find(txnId);
        if (!found) return;
        const { line, job } = found;
        job.attempts = 0;
        job.record = { ...job.record };
        delete job.record.refused;
        this.store.put(job.record).catch(() => undefined);
        this.pump(line.room.roomId);
    }

    discard(txnId: string): void {
        const found = this.find(txnId);
        if (found?.job.event.status !== EventStatus.NOT_SENT) return;
        this.done(found.line, found.job);
        this.client.cancelPendingEvent(found.job.event);
    }

    /**
     * Puts what an earlier page left into its rooms. To be called when the rooms of the store are there, and again,
     * `complete`, when the server has told of all: then what belongs to no room any more is dropped.
     */
    async restore(complete: boolean): Promise<void> {
        const records = await this.store.messages().catch(() => []);
        for (const record of records) {
            if (this.stopped || this.restored.has(record.txnId) || this.find(record.txnId)) continue;
            const room = this.client.getRoom(record.roomId);
            if (room?.getMyMembership() !== "join") {
                if (complete) await this.store.drop(record);
                continue;
            }
            this.restored.add(record.txnId);
            const arrived = room.getLiveTimeline().getEvents().some((event) => event.getUnsigned().transaction_id === record.txnId);
            if (arrived) await this.store.drop(record);
            else this.enqueue(record);
        }
        this.wake();
    }

    /** To be called when there may be a network again. */
    wake(): void {
        for (const roomId of this.lines.keys()) this.pump(roomId);
    }

    stop(): void {
        this.stopped = true;
        for (const line of this.lines.values()) clearTimeout(line.timer);
    }

    /** A time for what is written now, later than that of all that was written before. */
    private now(): number {
        return (this.written = Math.max(Date.now(), this.written + 1));
    }

    private enqueue(record: Unsent): void {
        const { roomId, type, content, txnId, ts, redacts } = record;
        const room = this.client.getRoom(roomId);
        if (!room) return;
        const sender = this.client.getSafeUserId();
        const event = new MatrixEvent({
            type,
            content,
            event_id: `~${roomId}:${txnId}`,
            sender,
            room_id: roomId,
            origin_server_ts: ts,
            ...(redacts === undefined ? {} : { redacts }),
        });
        event.setTxnId(txnId);
        event.setStatus(EventStatus.NOT_SENT);
        let line = this.lines.get(roomId);
        if (!line) this.lines.set(roomId, (line = { room, jobs: [], running: false, timer: undefined }));
        line.jobs.push({ record, event, attempts: 0 });
        room.addPendingEvent(event, txnId);
    }

    private find(txnId: string): { line: Line; job: Job } | undefined {
        for (const line of this.lines.values()) {
            const job = line.jobs.find((each) => each.record.txnId === txnId);
            if (job) return { line, job };
        }
        return undefined;
    }

    private pump(roomId: string): void {
        const line = this.lines.get(roomId);
        if (line && !line.running) void this.run(line);
    }

    private async run(line: Line): Promise<void> {
        line.running = true;
        clearTimeout(line.timer);
        for (;;) {
            const job = line.jobs.find(({ record }) => !record.refused);
            if (!job || !this.online() || this.stopped) break;
            const pause = await this.attempt(line, job);
            if (pause === undefined) continue;
            line.timer = setTimeout(() => this.pump(line.room.roomId), pause);
            break;
        }
        line.running = false;
    }

    /** Tries once. Gives a time to wait for, if it is to be tried again. */
    private async attempt(line: Line, job: Job): Promise<number | undefined> {
        let failure: unknown;
        try {
            if (job.event.status === EventStatus.NOT_SENT) await this.client.resendEvent(job.event, line.room);
        } catch (error) {
            failure = error;
        }
        if (this.stopped) return undefined; // what is kept is another page's affair now, or wiped
        // Its echo may have come where the answer did not.
        if (failure === undefined || job.event.status === null) {
            this.done(line, job);
            return undefined;
        }
        const pause = pauseAfter(failure, ++job.attempts);
        if (pause !== undefined) return pause;
        if (SILENT.has(job.record.type)) {
            this.done(line, job);
            this.client.cancelPendingEvent(job.event);
            return undefined;
        }
        job.record = { ...job.record, refused: true };
        this.store.put(job.record).catch(() => undefined);
        line.room.emit(RoomEvent.LocalEchoUpdated, job.event, line.room); // it looks different now
        return undefined;
    }

    private done(line: Line, job: Job): void {
        line.jobs = line.jobs.filter((each) => each !== job);
        this.store.drop(job.record).catch(() => undefined);
    }
}

interface Failure {
    httpStatus?: unknown;
    name?: unknown;
    data?: { retry_after_ms?: unknown };
}

/** How long to wait before the next attempt; `undefined` if another one would fare no better. */
export function pauseAfter(error: unknown, attempts: number): number | undefined {
    const { httpStatus: status, name, data }: Failure = typeof error === "object" && error !== null ? error : {};
    const growing = Math.min(FIRST_PAUSE_MS * 2 ** (attempts - 1), LONGEST_PAUSE_MS);
    if (status === 429) return typeof data?.retry_after_ms === "number" && data.retry_after_ms > 0 ? data.retry_after_ms : growing;
    if (typeof status === "number") return status >= 500 && attempts < MAX_ATTEMPTS ? growing : undefined;
    // No answer came at all.
    return name === "ConnectionError" || name === "TypeError" || name === "AbortError" ? growing : undefined;
}

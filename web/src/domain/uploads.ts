/** Files on their way into a room: encrypted if the room is, uploaded with progress, then sent as a message. */
import { signal } from "@preact/signals-core";
import { encryptFile } from "./attachments.ts";
import { newTransaction, type UnsentFile } from "../store/outbox.ts";
import type { MatrixClient } from "./client.ts";
import { describeError } from "./errors.ts";
import { contentOfFile, type PreparedFile, type Where } from "./filecontent.ts";
import { tooLarge } from "./filelimits.ts";
import { type Outbox, pauseAfter } from "./outbox.ts";

export interface Upload {
    id: number;
    name: string;
    file: PreparedFile;
    /** From 0 to 1. */
    progress: number;
    /** What went wrong, if something did. */
    failed: string | undefined;
    /** It goes on by itself when there is a network again. */
    waits?: boolean;
}

interface Job {
    record: UnsentFile<PreparedFile>;
    abort: AbortController;
    /** It failed for want of a network, and goes on with the next one. */
    waits: boolean;
}

export class Uploads {
    readonly list = signal<Upload[]>([]);
    private readonly jobs = new Map<number, Job>();
    /** The transactions of this page's files, those that are done among them. */
    private readonly begun = new Set<string>();
    private nextId = 1;
    /** One after the other, so that pictures stay in the order in which they were chosen. */
    private queue: Promise<void> = Promise.resolve();

    constructor(
        private readonly client: MatrixClient,
        private readonly roomId: string,
        private readonly outbox: Outbox,
        /** How large a file may be, in bytes, if the server says so. */
        readonly limit: () => Promise<number | undefined>,
    ) {}

    add(file: PreparedFile): Promise<void> {
        const record = { roomId: this.roomId, txnId: newTransaction(), ts: Date.now(), file };
        this.outbox.store.putFile(record).catch(() => undefined); // where nothing can be kept, it is sent all the same
        return this.begin(record);
    }

    /** Goes on with a file that an earlier page began with. The list that names it may be older than what became of it since. */
    restore(record: UnsentFile<PreparedFile>): void {
        if (this.begun.has(record.txnId)) return;
        if (this.outbox.took(record.txnId)) void this.outbox.store.dropFile(record).catch(() => undefined); // the page ended between the two
        else void this.begin(record);
    }

    /** To be called when there may be a network again. */
    wake(): void {
        for (const [id, job] of this.jobs) if (job.waits) this.retry(id);
    }

    private begin(record: UnsentFile<PreparedFile>): Promise<void> {
        const id = this.nextId++;
        this.begun.add(record.txnId);
        this.jobs.set(id, { record, abort: new AbortController(), waits: false });
        this.list.value = [...this.list.value, { id, name: record.file.name, file: record.file, progress: 0, failed: undefined }];
        return (this.queue = this.queue.then(() => this.run(id)));
    }

    retry(id: number): void {
        const job = this.jobs.get(id);
        if (!job) return;
        job.abort = new AbortController();
        job.waits = false;
        this.change(id, { failed: undefined, waits: false, progress: 0 });
        this.queue = this.queue.then(() => this.run(id));
    }

    cancel(id: number): void {
        this.jobs.get(id)?.abort.abort();
        this.drop(id);
    }

    private async run(id: number): Promise<void> {
        const job = this.jobs.get(id);
        if (!job) return; // cancelled while it waited
        try {
            const content = await this.upload(job, (progress) => this.change(id, { progress }));
            if (!this.jobs.has(id)) return;
            // The message itself says what becomes of it. It is kept before the file is let go of.
            this.outbox.send(this.roomId, "m.room.message", content, { txnId: job.record.txnId });
            this.drop(id);
        } catch (error) {
            job.waits = pauseAfter(error, 1) !== undefined;
            this.change(id, job.waits ? { waits: true } : { failed: describeError(error) });
        }
    }

    private drop(id: number): void {
        const job = this.jobs.get(id);
        if (job) this.outbox.store.dropFile(job.record).catch(() => undefined);
        this.jobs.delete(id);
        this.list.value = this.list.value.filter((upload) => upload.id !== id);
    }

    private change(id: number, change: Partial<Upload>): void {
        this.list.value = this.list.value.map((upload) => (upload.id === id ? { ...upload, ...change } : upload));
    }

    private async upload({ record: { file }, abort }: Job, onProgress: (progress: number) => void): Promise<Record<string, unknown>> {
        const refusal = tooLarge(file.blob.size, await this.limit());
        if (refusal !== undefined) throw new Error(refusal);
        const { thumbnail } = file;
        // Of pictures that the server can read it makes thumbnails itself, in all sizes.
        const wanted = thumbnail && (this.encrypted || file.kind !== "image");
        const small = wanted ? await this.put(thumbnail.blob, undefined, abort) : undefined;
        return contentOfFile(file, await this.put(file.blob, file.name, abort, onProgress), small);
    }

    private get encrypted(): boolean {
        return this.client.getRoom(this.roomId)?.hasEncryptionStateEvent() ?? false;
    }

    private async put(blob: Blob, name: string | undefined, abort: AbortController, onProgress?: (progress: number) => void): Promise<Where> {
        const progressHandler = ({ loaded, total }: { loaded: number; total: number }): void => onProgress?.(total > 0 ? loaded / total : 0);
        const common = { abortController: abort, progressHandler };
        if (!this.encrypted) {
            const { content_uri: url } = await this.client.uploadContent(blob, { ...common, ...(name === undefined ? { includeFilename: false } : { name }) });
            return { url };
        }
        const { cipher, file } = await encryptFile(await blob.arrayBuffer());
        const sealed = new Blob([cipher], { type: "application/octet-stream" }); // the name is none of the server's business
        const { content_uri: url } = await this.client.uploadContent(sealed, { ...common, includeFilename: false });
        return { file: { ...file, url } };
    }
}

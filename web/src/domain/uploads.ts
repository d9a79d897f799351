/** Files on their way into a room: encrypted if the room is, uploaded with progress, then sent as a message. */
import { signal } from "@preact/signals-core";
import { encryptFile, type EncryptedFile } from "./attachments.ts";
import type { UnsentFile } from "../store/outbox.ts";
import type { MatrixClient } from "./client.ts";
import { describeError } from "./errors.ts";
import type { Attachment } from "./media.ts";
import { newTransaction, type Outbox, pauseAfter } from "./outbox.ts";

/** A file as the browser prepared it. */
export interface PreparedFile {
    blob: Blob;
    name: string;
    kind: Attachment["kind"];
    width?: number;
    height?: number;
    thumbnail?: { blob: Blob; width: number; height: number };
}

export interface Upload {
    id: number;
    name: string;
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
    private nextId = 1;
    /** One after the other, so that pictures stay in the order in which they were chosen. */
    private queue: Promise<void> = Promise.resolve();

    constructor(
        private readonly client: MatrixClient,
        private readonly roomId: string,
        private readonly outbox: Outbox,
    ) {}

    add(file: PreparedFile): Promise<void> {
        const record = { roomId: this.roomId, txnId: newTransaction(), ts: Date.now(), file };
        this.outbox.store.putFile(record).catch(() => undefined); // where nothing can be kept, it is sent all the same
        return this.begin(record);
    }

    /** Goes on with a file that an earlier page began with. */
    restore(record: UnsentFile<PreparedFile>): void {
        if ([...this.jobs.values()].some((job) => job.record.txnId === record.txnId)) return;
        void this.begin(record);
    }

    /** To be called when there may be a network again. */
    wake(): void {
        for (const [id, job] of this.jobs) if (job.waits) this.retry(id);
    }

    private begin(record: UnsentFile<PreparedFile>): Promise<void> {
        const id = this.nextId++;
        this.jobs.set(id, { record, abort: new AbortController(), waits: false });
        this.list.value = [...this.list.value, { id, name: record.file.name, progress: 0, failed: undefined }];
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
        const info: Record<string, unknown> = {
            mimetype: file.blob.type || "application/octet-stream",
            size: file.blob.size,
            ...(file.width && file.height ? { w: file.width, h: file.height } : {}),
        };
        const { thumbnail } = file;
        if (thumbnail) {
            Object.assign(info, prefixed("thumbnail_", await this.put(thumbnail.blob, undefined, abort)), {
                thumbnail_info: { mimetype: thumbnail.blob.type, size: thumbnail.blob.size, w: thumbnail.width, h: thumbnail.height },
            });
        }
        const where = await this.put(file.blob, file.name, abort, onProgress);
        return { msgtype: `m.${file.kind}`, body: file.name, filename: file.name, info, ...where };
    }

    private async put(blob: Blob, name: string | undefined, abort: AbortController, onProgress?: (progress: number) => void): Promise<{ url: string } | { file: EncryptedFile }> {
        const progressHandler = ({ loaded, total }: { loaded: number; total: number }): void => onProgress?.(total > 0 ? loaded / total : 0);
        const common = { abortController: abort, progressHandler };
        if (!this.client.getRoom(this.roomId)?.hasEncryptionStateEvent()) {
            const { content_uri: url } = await this.client.uploadContent(blob, { ...common, ...(name === undefined ? { includeFilename: false } : { name }) });
            return { url };
        }
        const { cipher, file } = await encryptFile(await blob.arrayBuffer());
        const sealed = new Blob([cipher], { type: "application/octet-stream" }); // the name is none of the server's business
        const { content_uri: url } = await this.client.uploadContent(sealed, { ...common, includeFilename: false });
        return { file: { ...file, url } };
    }
}

function prefixed(prefix: string, values: Record<string, unknown>): Record<string, unknown> {
    return Object.fromEntries(Object.entries(values).map(([key, value]) => [prefix + key, value]));
}

/** Files on their way into a room: encrypted if the room is, uploaded with progress, then sent as a message. */
import { signal } from "@preact/signals-core";
import type { Room } from "matrix-js-sdk/lib/models/room";
import { encryptFile, type EncryptedFile } from "./attachments.ts";
import type { MatrixClient } from "./client.ts";
import { describeError } from "./errors.ts";
import type { Attachment } from "./media.ts";

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
}

interface Job {
    file: PreparedFile;
    abort: AbortController;
}

export class Uploads {
    readonly list = signal<Upload[]>([]);
    private readonly jobs = new Map<number, Job>();
    private nextId = 1;
    /** One after the other, so that pictures stay in the order in which they were chosen. */
    private queue: Promise<void> = Promise.resolve();

    constructor(
        private readonly client: MatrixClient,
        private readonly room: Room,
    ) {}

    add(file: PreparedFile): Promise<void> {
        const id = this.nextId++;
        this.jobs.set(id, { file, abort: new AbortController() });
        this.list.value = [...this.list.value, { id, name: file.name, progress: 0, failed: undefined }];
        return (this.queue = this.queue.then(() => this.run(id)));
    }

    retry(id: number): void {
        const job = this.jobs.get(id);
        if (!job) return;
        job.abort = new AbortController();
        this.change(id, { failed: undefined, progress: 0 });
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
            this.drop(id);
            this.client.sendMessage(this.room.roomId, content as never).catch(() => undefined); // the message itself says what becomes of it
        } catch (error) {
            this.change(id, { failed: describeError(error) });
        }
    }

    private drop(id: number): void {
        this.jobs.delete(id);
        this.list.value = this.list.value.filter((upload) => upload.id !== id);
    }

    private change(id: number, change: Partial<Upload>): void {
        this.list.value = this.list.value.map((upload) => (upload.id === id ? { ...upload, ...change } : upload));
    }

    private async upload({ file, abort }: Job, onProgress: (progress: number) => void): Promise<Record<string, unknown>> {
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
        if (!this.room.hasEncryptionStateEvent()) {
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

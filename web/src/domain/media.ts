/** Pictures and files of messages: fetched with the session's token, decrypted if need be, and kept as long as they are used. */
import { t } from "./i18n.ts";
import { decryptFile, type EncryptedFile, encryptedFileIn } from "./attachments.ts";
import { waveformIn } from "./waveform.ts";

/** A file in a message. */
export interface Attachment {
    kind: "image" | "video" | "audio" | "file";
    name: string;
    type: string;
    size: number | undefined;
    width: number | undefined;
    height: number | undefined;
    durationMs: number | undefined;
    /** What is drawn until the picture is there (blurhashes.ts). */
    blurhash: string | undefined;
    /** Of a voice message: how loud it is over its time; empty if it does not say. */
    waveform: number[] | undefined;
    source: Source;
    thumbnail: Source | undefined;
}

export type Source = { mxc: string; file?: EncryptedFile };

/** What may be shown by the browser. SVG and HTML are documents, and are only ever saved. */
const SHOWN: ReadonlySet<string> = new Set(["image/png", "image/jpeg", "image/gif", "image/webp", "image/avif", "video/mp4", "video/webm", "audio/mpeg", "audio/ogg", "audio/mp4", "audio/wav", "audio/webm", "audio/aac", "audio/flac"]); // prettier-ignore
export const isShown = (type: string): boolean => SHOWN.has(type);

/** Pictures kept for when they come into sight again. */
const MAX_KEPT = 120;
/** Larger originals are not shown in place of a missing thumbnail. */
const MAX_UNASKED = 8 << 20;
/** The longer side of what stands for a picture where nobody says how large it is shown. */
const THUMBNAIL = 800;
/** No hash of a picture is longer, nor shorter. */
const BLURHASH = /^[0-9A-Za-z#$%*+,\-.:;=?@[\]^_{|}~]{6,120}$/;

/** Measures in pixels of the screen. */
export interface Box {
    width: number;
    height: number;
}

/** What somebody who waits for a file is told, and can do. */
export interface Watch {
    /** From 0 to 1. */
    onProgress?: (progress: number) => void;
    signal?: AbortSignal;
}

const KINDS: Record<string, Attachment["kind"]> = { "m.image": "image", "m.video": "video", "m.audio": "audio", "m.file": "file", "m.sticker": "image" };

/** The attachment that a message's content describes. */
export function attachmentIn(msgtype: string, content: Record<string, unknown>): Attachment | undefined {
    const kind = Object.hasOwn(KINDS, msgtype) ? KINDS[msgtype] : undefined;
    const source = sourceIn(content.url, content.file);
    if (kind === undefined || !source) return undefined;
    const info = record(content.info);
    const name = [content.filename, content.body].find((value) => typeof value === "string" && value.trim() !== "") as string | undefined;
    const type = typeof info.mimetype === "string" ? info.mimetype.toLowerCase().split(";")[0]!.trim() : "application/octet-stream";
    const audio = record(content["org.matrix.msc1767.audio"] ?? content["m.audio_details"]);
    const isVoice = kind === "audio" && (content["org.matrix.msc3245.voice"] ?? content["m.voice"]) !== undefined;
    const blurhash = info["xyz.amorgan.blurhash"] ?? info.blurhash;
    return {
        kind,
        name: (name ?? "file").slice(0, 200),
        type,
        size: count(info.size),
        width: count(info.w),
        height: count(info.h),
        durationMs: count(info.duration) ?? count(audio.duration),
        blurhash: typeof blurhash === "string" && BLURHASH.test(blurhash) ? blurhash : undefined,
        waveform: isVoice ? (waveformIn(audio.waveform) ?? []) : undefined,
        source,
        thumbnail: sourceIn(info.thumbnail_url, info.thumbnail_file),
    };
}

function sourceIn(url: unknown, encrypted: unknown): Source | undefined {
    const file = encryptedFileIn(encrypted);
    const mxc = file?.url ?? url;
    if (typeof mxc !== "string" || !parseMxc(mxc)) return undefined;
    return file ? { mxc, file } : { mxc };
}

/**
 * What is said beside a file. Where a message names the file apart, its body is that.
 * spec: client-server §Media captions (MSC2530)
 */
export function captionIn(content: Record<string, unknown>): string | undefined {
    const { body, filename } = content;
    return typeof body === "string" && typeof filename === "string" && filename !== "" && body !== filename && body.trim() !== "" ? body : undefined;
}

function record(value: unknown): Record<string, unknown> {
    return typeof value === "object" && value !== null ? (value as Record<string, unknown>) : {};
}

function count(value: unknown): number | undefined {
    return typeof value === "number" && Number.isFinite(value) && value > 0 && value < 1e12 ? value : undefined;
}

/** spec: client-server §Matrix Content (mxc://) URIs */
export function parseMxc(mxc: string): { server: string; id: string } | undefined {
    const match = /^mxc:\/\/([A-Za-z0-9.:[\]-]+)\/([A-Za-z0-9_-]+)$/.exec(mxc);
    return match ? { server: match[1]!, id: match[2]! } : undefined;
}

export class Media {
    private readonly kept = new Map<string, Promise<string>>();
    private asked: Promise<number | undefined> | undefined;

    constructor(
        private readonly fetch: typeof globalThis.fetch,
        private readonly origin: string,
        private readonly token: () => string | null,
    ) {}

    /** How large a file may be that is uploaded, in bytes, if the server says so. Asked once. spec: §GET /media/config */
    limit(): Promise<number | undefined> {
        return (this.asked ??= this.askLimit().catch(() => {
            this.asked = undefined; // the next file asks again
            return undefined;
        }));
    }

    private async askLimit(): Promise<number | undefined> {
        const answer = await this.request("/_matrix/client/v1/media/config");
        return count(((await answer.json()) as Record<string, unknown>)["m.upload.size"]);
    }

    /** An address for an `img` with the attachment's preview, for a place of that size, or nothing if there is none to be had. */
    preview(attachment: Attachment, box: Box = { width: THUMBNAIL, height: THUMBNAIL }): Promise<string> | undefined {
        const { thumbnail, source, size, type, kind } = attachment;
        const own = thumbnail && (thumbnail.file || kind !== "image") ? thumbnail : undefined;
        if (own?.file) return this.keep(own.mxc, () => this.load(own, "download", "image/jpeg"));
        const from = own ?? (kind === "image" && isShown(type) ? source : undefined);
        if (!from) return undefined;
        if (from.file) return (size ?? 0) > MAX_UNASKED ? undefined : this.original(attachment);
        if (type === "image/gif") return this.original(attachment);
        const query = `width=${Math.ceil(box.width)}&height=${Math.ceil(box.height)}&method=scale`;
        return this.keep(`${from.mxc}#${query}`, async () => {
            try {
                return await this.load(from, "thumbnail", "image/jpeg", query);
            } catch (error) {
                // The server cannot read every kind of picture that a browser can.
                if (own || (size ?? 0) > MAX_UNASKED) throw error;
                return this.load(from, "download", type);
            }
        });
    }

    /** An address for the file itself. What the browser might run is typed as bytes. */
    original({ source, type, size }: Attachment, watch: Watch = {}): Promise<string> {
        return this.keep(source.mxc, () => this.load(source, "download", isShown(type) ? type : "application/octet-stream", "", { ...watch, size }));
    }

    /** A small form of a picture that the server keeps for itself, as those of pages that are linked to. */
    thumbnail(mxc: string): Promise<string> {
        return this.keep(`${mxc}#small`, () => this.load({ mxc }, "thumbnail", "image/jpeg"));
    }

    avatar(mxc: string): Promise<string> | undefined {
        if (!parseMxc(mxc)) return undefined;
        return this.keep(`${mxc}#avatar`, () => this.load({ mxc }, "thumbnail", "image/png", "width=96&height=96&method=crop"));
    }

    /** Lets go of everything. */
    close(): void {
        for (const address of this.kept.values()) address.then((url) => URL.revokeObjectURL(url), () => undefined);
        this.kept.clear();
    }

    private keep(key: string, load: () => Promise<string>): Promise<string> {
        const known = this.kept.get(key);
        if (known) {
            this.kept.delete(key);
            this.kept.set(key, known); // used last
            return known;
        }
        const loading = load();
        this.kept.set(key, loading);
        loading.catch(() => this.kept.delete(key)); // the next look tries again
        const oldest = this.kept.keys().next().value;
        if (this.kept.size > MAX_KEPT && oldest !== undefined) {
            const old = this.kept.get(oldest)!;
            this.kept.delete(oldest);
            old.then((url) => URL.revokeObjectURL(url), () => undefined);
        }
        return loading;
    }

    private async load({ mxc, file }: Source, form: "download" | "thumbnail", type: string, query = `width=${THUMBNAIL}&height=${THUMBNAIL}&method=scale`, watch: Watch & { size?: number | undefined } = {}): Promise<string> {
        const address = parseMxc(mxc);
        if (!address) throw new Error(t("This file has no address."));
        const path = `/_matrix/client/v1/media/${form}/${encodeURIComponent(address.server)}/${encodeURIComponent(address.id)}`;
        const answer = await this.request(form === "thumbnail" ? `${path}?${query}` : path, watch.signal);
        const bytes = watch.onProgress ? await readWhole(answer, watch.size, watch.onProgress) : await answer.arrayBuffer();
        return URL.createObjectURL(new Blob([file ? await decryptFile(bytes, file) : bytes], { type }));
    }

    private async request(path: string, signal?: AbortSignal): Promise<Response> {
        const answer = await this.fetch.call(undefined, `${this.origin}${path}`, {
            headers: { Authorization: `Bearer ${this.token() ?? ""}` },
            credentials: "omit",
            ...(signal ? { signal } : {}),
        });
        if (!answer.ok) throw new Error(t("The server answered {status}.", { status: answer.status }));
        return answer;
    }
}

/** Reads an answer and says how far it is. The server names the length, unless it packs what it sends. */
async function readWhole(answer: Response, expected: number | undefined, onProgress: (progress: number) => void): Promise<ArrayBuffer> {
    const total = Number(answer.headers.get("Content-Length")) || expected || 0;
    const parts: Uint8Array<ArrayBuffer>[] = [];
    let loaded = 0;
    for (const reader = answer.body!.getReader(); ; ) {
        const { done, value } = await reader.read();
        if (done) return new Blob(parts).arrayBuffer();
        parts.push(value);
        loaded += value.length;
        if (total > 0) onProgress(Math.min(1, loaded / total));
    }
}

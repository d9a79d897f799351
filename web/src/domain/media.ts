/** Pictures and files of messages: fetched with the session's token, decrypted if need be, and kept as long as they are used. */
import { t } from "./i18n.ts";
import { decryptFile, type EncryptedFile, encryptedFileIn } from "./attachments.ts";

/** A file in a message. */
export interface Attachment {
    kind: "image" | "video" | "audio" | "file";
    name: string;
    type: string;
    size: number | undefined;
    width: number | undefined;
    height: number | undefined;
    source: Source;
    thumbnail: Source | undefined;
}

export type Source = { mxc: string; file?: EncryptedFile };

/** What may be shown by the browser. SVG and HTML are documents, and are only ever saved. */
const SHOWN: ReadonlySet<string> = new Set(["image/png", "image/jpeg", "image/gif", "image/webp", "image/avif", "video/mp4", "video/webm", "audio/mpeg", "audio/ogg", "audio/mp4", "audio/wav", "audio/webm"]); // prettier-ignore
export const isShown = (type: string): boolean => SHOWN.has(type);

/** Pictures kept for when they come into sight again. */
const MAX_KEPT = 120;
/** Larger originals are not shown in place of a missing thumbnail. */
const MAX_UNASKED = 8 << 20;
export const THUMBNAIL = 800;

const KINDS: Record<string, Attachment["kind"]> = { "m.image": "image", "m.video": "video", "m.audio": "audio", "m.file": "file", "m.sticker": "image" };

/** The attachment that a message's content describes. */
export function attachmentIn(msgtype: string, content: Record<string, unknown>): Attachment | undefined {
    const kind = Object.hasOwn(KINDS, msgtype) ? KINDS[msgtype] : undefined;
    const source = sourceIn(content.url, content.file);
    if (kind === undefined || !source) return undefined;
    const info = (typeof content.info === "object" && content.info !== null ? content.info : {}) as Record<string, unknown>;
    const name = [content.filename, content.body].find((value) => typeof value === "string" && value.trim() !== "") as string | undefined;
    const type = typeof info.mimetype === "string" ? info.mimetype.toLowerCase() : "application/octet-stream";
    return {
        kind,
        name: (name ?? "file").slice(0, 200),
        type,
        size: count(info.size),
        width: count(info.w),
        height: count(info.h),
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

    constructor(
        private readonly fetch: typeof globalThis.fetch,
        private readonly origin: string,
        private readonly token: () => string | null,
    ) {}

    /** An address for an `img` with the attachment's preview, or nothing if there is none to be had. */
    preview(attachment: Attachment): Promise<string> | undefined {
        const { thumbnail, source, size, type } = attachment;
        if (thumbnail) return this.keep(thumbnail.mxc, () => this.load(thumbnail, thumbnail.file ? "download" : "thumbnail", "image/jpeg"));
        if (attachment.kind !== "image" || !isShown(type)) return undefined;
        if (source.file) return (size ?? 0) > MAX_UNASKED ? undefined : this.original(attachment);
        return this.keep(`${source.mxc}#small`, () => this.load(source, type === "image/gif" ? "download" : "thumbnail", type));
    }

    /** An address for the file itself. What the browser might run is typed as bytes. */
    original({ source, type }: Attachment): Promise<string> {
        return this.keep(source.mxc, () => this.load(source, "download", isShown(type) ? type : "application/octet-stream"));
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

    private async load({ mxc, file }: Source, form: "download" | "thumbnail", type: string, size = `width=${THUMBNAIL}&height=${THUMBNAIL}&method=scale`): Promise<string> {
        const address = parseMxc(mxc);
        if (!address) throw new Error(t("This file has no address."));
        const path = `/_matrix/client/v1/media/${form}/${encodeURIComponent(address.server)}/${encodeURIComponent(address.id)}`;
        const answer = await this.fetch.call(undefined, `${this.origin}${path}${form === "thumbnail" ? `?${size}` : ""}`, {
            headers: { Authorization: `Bearer ${this.token() ?? ""}` },
            credentials: "omit",
        });
        if (!answer.ok) throw new Error(t("The server answered {status}.", { status: answer.status }));
        const bytes = await answer.arrayBuffer();
        return URL.createObjectURL(new Blob([file ? await decryptFile(bytes, file) : bytes], { type }));
    }
}

/** The content of messages that are files, as it is sent. Pure. */
import type { EncryptedFile } from "./attachments.ts";
import type { Attachment } from "./media.ts";

/** A file as the browser prepared it. */
export interface PreparedFile {
    blob: Blob;
    name: string;
    kind: Attachment["kind"];
    width?: number;
    height?: number;
    durationMs?: number;
    blurhash?: string;
    thumbnail?: { blob: Blob; width: number; height: number };
    /** Of a voice message: how loud it is, from 0 to 1024. */
    waveform?: number[];
    /** What else the message says: a caption in place of the name, what it answers. */
    more?: Record<string, unknown>;
}

/** Where a file is, as the server or the encryption said. */
export type Where = { url: string } | { file: EncryptedFile };

export function contentOfFile(file: PreparedFile, where: Where, thumbnail: Where | undefined): Record<string, unknown> {
    const { kind, name, more } = file;
    const info = infoOf(file, thumbnail);
    return { msgtype: `m.${kind}`, body: name, filename: name, info, ...where, ...(file.waveform ? voice(file, where, info) : {}), ...more };
}

/** spec: client-server §m.image, §m.video, §m.audio; `xyz.amorgan.blurhash`: MSC2448 before it has a name of its own */
function infoOf(file: PreparedFile, where: Where | undefined): Record<string, unknown> {
    const { blob, width, height, durationMs, blurhash, thumbnail } = file;
    const hash = blurhash === undefined ? {} : { "xyz.amorgan.blurhash": blurhash };
    return {
        mimetype: blob.type.split(";")[0] || "application/octet-stream",
        size: blob.size,
        ...(width && height ? { w: width, h: height } : {}),
        ...(durationMs ? { duration: Math.round(durationMs) } : {}),
        ...hash,
        ...(thumbnail && where
            ? {
                  ...Object.fromEntries(Object.entries(where).map(([key, value]) => [`thumbnail_${key}`, value])),
                  thumbnail_info: { mimetype: thumbnail.blob.type, size: thumbnail.blob.size, w: thumbnail.width, h: thumbnail.height, ...hash },
              }
            : {}),
    };
}

/** spec: MSC3245 (voice messages) by the unstable names that all clients use, on MSC1767 (extensible events) */
function voice({ name, blob, waveform, durationMs }: PreparedFile, where: Where, info: Record<string, unknown>): Record<string, unknown> {
    return {
        "org.matrix.msc1767.text": name,
        "org.matrix.msc1767.file": { name, mimetype: info.mimetype, size: blob.size, ...where },
        "org.matrix.msc1767.audio": { duration: Math.round(durationMs ?? 0), waveform },
        "org.matrix.msc3245.voice": {},
    };
}

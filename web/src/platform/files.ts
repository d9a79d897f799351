/** What the browser can tell of a file that somebody chose: its kind, its measures, and a small picture of it. */
import { isShown } from "../domain/media.ts";
import type { PreparedFile } from "../domain/uploads.ts";

/** The longer side of a thumbnail, twice what a phone shows. */
const THUMBNAIL_SIDE = 800;
/** Pictures below this are their own thumbnail. */
const SMALL_BYTES = 100_000;

export async function prepareFile(file: File): Promise<PreparedFile> {
    const name = file.name === "" ? "file" : file.name;
    const group = file.type.split("/")[0];
    const kind = isShown(file.type) && (group === "image" || group === "video" || group === "audio") ? group : "file";
    const plain: PreparedFile = { blob: file, name, kind };
    if (kind !== "image") return plain;
    try {
        const bitmap = await createImageBitmap(file);
        const { width, height } = bitmap;
        const thumbnail = file.size > SMALL_BYTES && file.type !== "image/gif" ? await shrink(bitmap) : undefined;
        bitmap.close();
        return { ...plain, width, height, ...(thumbnail ? { thumbnail } : {}) };
    } catch {
        return { ...plain, kind: "file" }; // it calls itself a picture and is none
    }
}

async function shrink(bitmap: ImageBitmap): Promise<PreparedFile["thumbnail"]> {
    const scale = Math.min(1, THUMBNAIL_SIDE / Math.max(bitmap.width, bitmap.height));
    const [width, height] = [Math.max(1, Math.round(bitmap.width * scale)), Math.max(1, Math.round(bitmap.height * scale))];
    const canvas = new OffscreenCanvas(width, height);
    canvas.getContext("2d")!.drawImage(bitmap, 0, 0, width, height);
    return { blob: await canvas.convertToBlob({ type: "image/jpeg", quality: 0.8 }), width, height };
}

/** Saves what is at an address of this page under a name; it is never opened. */
export function saveAs(url: string, name: string): void {
    const link = document.createElement("a");
    link.href = url;
    link.download = name;
    link.click();
}

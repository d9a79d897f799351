/**
 * Makes of a file that somebody chose what is sent: pictures smaller and without what the camera wrote beside them,
 * with a thumbnail and a hash for the time until they are there; of videos and recordings the measures. Loaded with the
 * first file.
 */
import { hashOf } from "../domain/blurhashes.ts";
import type { PreparedFile } from "../domain/filecontent.ts";
import { fitInto, natureOf, renamed } from "../domain/pictures.ts";
import { kindOf } from "./files.ts";

/** The longer side of a picture that is sent: enough for a large screen, and a tenth of what a phone's camera makes. */
const PICTURE_SIDE = 2048;
/** The longer side of a thumbnail, twice what a phone shows. */
const THUMBNAIL_SIDE = 800;
/** Pictures below this are their own thumbnail. */
const SMALL_BYTES = 100_000;
/** Waves are all that a hash keeps; more pixels would change nothing. */
const HASH_SIDE = 48;
const PICTURE_QUALITY = 0.82;
const THUMBNAIL_QUALITY = 0.75;
/** A video or recording that cannot be read in this time is sent without measures. */
const READ_MS = 5_000;
/** Kinds of pictures that few browsers show, and those that can read them make others of. */
const CONVERTED = /^image\/(heic|heif|bmp|tiff|x-ms-bmp)$/;

/** Throws nothing: what cannot be read is sent as it is. */
export async function prepareFile(file: File, original = false): Promise<PreparedFile> {
    const name = file.name === "" ? "file" : file.name;
    const plain: PreparedFile = { blob: file, name, kind: kindOf(file.type) };
    try {
        if (plain.kind === "image" || (!original && CONVERTED.test(file.type))) return await preparePicture(plain, original);
        if (plain.kind === "video") return { ...plain, ...(await lookAtVideo(file)) };
        if (plain.kind === "audio") return { ...plain, ...(await lookAtSound(file)) };
        return plain;
    } catch {
        return plain.kind === "image" ? { ...plain, kind: "file" } : plain; // it calls itself a picture and is none
    }
}

/** Whether a smaller one can be made of it, for the choice before sending. SVG is a document, and GIF moves. */
export const canShrink = (file: File): boolean => CONVERTED.test(file.type) || (kindOf(file.type) === "image" && file.type !== "image/gif");

async function preparePicture(plain: PreparedFile, original: boolean): Promise<PreparedFile> {
    const { blob } = plain;
    const bitmap = await createImageBitmap(blob, { imageOrientation: "from-image" }); // the way it is held, not the way it is stored
    try {
        const nature = natureOf(new Uint8Array(await blob.arrayBuffer()));
        const measures = { width: bitmap.width, height: bitmap.height, blurhash: hash(bitmap, bitmap.width, bitmap.height) };
        const sent = original || nature.moves ? undefined : await smaller(plain, bitmap, nature.notes);
        const whole: PreparedFile = { ...plain, kind: "image", ...measures, ...sent };
        if (nature.moves || whole.blob.size <= SMALL_BYTES) return whole;
        return { ...whole, thumbnail: await draw(bitmap, bitmap.width, bitmap.height, THUMBNAIL_SIDE, THUMBNAIL_QUALITY) };
    } finally {
        bitmap.close();
    }
}

/** The picture drawn anew, unless the original is no larger and tells nothing. */
async function smaller({ blob, name }: PreparedFile, bitmap: ImageBitmap, notes: boolean): Promise<Partial<PreparedFile> | undefined> {
    const made = await draw(bitmap, bitmap.width, bitmap.height, PICTURE_SIDE, PICTURE_QUALITY);
    if (made.blob.size >= blob.size && !notes) return undefined;
    return { ...made, name: renamed(name, made.blob.type) };
}

type Drawn = { blob: Blob; width: number; height: number };

async function draw(source: CanvasImageSource, fullWidth: number, fullHeight: number, side: number, quality: number): Promise<Drawn> {
    const { width, height } = fitInto(fullWidth, fullHeight, side);
    const canvas = new OffscreenCanvas(width, height);
    const context = canvas.getContext("2d")!;
    context.imageSmoothingQuality = "high";
    context.drawImage(source, 0, 0, width, height);
    const blob = await canvas.convertToBlob({ type: "image/webp", quality });
    if (blob.type === "image/webp") return { blob, width, height };
    // A browser that cannot write WebP gives PNG, which is large but keeps what shines through.
    context.globalCompositeOperation = "destination-over";
    context.fillStyle = "#fff";
    context.fillRect(0, 0, width, height);
    return { blob: await canvas.convertToBlob({ type: "image/jpeg", quality }), width, height };
}

function hash(source: CanvasImageSource, fullWidth: number, fullHeight: number): string {
    const { width, height } = fitInto(fullWidth, fullHeight, HASH_SIDE);
    const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true })!;
    context.drawImage(source, 0, 0, width, height);
    return hashOf(context.getImageData(0, 0, width, height).data, width, height);
}

type Measures = Partial<Pick<PreparedFile, "width" | "height" | "durationMs" | "blurhash" | "thumbnail">>;

/** A video's measures, and a picture of it from shortly after its beginning, which is often black. */
async function lookAtVideo(blob: Blob): Promise<Measures> {
    const video = document.createElement("video");
    video.muted = true;
    video.playsInline = true;
    return reading(video, blob, async () => {
        await happens(video, "loadeddata");
        const { videoWidth: width, videoHeight: height } = video;
        const durationMs = await durationOf(video);
        const moved = happens(video, "seeked");
        video.currentTime = Math.min(1, (durationMs ?? 0) / 4000);
        await moved;
        const measures = { width, height, ...(durationMs ? { durationMs } : {}) };
        return { ...measures, blurhash: hash(video, width, height), thumbnail: await draw(video, width, height, THUMBNAIL_SIDE, THUMBNAIL_QUALITY) };
    });
}

async function lookAtSound(blob: Blob): Promise<Measures> {
    const audio = document.createElement("audio");
    return reading(audio, blob, async () => {
        await happens(audio, "loadedmetadata");
        const durationMs = await durationOf(audio);
        return durationMs ? { durationMs } : {};
    });
}

/** What browsers record does not say how long it is, until one has been at its end. */
async function durationOf(media: HTMLMediaElement): Promise<number | undefined> {
    if (media.duration === Infinity) {
        const known = happens(media, "durationchange");
        media.currentTime = Number.MAX_SAFE_INTEGER;
        await known;
    }
    return Number.isFinite(media.duration) ? media.duration * 1000 : undefined;
}

async function reading(media: HTMLMediaElement, blob: Blob, look: () => Promise<Measures>): Promise<Measures> {
    const url = URL.createObjectURL(blob);
    media.preload = "auto";
    media.src = url;
    try {
        return await look();
    } catch {
        return {};
    } finally {
        media.removeAttribute("src");
        media.load();
        URL.revokeObjectURL(url);
    }
}

function happens(media: HTMLMediaElement, what: "loadeddata" | "loadedmetadata" | "seeked" | "durationchange"): Promise<void> {
    return new Promise((resolve, reject) => {
        const late = setTimeout(() => reject(new Error(`no ${what}`)), READ_MS);
        media.addEventListener(what, () => (clearTimeout(late), resolve()), { once: true });
        media.addEventListener("error", () => (clearTimeout(late), reject(new Error("cannot be read"))), { once: true });
    });
}

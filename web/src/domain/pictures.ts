/**
 * What the bytes of a picture say of it: whether it moves, and whether it tells more than what is to be seen, as the
 * place where it was taken. Pure. References: PNG (W3C), ISO/IEC 10918-1 (JPEG), RFC 9649 (WebP), ISO/IEC 14496-12 (AVIF).
 */

export interface Nature {
    /** It has more than one frame, of which a canvas would keep the first. */
    moves: boolean;
    /** It holds notes of the camera or of a program, which nobody sees and few know of. */
    notes: boolean;
}

export function natureOf(bytes: Uint8Array): Nature {
    const text = (at: number, length: number): string => String.fromCharCode(...bytes.subarray(at, at + length));
    if (text(0, 3) === "GIF") return { moves: true, notes: false }; // even where it does not, it gains nothing
    if (text(1, 3) === "PNG") return chunksOf(pngChunks(bytes), "acTL", ["eXIf", "tEXt", "iTXt", "zTXt"]);
    if (text(0, 4) === "RIFF" && text(8, 4) === "WEBP") return chunksOf(webpChunks(bytes), "ANIM", ["EXIF", "XMP "]);
    if (bytes[0] === 0xff && bytes[1] === 0xd8) return { moves: false, notes: jpegNotes(bytes) };
    if (text(4, 4) === "ftyp") return { moves: text(8, 4) === "avis", notes: true };
    return { moves: false, notes: true };
}

function chunksOf(names: Iterable<string>, moving: string, notes: readonly string[]): Nature {
    const found = new Set(names);
    return { moves: found.has(moving), notes: notes.some((name) => found.has(name)) };
}

function* pngChunks(bytes: Uint8Array): Generator<string> {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    for (let at = 8; at + 8 <= bytes.length; at += 12 + view.getUint32(at)) yield String.fromCharCode(...bytes.subarray(at + 4, at + 8));
}

function* webpChunks(bytes: Uint8Array): Generator<string> {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    for (let at = 12; at + 8 <= bytes.length; ) {
        yield String.fromCharCode(...bytes.subarray(at, at + 4));
        const size = view.getUint32(at + 4, true);
        at += 8 + size + (size & 1);
    }
}

/** Segments APP1 (Exif, XMP), APP13 (IPTC) and comments stand before the picture itself. */
function jpegNotes(bytes: Uint8Array): boolean {
    for (let at = 2; at + 4 <= bytes.length && bytes[at] === 0xff; ) {
        const marker = bytes[at + 1]!;
        if (marker === 0xda || marker === 0xd9) return false;
        if (marker === 0xe1 || marker === 0xed || marker === 0xfe) return true;
        at += 2 + (bytes[at + 2]! << 8) + bytes[at + 3]!;
    }
    return false;
}

/** Measures that keep the shape and have no side longer than this. */
export function fitInto(width: number, height: number, side: number): { width: number; height: number } {
    const scale = Math.min(1, side / Math.max(width, height));
    return { width: Math.max(1, Math.round(width * scale)), height: Math.max(1, Math.round(height * scale)) };
}

const ENDINGS: Record<string, string> = { "image/webp": ".webp", "image/jpeg": ".jpg", "image/png": ".png" };

/** The name of a file that became one of another type. */
export function renamed(name: string, type: string): string {
    const ending = ENDINGS[type];
    if (ending === undefined || name.toLowerCase().endsWith(ending)) return name;
    return name.replace(/\.\w{1,5}$/, "") + ending;
}

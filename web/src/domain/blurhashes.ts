/** Blurhash (MSC2448): a picture in some thirty letters, for the time until it is there. Loaded with the first one. */
import { decode, encode, isBlurhashValid } from "blurhash";

/** A side of what a hash is drawn on; it has no more than a few waves. */
export const SIDE = 32;

/** The hash of a picture's pixels, RGBA. They may be few. */
export function hashOf(pixels: Uint8ClampedArray, width: number, height: number): string {
    return width >= height ? encode(pixels, width, height, 4, 3) : encode(pixels, width, height, 3, 4);
}

/** The pixels, RGBA, of a square of SIDE; nothing of what is no hash. */
export function pixelsOf(hash: string): Uint8ClampedArray<ArrayBuffer> | undefined {
    return isBlurhashValid(hash).result ? new Uint8ClampedArray(decode(hash, SIDE, SIDE)) : undefined;
}

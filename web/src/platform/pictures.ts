/** A picture of a person or a room: square, no larger than it is shown, and without what the camera wrote into it. */

/** In pixels; the largest form on the screen, twice. */
const SIDE = 256;

/** The middle of what somebody chose, or nothing if it cannot be shown as a picture. */
export async function asAvatar(file: Blob): Promise<Blob | undefined> {
    try {
        const bitmap = await createImageBitmap(file);
        const cut = Math.min(bitmap.width, bitmap.height);
        const side = Math.min(SIDE, cut);
        const canvas = new OffscreenCanvas(side, side);
        canvas.getContext("2d")!.drawImage(bitmap, (bitmap.width - cut) / 2, (bitmap.height - cut) / 2, cut, cut, 0, 0, side, side);
        bitmap.close();
        return await canvas.convertToBlob({ type: "image/png" });
    } catch {
        return undefined;
    }
}

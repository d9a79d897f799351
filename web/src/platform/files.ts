/** Files of the device: what kind one is, and the way to save one. */
import { isShown } from "../domain/media.ts";
import type { PreparedFile } from "../domain/filecontent.ts";

/** What a file says it is, as far as it can be shown; anything else is just a file. */
export function kindOf(type: string): PreparedFile["kind"] {
    const group = type.split("/")[0];
    return isShown(type.split(";")[0]!) && (group === "image" || group === "video" || group === "audio") ? group : "file";
}

/** Saves what is at an address of this page under a name; it is never opened. */
export function saveAs(url: string, name: string): void {
    const link = document.createElement("a");
    link.href = url;
    link.download = name;
    link.click();
}

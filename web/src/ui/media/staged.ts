/** Files that were chosen, pasted or dropped, and are looked at once more before they are sent. */
import { signal } from "@preact/signals";
import type { Timeline } from "../../domain/timeline.ts";

export const staged = signal<{ timeline: Timeline; files: readonly File[] } | undefined>(undefined);

/** Shows what would be sent. What comes while that is open is added to it. */
export function stageFiles(timeline: Timeline, files: Iterable<File>): void {
    const before = staged.value?.timeline === timeline ? staged.value.files : [];
    const all = [...before, ...files];
    if (all.length > 0) staged.value = { timeline, files: all };
}

/** What is opened large at the moment. One at a time, above everything else. */
import { type ReadonlySignal, signal } from "@preact/signals";
import type { MediaItem } from "../../domain/gallery.ts";

export interface Opened {
    /** Oldest first. */
    items: ReadonlySignal<readonly MediaItem[]>;
    key: string;
    /** Fetches what is before the first. False if there is nothing more to be had. */
    older: () => Promise<boolean>;
}

export const gallery = signal<Opened | undefined>(undefined);

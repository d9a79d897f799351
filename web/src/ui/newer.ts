/** A newer build of the app than the one that runs. */
import { signal } from "@preact/signals";

/** The way to it, once it is here (platform/worker.ts). */
export const newerBuild = signal<(() => void) | undefined>(undefined);

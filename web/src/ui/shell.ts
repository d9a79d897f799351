/** The signed-in app is loaded when somebody is signed in: the first screen does without it, and comes sooner. */
import { signal } from "@preact/signals";

type Shell = typeof import("./Shell.tsx").Shell;

/** Undefined until it is there; `App` waits for it before it says that somebody is signed in. */
export const shell = signal<{ Shell: Shell } | undefined>(undefined);

export async function loadShell(): Promise<void> {
    shell.value ??= await import("./Shell.tsx");
}

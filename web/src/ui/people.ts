/** Whose profile is open, from wherever a person is named; and what is about to be reported. */
import { signal } from "@preact/signals";
import type { Reported } from "../domain/reports.ts";

export const reported = signal<Reported | undefined>(undefined);

export const profile = signal<{ userId: string; roomId?: string } | undefined>(undefined);

export function showProfile(userId: string, roomId?: string): void {
    profile.value = { userId, ...(roomId === undefined ? {} : { roomId }) };
}

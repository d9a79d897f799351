/** Whose profile is open, from wherever a person is named. */
import { signal } from "@preact/signals";

export const profile = signal<{ userId: string; roomId?: string } | undefined>(undefined);

export function showProfile(userId: string, roomId?: string): void {
    profile.value = { userId, ...(roomId === undefined ? {} : { roomId }) };
}

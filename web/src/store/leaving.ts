/** Who signed out of this device and has not left it yet: what a page has open cannot be removed while it is there. */
import type { KeyValue } from "./keyvalue.ts";

export interface Leaving {
    userId: string;
    deviceId: string;
    /** What the person is told, if they did not ask for it. */
    why?: string;
}

const KEY = "leaving";

export async function loadLeaving(kv: KeyValue): Promise<Leaving | undefined> {
    const value = (await kv.get(KEY)) as Partial<Leaving> | null | undefined;
    if (typeof value?.userId !== "string" || typeof value.deviceId !== "string") return undefined;
    const { userId, deviceId, why } = value;
    return { userId, deviceId, ...(typeof why === "string" ? { why } : {}) };
}

export async function saveLeaving(kv: KeyValue, leaving: Leaving): Promise<void> {
    await kv.set(KEY, leaving);
}

export async function clearLeaving(kv: KeyValue): Promise<void> {
    await kv.delete(KEY);
}

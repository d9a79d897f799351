/** Which devices of the account this one was told of already. Kept here and not with the account, so that no other device can hush them up. */
import type { KeyValue } from "./keyvalue.ts";

const keyOf = (userId: string): string => `devices-seen:${userId}`;

export async function loadSeen(kv: KeyValue, userId: string): Promise<string[]> {
    const value = await kv.get(keyOf(userId)).catch(() => undefined);
    return Array.isArray(value) ? value.filter((id) => typeof id === "string") : [];
}

export async function addSeen(kv: KeyValue, userId: string, deviceId: string): Promise<void> {
    await kv.set(keyOf(userId), [...new Set([...(await loadSeen(kv, userId)), deviceId])]);
}

export async function clearSeen(kv: KeyValue, userId: string): Promise<void> {
    await kv.delete(keyOf(userId));
}

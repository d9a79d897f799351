/** Who is signed in on this device. One session at a time. */
import type { KeyValue } from "./keyvalue.ts";

export interface Session {
    userId: string;
    deviceId: string;
    accessToken: string;
}

const KEY = "session";

/** The stored session, or `undefined` if there is none or what is stored is none. */
export async function loadSession(kv: KeyValue): Promise<Session | undefined> {
    const value = (await kv.get(KEY)) as Partial<Session> | null | undefined;
    if (typeof value?.userId !== "string" || typeof value.deviceId !== "string" || typeof value.accessToken !== "string") return undefined;
    const { userId, deviceId, accessToken } = value;
    return userId !== "" && deviceId !== "" && accessToken !== "" ? { userId, deviceId, accessToken } : undefined;
}

export async function saveSession(kv: KeyValue, session: Session): Promise<void> {
    await kv.set(KEY, session);
}

export async function clearSession(kv: KeyValue): Promise<void> {
    await kv.delete(KEY);
}

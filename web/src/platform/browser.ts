/** What the browser is asked for, and what it tells, in one place. */
import type { AppOptions } from "../domain/app.ts";
import { MemoryKeyValue } from "../store/keyvalue.ts";
import { IndexedDBKeyValue } from "../store/idb.ts";
import { deviceName } from "./devicename.ts";

/** The app's view of this browser. The server is where the page came from. */
export function browserOptions(): AppOptions {
    const idb = usableIndexedDB();
    return {
        origin: location.origin,
        fetch: (input, init) => fetch(input, init),
        connect: (url, protocol) => new WebSocket(url, protocol),
        deviceName: deviceName(navigator.userAgent),
        kv: idb ? new IndexedDBKeyValue(idb) : new MemoryKeyValue(),
        encryption: globalThis.isSecureContext, // elsewhere there is no WebCrypto to encrypt with
        ...(idb ? { indexedDB: idb } : {}),
    };
}

/** Some browsers throw at the mere mention of it. */
function usableIndexedDB(): IDBFactory | undefined {
    try {
        return window.indexedDB ?? undefined;
    } catch {
        return undefined;
    }
}

export interface Life {
    wake(): void;
    save(): Promise<void>;
}

/** Tells the app of coming and going. */
export function watchLife(life: Life): void {
    window.addEventListener("online", () => life.wake());
    document.addEventListener("visibilitychange", () => {
        if (document.visibilityState === "visible") life.wake();
        else void life.save();
    });
}

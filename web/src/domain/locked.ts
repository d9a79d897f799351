/**
 * Messages whose keys are not here yet. The backup has those of a moment ago only after the other device has put them there, which it
 * does with a delay of some seconds (SDK), and the SDK asks for each key once: a device that was just let in asks again.
 */
import type { CryptoBackend } from "matrix-js-sdk/lib/common-crypto/CryptoBackend";
import { type MatrixEvent, MatrixEventEvent } from "matrix-js-sdk/lib/models/event";
import type { MatrixClient } from "./client.ts";

/** After which times, in ms. The SDK does not ask twice within five seconds. */
const AGAIN_MS = [6_000, 15_000, 40_000];

/** As many as a reader may have before the eyes, and some more. */
const MAX_KEPT = 300;

export class LockedMessages {
    private readonly locked = new Set<MatrixEvent>();
    private timers: ReturnType<typeof setTimeout>[] = [];

    constructor(private readonly client: MatrixClient) {
        client.on(MatrixEventEvent.Decrypted, (event) => {
            if (!event.isDecryptionFailure()) return void this.locked.delete(event);
            this.locked.add(event);
            const [oldest] = this.locked;
            if (this.locked.size > MAX_KEPT) this.locked.delete(oldest!);
        });
    }

    /** To be called when this device has been given the keys of the account. */
    retry(): void {
        this.stop();
        this.timers = AGAIN_MS.map((ms) => setTimeout(() => this.decrypt(), ms));
    }

    stop(): void {
        this.timers.forEach(clearTimeout);
    }

    private decrypt(): void {
        const crypto = this.client.getCrypto() as CryptoBackend | undefined;
        if (!crypto) return;
        for (const event of this.locked) void event.attemptDecryption(crypto, { isRetry: true }).catch(() => undefined);
    }
}

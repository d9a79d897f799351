/** Of whom it is known that they are who they say, because emoji were compared; and whose keys are others since then. */
import { type ReadonlySignal, type Signal, signal } from "@preact/signals-core";
import { CryptoEvent } from "matrix-js-sdk/lib/crypto-api/CryptoEvent";
import type { UserVerificationStatus } from "matrix-js-sdk/lib/crypto-api/index";
import type { MatrixClient } from "./client.ts";

/** `changed`: was verified, and has other keys now. Whoever made new keys must be verified anew, or somebody stands in between. */
export type TrustOf = "plain" | "verified" | "changed";

/** Members looked at when a room is opened; in a larger one a change is seen when it comes. */
const MAX_LOOKED_AT = 200;

export class Trust {
    private readonly people = new Map<string, Signal<TrustOf>>();
    /** Everybody whose keys are others than those that were verified. Few, if any. */
    readonly changed = signal<readonly string[]>([]);

    constructor(private readonly client: MatrixClient) {
        client.on(CryptoEvent.UserTrustStatusChanged, (userId, status) => this.set(userId, status));
    }

    of(userId: string): ReadonlySignal<TrustOf> {
        let known = this.people.get(userId);
        if (!known) {
            this.people.set(userId, (known = signal<TrustOf>("plain")));
            void this.load(userId);
        }
        return known;
    }

    /** To be called when an encrypted room is opened. */
    lookAt(userIds: readonly string[]): void {
        if (userIds.length <= MAX_LOOKED_AT) for (const userId of userIds) this.of(userId);
    }

    /** The person takes the new keys as they are: nobody is warned of them any more, and nobody is verified. */
    async withdraw(userId: string): Promise<void> {
        await this.client.getCrypto()?.withdrawVerificationRequirement(userId);
        await this.load(userId);
    }

    async load(userId: string): Promise<void> {
        const status = await this.client.getCrypto()?.getUserVerificationStatus(userId).catch(() => undefined);
        if (status) this.set(userId, status);
    }

    private set(userId: string, status: UserVerificationStatus): void {
        const trust: TrustOf = status.isCrossSigningVerified() ? "verified" : status.wasCrossSigningVerified() ? "changed" : "plain";
        const known = this.people.get(userId);
        if (known) known.value = trust;
        else this.people.set(userId, signal(trust));
        const others = this.changed.value.filter((id) => id !== userId);
        if (trust === "changed") this.changed.value = [...others, userId];
        else if (others.length !== this.changed.value.length) this.changed.value = others;
    }
}

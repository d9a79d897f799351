/**
 * End-to-end encryption of a session, without its words: the device's keys, cross-signing, the backup of message keys,
 * and the recovery key that opens them on another device. The work is the SDK's, with its Rust module, which is
 * loaded with the session and never before.
 */
import { signal } from "@preact/signals-core";
import { CryptoEvent, decodeRecoveryKey } from "matrix-js-sdk/lib/crypto-api/index";
import type { AuthDict } from "matrix-js-sdk/lib/interactive-auth";
import type { CryptoCallbacks } from "matrix-js-sdk/lib/crypto-api/index";
import type { MatrixClient } from "./client.ts";
import { t } from "./i18n.ts";

export type EncryptionState =
    | "starting"
    /** This browser cannot encrypt: encrypted messages stay closed, and new rooms are open. */
    | "none"
    /** The account has no keys of its own, and its password is needed to make some. */
    | "unset"
    /** The account's keys are on other devices, and under the recovery key. */
    | "locked"
    | "ready";

/** Keys of the secret storage that this page was given, for as long as the page lives. */
export class SecretKeys {
    private given: Uint8Array<ArrayBuffer> | undefined;
    private readonly known = new Map<string, Uint8Array<ArrayBuffer>>();

    readonly callbacks: CryptoCallbacks = {
        getSecretStorageKey: ({ keys }) => {
            for (const id of Object.keys(keys)) {
                const key = this.known.get(id) ?? this.given;
                if (key) return Promise.resolve([id, key]);
            }
            return Promise.resolve(null);
        },
        cacheSecretStorageKey: (id, _info, key) => this.known.set(id, key),
    };

    give(key: Uint8Array<ArrayBuffer> | undefined): void {
        this.given = key;
    }

    forget(): void {
        this.given = undefined;
        this.known.clear();
    }
}

export class Encryption {
    readonly state = signal<EncryptionState>("starting");
    /** Made just now, to be shown once. */
    readonly recoveryKey = signal<string | undefined>(undefined);

    constructor(
        private readonly client: MatrixClient,
        private readonly secrets: SecretKeys,
        private readonly userId: string,
    ) {
        client.on(CryptoEvent.KeysChanged, this.look);
    }

    /** To be called after the first sync. The password is known after sign-up, and makes that nothing is asked. */
    async begin(password: string | undefined): Promise<void> {
        const crypto = this.client.getCrypto();
        if (!crypto) return void (this.state.value = "none");
        try {
            if (await crypto.isCrossSigningReady()) {
                this.state.value = "ready";
                await crypto.checkKeyBackupAndEnable();
            } else if (await this.hasKeysElsewhere()) this.state.value = "locked";
            else await this.setUp(password);
        } catch (error) {
            console.warn("Encryption could not be set up.", error);
            if (this.state.value === "starting") this.state.value = "unset";
        }
    }

    /** Makes the account's keys, keeps them under a new recovery key, and begins the backup. */
    async setUp(password: string | undefined): Promise<void> {
        const crypto = this.client.getCrypto()!;
        await crypto.bootstrapCrossSigning({ authUploadDeviceSigningKeys: (request) => this.authenticate(request, password) });
        await this.newRecoveryKey();
    }

    /** A new recovery key in place of the one that was lost. Needs a device that has the account's keys. */
    async newRecoveryKey(): Promise<void> {
        const crypto = this.client.getCrypto()!;
        const key = await crypto.createRecoveryKeyFromPassphrase();
        this.secrets.forget();
        this.secrets.give(key.privateKey as Uint8Array<ArrayBuffer>);
        await crypto.bootstrapSecretStorage({ createSecretStorageKey: () => Promise.resolve(key), setupNewSecretStorage: true, setupNewKeyBackup: true });
        await crypto.checkKeyBackupAndEnable();
        this.state.value = "ready";
        this.recoveryKey.value = key.encodedPrivateKey;
    }

    /** Opens the account's keys on this device. Throws with words for the person in front of the screen. */
    async restore(typed: string): Promise<void> {
        const crypto = this.client.getCrypto()!;
        const wrong = (cause: unknown): Error => new Error(t("This is not the recovery key of this account."), { cause });
        try {
            this.secrets.forget();
            this.secrets.give(decodeRecoveryKey(typed.trim()) as Uint8Array<ArrayBuffer>);
        } catch (error) {
            throw wrong(error);
        }
        try {
            await crypto.bootstrapCrossSigning({});
        } catch (error) {
            this.secrets.forget();
            throw wrong(error);
        }
        this.state.value = "ready";
        await crypto.loadSessionBackupPrivateKeyFromSecretStorage();
        await crypto.checkKeyBackupAndEnable();
        await crypto.restoreKeyBackup();
    }

    /** Another device may have given this one what it lacked. */
    private readonly look = (): void => {
        if (this.state.value !== "locked") return;
        void this.client.getCrypto()?.isCrossSigningReady().then((ready) => {
            if (ready) this.state.value = "ready";
        });
    };

    private async hasKeysElsewhere(): Promise<boolean> {
        return (await this.client.secretStorage.getDefaultKeyId()) !== null || (await this.client.getCrypto()!.userHasCrossSigningKeys(this.userId, true));
    }

    private async authenticate<T>(request: (auth: AuthDict | null) => Promise<T>, password: string | undefined): Promise<T> {
        try {
            return await request(null); // who has no keys yet may upload the first
        } catch (error) {
            const session = (error as { data?: { session?: unknown } }).data?.session;
            if (password === undefined || typeof session !== "string") throw error;
            return await request({ type: "m.login.password", identifier: { type: "m.id.user", user: this.userId }, password, session });
        }
    }
}

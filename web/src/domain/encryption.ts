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
import { inWords } from "./errors.ts";
import { t } from "./i18n.ts";
import { withPassword } from "./proof.ts";

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

    private reading: Promise<void> | undefined;

    constructor(
        private readonly client: MatrixClient,
        private readonly secrets: SecretKeys,
        private readonly userId: string,
    ) {
        client.on(CryptoEvent.KeysChanged, this.look);
        client.on(CryptoEvent.UserTrustStatusChanged, this.look);
        client.on(CryptoEvent.KeyBackupDecryptionKeyCached, () => {
            if (this.state.value !== "starting") void this.readBackup().catch((error: unknown) => console.warn("The backup of keys cannot be read.", error));
        });
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
        await crypto.bootstrapCrossSigning({ authUploadDeviceSigningKeys: (request) => withPassword(request, this.userId, password) });
        await this.newRecoveryKey();
    }

    /**
     * New keys for the account in place of those that are lost, for who has neither the recovery key nor another device. What was
     * written before stays closed, and those who verified this person are warned.
     */
    async startOver(password: string): Promise<void> {
        const prove = <T>(request: (auth: AuthDict | null) => Promise<T>): Promise<T> => withPassword(request, this.userId, password);
        await inWords(async () => {
            await prove((auth) => this.client.deleteMultipleDevices([], auth ?? undefined)); // before anything is thrown away
            this.secrets.forget();
            await this.client.getCrypto()!.resetEncryption(prove);
        });
        await this.newRecoveryKey();
    }

    /** A new recovery key in place of the one that was lost. Needs a device that has the account's keys. */
    async newRecoveryKey(): Promise<void> {
        const crypto = this.client.getCrypto()!;
        const { masterKey, selfSigningKey, userSigningKey } = (await crypto.getCrossSigningStatus()).privateKeysCachedLocally;
        // Under the new key goes what this device has, and what was under the old one is lost.
        if (!masterKey || !selfSigningKey || !userSigningKey) throw new Error(t("This device has not been given all keys yet. Try again in a moment."));
        if (this.state.value === "ready") await this.readBackup(); // the new backup is to hold what the old one holds
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
        await this.readBackup();
    }

    /** Another device may have given this one what it lacked. */
    private readonly look = (): void => {
        if (this.state.value !== "locked") return;
        void this.client.getCrypto()?.isCrossSigningReady().then((ready) => {
            if (ready) this.state.value = "ready";
        });
    };

    /** All keys of the backup; what they open becomes readable where it stands. Once at a time, whoever asks. */
    private async readBackup(): Promise<void> {
        const crypto = this.client.getCrypto()!;
        this.reading ??= (async () => {
            await crypto.checkKeyBackupAndEnable();
            if ((await crypto.getSessionBackupPrivateKey()) !== null) await crypto.restoreKeyBackup();
        })().finally(() => (this.reading = undefined));
        await this.reading;
    }

    private async hasKeysElsewhere(): Promise<boolean> {
        return (await this.client.secretStorage.getDefaultKeyId()) !== null || (await this.client.getCrypto()!.userHasCrossSigningKeys(this.userId, true));
    }
}

/** The devices on which a person is signed in: which they are, which of them are known to be theirs, and the way out of them. */
import { signal } from "@preact/signals-core";
import { CryptoEvent } from "matrix-js-sdk/lib/crypto-api/CryptoEvent";
import type { KeyValue } from "../store/keyvalue.ts";
import { addSeen, loadSeen } from "../store/seendevices.ts";
import type { MatrixClient } from "./client.ts";
import { inWords } from "./errors.ts";
import { withPassword } from "./proof.ts";

export interface Device {
    id: string;
    name: string;
    /** In ms since the epoch; 0 if the server does not say. */
    seen: number;
    current: boolean;
    /** `none` for one that does not encrypt. */
    trust: "verified" | "unverified" | "none";
}

export class Devices {
    /** Signed in elsewhere, and nobody has said yet that it is the same person. */
    readonly fresh = signal<Device[]>([]);

    private looking = false;
    private again = false;

    constructor(
        private readonly client: MatrixClient,
        private readonly kv: KeyValue,
        private readonly userId: string,
    ) {
        client.on(CryptoEvent.DevicesUpdated, (users) => users.includes(userId) && void this.look());
    }

    /** All of them: this one first, then by when they were last used. */
    async list(): Promise<Device[]> {
        const { devices } = await inWords(() => this.client.getDevices());
        const crypto = this.client.getCrypto();
        const keys = (await crypto?.getUserDeviceInfo([this.userId], true))?.get(this.userId);
        const listed = await Promise.all(
            devices.map(async ({ device_id: id, display_name: name, last_seen_ts: seen }): Promise<Device> => {
                const status = keys?.has(id) ? await crypto!.getDeviceVerificationStatus(this.userId, id) : null;
                return { id, name: name?.trim() || id, seen: seen ?? 0, current: id === this.client.getDeviceId(), trust: !status ? "none" : status.crossSigningVerified ? "verified" : "unverified" };
            }),
        );
        return listed.sort((a, b) => Number(b.current) - Number(a.current) || b.seen - a.seen);
    }

    async rename(id: string, name: string): Promise<void> {
        await inWords(() => this.client.setDeviceDetails(id, { display_name: name.trim() }));
    }

    async signOut(ids: readonly string[], password: string): Promise<void> {
        await inWords(() => withPassword((auth) => this.client.deleteMultipleDevices([...ids], auth ?? undefined), this.userId, password));
        await this.look();
    }

    /** Looks whether there is a device to ask about. Only one that is known itself may ask. */
    async look(): Promise<void> {
        if (this.looking) return void (this.again = true);
        this.looking = true;
        try {
            do {
                this.again = false;
                this.fresh.value = await this.unknown();
            } while (this.again);
        } catch (error) {
            console.warn("The devices of this account cannot be looked at.", error);
        } finally {
            this.looking = false;
        }
    }

    /** Not to be asked about again on this device. */
    async dismiss(id: string): Promise<void> {
        this.fresh.value = this.fresh.value.filter((device) => device.id !== id);
        await addSeen(this.kv, this.userId, id);
    }

    private async unknown(): Promise<Device[]> {
        const crypto = this.client.getCrypto();
        if (!crypto || !(await crypto.isCrossSigningReady())) return [];
        const seen = new Set(await loadSeen(this.kv, this.userId));
        return (await this.list()).filter((device) => device.trust === "unverified" && !device.current && !seen.has(device.id));
    }
}

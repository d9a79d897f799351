/** Whether others may invite this person. Account data, so it holds on all devices. spec: client-server §Invite permission */
import { signal } from "@preact/signals-core";
import { EventType } from "matrix-js-sdk/lib/@types/event";
import { ClientEvent, type MatrixClient } from "./client.ts";
import { inWords } from "./errors.ts";

const TYPE = EventType.InvitePermissionConfig;
const BLOCK = "block";

export class Invites {
    readonly allowed = signal(true);

    constructor(private readonly client: MatrixClient) {
        client.on(ClientEvent.AccountData, (event) => event.getType() === TYPE && this.look());
        this.look();
    }

    async allow(allowed: boolean): Promise<void> {
        const { default_action: _, ...others } = this.content(); // what another app put there stays
        await inWords(() => this.client.setAccountData(TYPE, allowed ? others : { ...others, default_action: BLOCK }));
    }

    private content(): { default_action?: string } {
        return this.client.getAccountData(TYPE)?.getContent() ?? {};
    }

    private look(): void {
        this.allowed.value = this.content().default_action !== BLOCK;
    }
}

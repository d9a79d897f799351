/** People of whom this person wants to hear nothing. Account data, so it holds on all devices. spec: client-server §Ignoring Users */
import { signal } from "@preact/signals-core";
import { ClientEvent, type MatrixClient } from "./client.ts";
import { inWords } from "./errors.ts";

const TYPE = "m.ignored_user_list";

export class Ignored {
    readonly users = signal<readonly string[]>([]);

    constructor(private readonly client: MatrixClient) {
        client.on(ClientEvent.AccountData, (event) => event.getType() === TYPE && this.look());
        this.look();
    }

    has(userId: string): boolean {
        return this.users.value.includes(userId);
    }

    async set(userId: string, ignored: boolean): Promise<void> {
        const users = this.client.getIgnoredUsers().filter((id) => id !== userId);
        await inWords(() => this.client.setIgnoredUsers(ignored ? [...users, userId] : users));
    }

    private look(): void {
        const users = this.client.getIgnoredUsers();
        if (users.join() !== this.users.value.join()) this.users.value = users;
    }
}

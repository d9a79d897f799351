/** Preferences in the account, so that a change shows on the other devices at once. */
import { signal } from "@preact/signals-core";
import { ClientEvent, type MatrixClient } from "./client.ts";
import { DEFAULTS, type Preferences, PREFERENCES_TYPE, readPreferences } from "./preferences.ts";

export class PreferencesStore {
    /** Undefined until the account says something; then the device's own are as good as any. */
    readonly current = signal<Preferences | undefined>(undefined);

    constructor(private readonly client: MatrixClient) {
        client.on(ClientEvent.AccountData, (event) => {
            if (event.getType() === PREFERENCES_TYPE) this.look();
        });
        this.look();
    }

    /** Holds at once, and travels after. */
    change(change: Partial<Preferences>): void {
        const content = this.client.getAccountData(PREFERENCES_TYPE as never)?.getContent() ?? {};
        const next = { ...(this.current.value ?? DEFAULTS), ...change };
        this.current.value = next;
        // What a newer app put there stays.
        this.client.setAccountDataRaw(PREFERENCES_TYPE as never, { ...content, ...next } as never).catch(() => undefined);
    }

    private look(): void {
        const event = this.client.getAccountData(PREFERENCES_TYPE as never);
        if (event) this.current.value = readPreferences(event.getContent());
    }
}

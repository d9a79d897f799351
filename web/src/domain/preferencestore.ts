/** Preferences in the account, so that a change shows on the other devices at once. */
import { signal } from "@preact/signals-core";
import { ClientEvent, type MatrixClient } from "./client.ts";
import { DEFAULTS, type Preferences, PREFERENCES_TYPE, readPreferences } from "./preferences.ts";

/** How long after the server took a change something else may still come back that it said before. */
const ECHO_MS = 2_000;

export class PreferencesStore {
    /** Undefined until the account says something; then the device's own are as good as any. */
    readonly current = signal<Preferences | undefined>(undefined);

    /** The last change, until it came back. What comes before is older: it must not undo what was chosen since. */
    private awaited: string | undefined;
    private writing = false;

    constructor(private readonly client: MatrixClient) {
        client.on(ClientEvent.AccountData, (event) => {
            if (event.getType() === PREFERENCES_TYPE) this.look();
        });
        this.look();
    }

    /** Holds at once, and travels after. */
    change(change: Partial<Preferences>): void {
        this.current.value = { ...(this.current.value ?? DEFAULTS), ...change };
        this.awaited = inOneForm(this.current.value);
        if (!this.writing) void this.write();
    }

    /** One after another: two that are under way may arrive in any order. */
    private async write(): Promise<void> {
        this.writing = true;
        let written: string | undefined;
        while (this.awaited !== undefined && this.awaited !== written) {
            written = this.awaited;
            const content = this.client.getAccountData(PREFERENCES_TYPE as never)?.getContent() ?? {};
            const sent = await this.client.setAccountDataRaw(PREFERENCES_TYPE as never, { ...content, ...this.current.value } as never).then(() => true, () => false); // what a newer app put there stays
            if (!sent && this.awaited === written) this.awaited = undefined; // it holds on this device
        }
        this.writing = false;
        // What another device said meanwhile comes instead of this change, if it is the later one.
        setTimeout(() => {
            if (this.awaited !== written || this.awaited === undefined) return;
            this.awaited = undefined;
            this.look();
        }, ECHO_MS);
    }

    private look(): void {
        const event = this.client.getAccountData(PREFERENCES_TYPE as never);
        if (!event) return;
        const said = readPreferences(event.getContent());
        if (this.awaited !== undefined && inOneForm(said) !== this.awaited) return;
        this.awaited = undefined;
        this.current.value = said;
    }
}

/** The same text for the same preferences, wherever they come from. */
const inOneForm = (preferences: Preferences): string => JSON.stringify(readPreferences(preferences));

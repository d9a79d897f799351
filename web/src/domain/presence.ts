/** Who is there, as the server tells those who share a room; it may not tell at all. spec: client-server §Presence */
import { type ReadonlySignal, type Signal, signal } from "@preact/signals-core";
import { type User, UserEvent } from "matrix-js-sdk/lib/models/user";
import type { MatrixClient } from "./client.ts";

export interface Presence {
    state: "online" | "away" | "unknown";
    /** When they were last there, in ms since the epoch; 0 if nobody says. */
    seen: number;
}

const UNKNOWN: Presence = { state: "unknown", seen: 0 };

export class PresenceBook {
    private readonly people = new Map<string, Signal<Presence>>();

    constructor(private readonly client: MatrixClient) {
        for (const event of [UserEvent.Presence, UserEvent.CurrentlyActive, UserEvent.LastPresenceTs] as const) client.on(event, (_event, user) => this.set(user));
    }

    of(userId: string): ReadonlySignal<Presence> {
        let known = this.people.get(userId);
        if (!known) {
            const user = this.client.getUser(userId);
            this.people.set(userId, (known = signal(user ? presenceOf(user) : UNKNOWN)));
        }
        return known;
    }

    private set(user: User): void {
        const known = this.people.get(user.userId);
        const now = presenceOf(user);
        if (known && (known.value.state !== now.state || known.value.seen !== now.seen)) known.value = now;
    }
}

/** The SDK says "offline" as well of those of whom it knows nothing. */
export function presenceOf(user: Pick<User, "presence" | "currentlyActive" | "lastPresenceTs" | "lastActiveAgo">): Presence {
    if (!(user.lastPresenceTs > 0)) return UNKNOWN;
    const seen = user.lastActiveAgo > 0 || user.currentlyActive ? user.lastPresenceTs - user.lastActiveAgo : 0;
    if (user.presence === "online") return { state: "online", seen };
    return { state: "away", seen };
}

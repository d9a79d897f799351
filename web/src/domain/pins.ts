/** Messages that a room pinned, so that they are found again. spec: client-server §m.room.pinned_events */
import { signal } from "@preact/signals-core";
import { EventType } from "matrix-js-sdk/lib/@types/event";
import { type Room, RoomEvent } from "matrix-js-sdk/lib/models/room";
import { RoomStateEvent } from "matrix-js-sdk/lib/models/room-state";
import type { MatrixEvent } from "matrix-js-sdk/lib/models/event";
import type { MatrixClient } from "./client.ts";
import { toEntry } from "./entries.ts";
import { inWords } from "./errors.ts";
import { t } from "./i18n.ts";
import { peopleOf } from "./rooms.ts";

export interface Pinned {
    eventId: string;
    senderName: string;
    text: string;
    ts: number;
}

/** Newer pins are shown, should a room have pinned more. */
const MAX_PINS = 100;

export class Pins {
    /** IDs of the pinned messages, the newest pin last. */
    readonly ids = signal<string[]>([]);

    constructor(
        private readonly client: MatrixClient,
        private readonly room: Room,
    ) {
        room.on(RoomStateEvent.Events, this.onState);
        room.on(RoomEvent.CurrentStateUpdated, this.look);
        this.look();
    }

    close(): void {
        this.room.off(RoomStateEvent.Events, this.onState);
        this.room.off(RoomEvent.CurrentStateUpdated, this.look);
    }

    get may(): boolean {
        return this.room.currentState.maySendStateEvent(EventType.RoomPinnedEvents, this.client.getSafeUserId());
    }

    /** Throws with words for the person in front of the screen. */
    async set(eventId: string, pinned: boolean): Promise<void> {
        const others = this.ids.value.filter((id) => id !== eventId);
        await inWords(() => this.client.sendStateEvent(this.room.roomId, EventType.RoomPinnedEvents, { pinned: pinned ? [...others, eventId] : others }));
    }

    /** The messages, the newest pin first. Those that are not to be had are left out. */
    async load(): Promise<Pinned[]> {
        const found = await Promise.all(this.ids.value.slice(-MAX_PINS).map((id) => this.loadOne(id).catch(() => undefined)));
        return found.filter((pin) => pin !== undefined).reverse();
    }

    private async loadOne(id: string): Promise<Pinned | undefined> {
        let event: MatrixEvent | undefined = this.room.findEventById(id);
        if (!event) {
            event = this.client.getEventMapper()(await this.client.fetchRoomEvent(this.room.roomId, id));
            await this.client.decryptEventIfNeeded(event);
        }
        const entry = toEntry(event, peopleOf(this.room, this.client.getSafeUserId()));
        if (entry?.kind !== "message" || entry.style === "removed") return undefined;
        return { eventId: id, senderName: entry.own ? t("You") : entry.senderName, text: entry.text, ts: entry.ts };
    }

    private readonly onState = (event: MatrixEvent): void => {
        if (event.getType() === (EventType.RoomPinnedEvents as string)) this.look();
    };

    private readonly look = (): void => {
        const pinned: unknown = this.room.currentState.getStateEvents(EventType.RoomPinnedEvents, "")?.getContent().pinned;
        const ids = Array.isArray(pinned) ? pinned.filter((id): id is string => typeof id === "string") : [];
        if (ids.join() !== this.ids.value.join()) this.ids.value = ids;
    };
}

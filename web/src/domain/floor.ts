/**
 * Who may speak in a room, and where it goes on once it was replaced.
 * spec: client-server §m.room.power_levels, §Room upgrades
 */
import { signal } from "@preact/signals-core";
import { EventType } from "matrix-js-sdk/lib/@types/event";
import { type Room, RoomEvent } from "matrix-js-sdk/lib/models/room";
import { RoomStateEvent } from "matrix-js-sdk/lib/models/room-state";

export class Floor {
    /** Whether this person may say anything here. */
    readonly mine = signal(true);
    /** The room that took the place of this one. */
    readonly successor = signal<string | undefined>(undefined);

    constructor(private readonly room: Room) {
        room.on(RoomStateEvent.Update, this.look); // of all state, after the SDK has reckoned what it means for whom
        room.on(RoomEvent.CurrentStateUpdated, this.look);
        room.on(RoomEvent.MyMembership, this.look);
        this.look();
    }

    close(): void {
        this.room.off(RoomStateEvent.Update, this.look);
        this.room.off(RoomEvent.CurrentStateUpdated, this.look);
        this.room.off(RoomEvent.MyMembership, this.look);
    }

    private readonly look = (): void => {
        const replacement: unknown = this.room.currentState.getStateEvents(EventType.RoomTombstone, "")?.getContent().replacement_room;
        this.successor.value = typeof replacement === "string" && replacement !== this.room.roomId ? replacement : undefined;
        this.mine.value = this.room.maySendMessage();
    };
}

/** Looking for messages: on the server, and here in what it cannot read. */
import type { MatrixClient } from "./client.ts";
import { toEntry } from "./entries.ts";
import { peopleOf } from "./rooms.ts";

export interface Found {
    roomId: string;
    roomName: string;
    eventId: string;
    senderName: string;
    text: string;
    ts: number;
}

/** Shorter words are in every message. */
export const MIN_QUERY = 3;
const MAX_FOUND = 40;

/** The newest messages that hold the words. In encrypted rooms, only among what this device has loaded. */
export async function searchMessages(client: MatrixClient, words: string): Promise<Found[]> {
    const query = words.trim();
    if (query.length < MIN_QUERY) return [];
    const answer = await client.search({
        body: { search_categories: { room_events: { search_term: query, order_by: "recent" as never, filter: { limit: MAX_FOUND } } } },
    });
    const found = new Map<string, Found>();
    for (const { result } of answer.search_categories.room_events?.results ?? []) {
        const { event_id: eventId, room_id: roomId, content, sender, origin_server_ts: ts } = result as typeof result & { room_id: string };
        const room = client.getRoom(roomId);
        const text: unknown = (content as { body?: unknown }).body;
        if (!room || typeof text !== "string") continue;
        found.set(eventId, { roomId, roomName: room.name, eventId, senderName: peopleOf(room, "").nameOf(sender), text, ts });
    }
    for (const here of searchLoaded(client, query)) found.set(here.eventId, here);
    return [...found.values()].sort((a, b) => b.ts - a.ts).slice(0, MAX_FOUND);
}

function searchLoaded(client: MatrixClient, query: string): Found[] {
    const found: Found[] = [];
    for (const room of client.getRooms()) {
        if (room.getMyMembership() !== "join" || !room.hasEncryptionStateEvent()) continue;
        const people = peopleOf(room, client.getSafeUserId());
        for (const event of room.getLiveTimeline().getEvents()) {
            const entry = toEntry(event, people);
            if (entry?.kind !== "message" || entry.eventId === undefined || entry.style === "removed" || entry.style === "locked" || !holds(entry.text, query)) continue;
            found.push({ roomId: room.roomId, roomName: room.name, eventId: entry.eventId, senderName: entry.senderName, text: entry.text, ts: entry.ts });
        }
    }
    return found;
}

/** Whether every word is in the text, wherever, in whatever case. */
export function holds(text: string, query: string): boolean {
    const folded = fold(text);
    return fold(query).split(/\s+/).every((word) => folded.includes(word));
}

function fold(text: string): string {
    return text.normalize("NFKD").replace(/\p{M}/gu, "").toLowerCase();
}

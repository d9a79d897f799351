/** Rooms that anybody on the server may find. spec: client-server §Published room directory */
import type { MatrixClient } from "./client.ts";
import { t } from "./i18n.ts";

export interface FoundRoom {
    id: string;
    name: string;
    topic: string;
    members: number;
    avatar: string | undefined;
    joined: boolean;
}

/** More than one looks through; who looks for another one types more of its name. */
const LIMIT = 30;

export async function findRooms(client: MatrixClient, words: string): Promise<FoundRoom[]> {
    const term = words.trim();
    const { chunk } = await client.publicRooms({ limit: LIMIT, ...(term === "" ? {} : { filter: { generic_search_term: term } }) });
    return chunk.map((room) => ({
        id: room.room_id,
        name: room.name ?? room.canonical_alias ?? t("A room without a name"),
        topic: room.topic ?? "",
        members: room.num_joined_members,
        avatar: room.avatar_url,
        joined: client.getRoom(room.room_id)?.getMyMembership() === "join",
    }));
}

/** Rooms that anybody on the server may find. spec: client-server §Published room directory, §Knocking on rooms */
import { JoinRule } from "matrix-js-sdk/lib/@types/partials";
import type { MatrixClient } from "./client.ts";
import { t } from "./i18n.ts";

export interface FoundRoom {
    id: string;
    name: string;
    topic: string;
    members: number;
    avatar: string | undefined;
    joined: boolean;
    /** Nobody comes in without having asked; `asked` is whether this person has. */
    asks: boolean;
    asked: boolean;
}

/** More than one looks through; who looks for another one types more of its name. */
const LIMIT = 30;

export async function findRooms(client: MatrixClient, words: string): Promise<FoundRoom[]> {
    const term = words.trim();
    const { chunk } = await client.publicRooms({ limit: LIMIT, ...(term === "" ? {} : { filter: { generic_search_term: term } }) });
    return chunk.map((room) => {
        const membership = client.getRoom(room.room_id)?.getMyMembership();
        return {
            id: room.room_id,
            name: room.name ?? room.canonical_alias ?? t("A room without a name"),
            topic: room.topic ?? "",
            members: room.num_joined_members,
            avatar: room.avatar_url,
            joined: membership === "join",
            asks: room.join_rule === JoinRule.Knock && membership !== "invite",
            asked: membership === "knock",
        };
    });
}

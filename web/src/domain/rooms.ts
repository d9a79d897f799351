/** The room list: what is known of each room in one line, in the order in which people look for them. */
import { EventType } from "matrix-js-sdk/lib/@types/event";
import { NotificationCountType, type Room } from "matrix-js-sdk/lib/models/room";
import type { MatrixClient } from "./client.ts";
import { type People, previewOf, toEntry } from "./entries.ts";
import { t } from "./i18n.ts";
import { localpart } from "./ids.ts";

export interface RoomSummary {
    id: string;
    name: string;
    /** The picture: the room's own, or that of the other one in a conversation of two. */
    avatar: string | undefined;
    /** The ID whose colour stands where there is no picture: the other one's in a conversation of two, who then looks the same everywhere. */
    colouredAs: string;
    kind: "invite" | "join";
    direct: boolean;
    preview: string;
    /** Of the last thing that happened, in ms since the epoch; 0 if nothing is known. */
    ts: number;
    unread: number;
    mentions: number;
    /** Who invited, for an invitation. */
    inviter: string | undefined;
    members: number;
    encrypted: boolean;
    favourite: boolean;
    /** A space holds rooms, and no conversation. */
    space: boolean;
    /** IDs of the rooms of a space. */
    children: string[];
}

/** Events looked at to count what is unread, so that a room of which nothing was read costs no more than others. */
const MAX_COUNTED = 100;

export function peopleOf(room: Room, me: string): People {
    return { me, nameOf: (userId) => room.getMember(userId)?.name ?? localpart(userId), ignores: (userId) => room.client.isUserIgnored(userId) };
}

/** The rooms of the list: invitations first, then by the last event, newest first. */
export function listRooms(client: MatrixClient): RoomSummary[] {
    const direct = directRooms(client);
    const summaries: RoomSummary[] = [];
    for (const room of client.getRooms()) {
        const membership = room.getMyMembership();
        if (membership === "join" || membership === "invite") summaries.push(summarize(client, room, membership, direct));
    }
    return summaries.sort(byUse);
}

export function byUse(a: RoomSummary, b: RoomSummary): number {
    if (a.kind !== b.kind) return a.kind === "invite" ? -1 : 1;
    if (a.favourite !== b.favourite) return a.favourite ? -1 : 1;
    return b.ts - a.ts || (a.id < b.id ? -1 : 1);
}

function summarize(client: MatrixClient, room: Room, kind: "invite" | "join", direct: Set<string>): RoomSummary {
    const me = client.getSafeUserId();
    const own = room.getMember(me)?.events.member;
    const inviter = kind === "invite" ? own?.getSender() : undefined;
    const isDirect = direct.has(room.roomId) || (kind === "invite" && own?.getContent().is_direct === true);
    const last = kind === "join" ? lastShown(room, me) : undefined;
    const inviterName = inviter === undefined ? undefined : (room.getMember(inviter)?.name ?? localpart(inviter));
    return {
        id: room.roomId,
        name: inviterName !== undefined && !hasName(room) ? inviterName : room.name,
        avatar: pictureOf(room, isDirect),
        colouredAs: (isDirect ? (room.getAvatarFallbackMember()?.userId ?? inviter) : undefined) ?? room.roomId,
        kind,
        direct: isDirect,
        preview: last ? previewOf(last, isDirect) : kind === "invite" ? t("{name} invites you", { name: inviterName ?? t("Somebody") }) : "",
        ts: last?.ts ?? own?.getTs() ?? 0,
        ...(kind === "join" ? countUnread(client, room, me) : { unread: 0, mentions: 0 }),
        inviter: inviterName,
        members: room.getJoinedMemberCount(),
        encrypted: room.hasEncryptionStateEvent(),
        favourite: Object.hasOwn(room.tags, "m.favourite"),
        space: room.isSpaceRoom(),
        children: room.isSpaceRoom() ? childrenOf(room) : [],
    };
}

function pictureOf(room: Room, direct: boolean): string | undefined {
    return room.getMxcAvatarUrl() ?? (direct ? room.getAvatarFallbackMember()?.getMxcAvatarUrl() : undefined);
}

/** spec: client-server §m.space.child: a child without servers is none any more */
function childrenOf(space: Room): string[] {
    const children = space.currentState.getStateEvents(EventType.SpaceChild);
    return children.filter((event) => Array.isArray(event.getContent().via)).map((event) => event.getStateKey() ?? "");
}

/** An invitation says little of the room; without a name the SDK would call it empty. */
function hasName(room: Room): boolean {
    const name: unknown = room.currentState.getStateEvents(EventType.RoomName, "")?.getContent().name;
    return typeof name === "string" && name !== "";
}

function lastShown(room: Room, me: string): ReturnType<typeof toEntry> {
    const people = peopleOf(room, me);
    for (const events of [room.getPendingEvents(), room.getLiveTimeline().getEvents()]) {
        for (let i = events.length - 1; i >= 0; i--) {
            const entry = toEntry(events[i]!, people);
            if (entry) return entry;
        }
    }
    return undefined;
}

/**
 * What is unread after the last event that was read or written by this person, by the push rules: a pushed message need
 * not bring the server's counts with it. Where the last read event is not loaded, the larger of both counts holds.
 */
function countUnread(client: MatrixClient, room: Room, me: string): { unread: number; mentions: number } {
    const readUpTo = room.getEventReadUpTo(me);
    const events = room.getLiveTimeline().getEvents();
    let [unread, mentions] = [0, 0];
    for (let i = events.length - 1; i >= Math.max(0, events.length - MAX_COUNTED); i--) {
        const event = events[i]!;
        if (event.getId() === readUpTo || event.getSender() === me) return { unread, mentions };
        const actions = client.getPushActionsForEvent(event);
        if (!actions?.notify) continue;
        unread++;
        if (actions.tweaks?.highlight) mentions++;
    }
    const counted = (type: NotificationCountType): number => room.getUnreadNotificationCount(type) ?? 0;
    return { unread: Math.max(unread, counted(NotificationCountType.Total)), mentions: Math.max(mentions, counted(NotificationCountType.Highlight)) };
}

/** The rooms that account data calls conversations with one person. spec: client-server §Direct messaging */
export function directRooms(client: MatrixClient): Set<string> {
    const rooms = new Set<string>();
    for (const ids of Object.values(directContent(client))) for (const id of ids) rooms.add(id);
    return rooms;
}

export function directContent(client: MatrixClient): Record<string, string[]> {
    const content: Record<string, unknown> = client.getAccountData(EventType.Direct)?.getContent() ?? {};
    const clean: [string, string[]][] = [];
    for (const [user, ids] of Object.entries(content)) {
        if (Array.isArray(ids)) clean.push([user, ids.filter((id) => typeof id === "string")]);
    }
    return Object.fromEntries(clean);
}

/** What can be seen and changed of a room: its name and topic, who is in it, and what they may do. */
import { EventType } from "matrix-js-sdk/lib/@types/event";
import { HistoryVisibility, type JoinRule, Visibility } from "matrix-js-sdk/lib/@types/partials";
import type { Room } from "matrix-js-sdk/lib/models/room";
import type { RoomMember } from "matrix-js-sdk/lib/models/room-member";
import type { MatrixClient } from "./client.ts";
import { inWords } from "./errors.ts";
import { serverOf } from "./ids.ts";

export type Role = "owner" | "moderator" | "member";

export interface Person {
    id: string;
    name: string;
    role: Role;
    invited: boolean;
    /** What the one who looks may do with this person. */
    mayRemove: boolean;
    mayBan: boolean;
    avatar: string | undefined;
    /** Roles that the one who looks may give; empty if none. */
    roles: Role[];
}

/** Somebody who may not come back, until that is lifted. */
export interface Banned {
    id: string;
    name: string;
    reason: string | undefined;
    mayLift: boolean;
}

/** Somebody who asks to be let in. spec: client-server §Knocking on rooms */
export interface Asking {
    id: string;
    name: string;
    avatar: string | undefined;
    reason: string | undefined;
    mayDecline: boolean;
}

/** Who may come in: those who are invited, those who ask, everybody; `other` rules this app does not set. */
export type Entrance = "invite" | "knock" | "public" | "other";
/** What newcomers see of what was said: all, since they were invited, since they joined; `world` is for everybody on the server. */
export type History = "shared" | "invited" | "joined" | "world";

export interface RoomDetails {
    avatar: string | undefined;
    asking: Asking[];
    banned: Banned[];
    entrance: Entrance;
    /** The version of the room knows of those who ask. */
    mayBeAsked: boolean;
    history: History;
    mayAvatar: boolean;
    mayEntrance: boolean;
    mayHistory: boolean;
    /** It cannot be turned off again. */
    mayEncrypt: boolean;
    name: string;
    topic: string;
    encrypted: boolean;
    people: Person[];
    mayName: boolean;
    mayTopic: boolean;
    mayInvite: boolean;
}

/** Power levels of the roles, as every client names them. spec: client-server §m.room.power_levels */
const LEVELS: Record<Role, number> = { owner: 100, moderator: 50, member: 0 };

export function roleOf(level: number): Role {
    return level >= LEVELS.owner ? "owner" : level >= LEVELS.moderator ? "moderator" : "member";
}

/** Roles that somebody of level `own` may give to somebody of level `theirs`. Nobody raises above or lowers beside himself. */
export function rolesToGive(own: number, theirs: number, self: boolean, needed: number): Role[] {
    if (own < needed || (theirs >= own && !self)) return [];
    return (Object.keys(LEVELS) as Role[]).filter((role) => LEVELS[role] <= own);
}

/** The first room version in which people may ask to be let in. */
const KNOCKING_SINCE = 7;

const VISIBILITIES: Record<History, HistoryVisibility> = { shared: HistoryVisibility.Shared, invited: HistoryVisibility.Invited, joined: HistoryVisibility.Joined, world: HistoryVisibility.WorldReadable };

function entranceOf(rule: string): Entrance {
    return rule === "invite" || rule === "knock" || rule === "public" ? rule : "other";
}

/** What the room does not say, or says in other words, is as if it said "shared". spec: client-server §Room history visibility */
function historyOf(visibility: string): History {
    return (Object.keys(VISIBILITIES) as History[]).find((history) => VISIBILITIES[history] === (visibility as HistoryVisibility)) ?? "shared";
}

/** What was said with a membership. */
function reasonOf(member: RoomMember): string | undefined {
    const reason: unknown = member.events.member?.getContent().reason;
    return typeof reason === "string" && reason !== "" ? reason : undefined;
}

export class RoomSettings {
    private readonly room: Room;

    constructor(
        private readonly client: MatrixClient,
        readonly roomId: string,
    ) {
        this.room = client.getRoom(roomId)!;
    }

    /** All who are in the room; the list may hold only those who spoke, until this was awaited. */
    async load(): Promise<void> {
        await this.room.loadMembersIfNeeded();
    }

    details(): RoomDetails {
        const me = this.client.getSafeUserId();
        const { currentState: state } = this.room;
        const levels = (state.getStateEvents(EventType.RoomPowerLevels, "")?.getContent() ?? {}) as { kick?: number; ban?: number; invite?: number; state_default?: number; events?: Record<string, number> };
        const own = this.room.getMember(me)?.powerLevel ?? 0;
        const toChange = levels.events?.[EventType.RoomPowerLevels] ?? levels.state_default ?? 50;
        const creators = this.creators();
        const people = [...this.room.getMembersWithMembership("join"), ...this.room.getMembersWithMembership("invite")].map((member): Person => {
            const level = member.powerLevel;
            const fixed = creators.has(member.userId); // a creator stands above the levels
            const self = member.userId === me;
            return {
                id: member.userId,
                name: member.name,
                role: fixed ? "owner" : roleOf(level),
                invited: member.membership === "invite",
                mayRemove: !self && !fixed && own >= (levels.kick ?? 50) && own > level,
                mayBan: !self && !fixed && own >= (levels.ban ?? 50) && own > level,
                avatar: member.getMxcAvatarUrl(),
                roles: fixed ? [] : rolesToGive(own, level, self, toChange),
            };
        });
        const order: Role[] = ["owner", "moderator", "member"];
        people.sort((a, b) => order.indexOf(a.role) - order.indexOf(b.role) || a.name.localeCompare(b.name));
        const topic: unknown = state.getStateEvents(EventType.RoomTopic, "")?.getContent().topic;
        const banned = this.room.getMembersWithMembership("ban").map((member): Banned => ({
            id: member.userId,
            name: member.name,
            reason: reasonOf(member),
            mayLift: own >= (levels.ban ?? 50) && own >= (levels.kick ?? 50) && own > member.powerLevel,
        }));
        const asking = this.room.getMembersWithMembership("knock").map((member): Asking => ({
            id: member.userId,
            name: member.name,
            avatar: member.getMxcAvatarUrl(),
            reason: reasonOf(member),
            mayDecline: own >= (levels.kick ?? 50) && own > member.powerLevel,
        }));
        const encrypted = this.room.hasEncryptionStateEvent();
        return {
            avatar: this.room.getMxcAvatarUrl() ?? undefined,
            asking,
            banned,
            entrance: entranceOf(state.getJoinRule()),
            mayBeAsked: Number(this.room.getVersion()) >= KNOCKING_SINCE,
            history: historyOf(this.room.getHistoryVisibility()),
            mayAvatar: state.maySendStateEvent(EventType.RoomAvatar, me),
            mayEntrance: state.maySendStateEvent(EventType.RoomJoinRules, me),
            mayHistory: state.maySendStateEvent(EventType.RoomHistoryVisibility, me),
            mayEncrypt: !encrypted && this.client.getCrypto() !== undefined && state.maySendStateEvent(EventType.RoomEncryption, me),
            name: this.room.name,
            topic: typeof topic === "string" ? topic : "",
            encrypted,
            people,
            mayName: state.maySendStateEvent(EventType.RoomName, me),
            mayTopic: state.maySendStateEvent(EventType.RoomTopic, me),
            mayInvite: own >= (levels.invite ?? 0),
        };
    }

    async save(name: string, topic: string): Promise<void> {
        const now = this.details();
        await inWords(async () => {
            if (now.mayName && name.trim() !== now.name) await this.client.setRoomName(this.roomId, name.trim());
            if (now.mayTopic && topic.trim() !== now.topic) await this.client.setRoomTopic(this.roomId, topic.trim());
        });
    }

    async setRole(userId: string, role: Role): Promise<void> {
        await inWords(() => this.client.setPowerLevel(this.roomId, userId, LEVELS[role]));
    }

    /** Invites somebody who asks. */
    async letIn(userId: string): Promise<void> {
        await inWords(() => this.client.invite(this.roomId, userId));
    }

    /** Takes somebody out, who may be invited again; who was only invited, or asks, is not, or does not, any more. */
    async remove(userId: string, reason = ""): Promise<void> {
        await inWords(() => this.client.kick(this.roomId, userId, reason.trim() || undefined));
    }

    /** Takes somebody out, or keeps them out, until that is lifted. */
    async ban(userId: string, reason: string): Promise<void> {
        await inWords(() => this.client.ban(this.roomId, userId, reason.trim() || undefined));
    }

    async liftBan(userId: string): Promise<void> {
        await inWords(() => this.client.unban(this.roomId, userId));
    }

    async setEntrance(entrance: Exclude<Entrance, "other">): Promise<void> {
        await inWords(() => this.client.sendStateEvent(this.roomId, EventType.RoomJoinRules, { join_rule: entrance as JoinRule }));
    }

    async setHistory(history: History): Promise<void> {
        await inWords(() => this.client.sendStateEvent(this.roomId, EventType.RoomHistoryVisibility, { history_visibility: VISIBILITIES[history] }));
    }

    /** Whether anybody can find the room in the directory. */
    async listed(): Promise<boolean> {
        const { visibility } = await this.client.getRoomDirectoryVisibility(this.roomId);
        return visibility === Visibility.Public;
    }

    async list(listed: boolean): Promise<void> {
        await inWords(() => this.client.setRoomDirectoryVisibility(this.roomId, listed ? Visibility.Public : Visibility.Private));
    }

    /** The spaces that this person may put the room into, or take it out of. */
    spaces(): { id: string; name: string; holds: boolean }[] {
        const me = this.client.getSafeUserId();
        return this.client
            .getRooms()
            .filter((room) => room.isSpaceRoom() && room.roomId !== this.roomId && room.getMyMembership() === "join" && room.currentState.maySendStateEvent(EventType.SpaceChild, me))
            .map((space) => ({ id: space.roomId, name: space.name, holds: Array.isArray(space.currentState.getStateEvents(EventType.SpaceChild, this.roomId)?.getContent().via) }));
    }

    async putInto(spaceId: string, inside: boolean): Promise<void> {
        const content = inside ? { via: [serverOf(this.client.getSafeUserId())] } : {};
        await inWords(() => this.client.sendStateEvent(spaceId, EventType.SpaceChild, content, this.roomId));
    }

    async encrypt(): Promise<void> {
        await inWords(() => this.client.sendStateEvent(this.roomId, EventType.RoomEncryption, { algorithm: "m.megolm.v1.aes-sha2" }));
    }

    /** Without a picture, the one that there was goes. */
    async setPicture(picture: Blob | undefined): Promise<void> {
        await inWords(async () => {
            const url = picture && (await this.client.uploadContent(picture, { includeFilename: false })).content_uri;
            await this.client.sendStateEvent(this.roomId, EventType.RoomAvatar, url === undefined ? {} : { url });
        });
    }

    /** Goes away for good: what was said is not kept for this person. */
    async leave(): Promise<void> {
        await inWords(() => this.client.leave(this.roomId));
        await this.client.forget(this.roomId).catch(() => undefined); // out of it is what counts
    }

    /** In rooms of version 12 and later. spec: rooms §v12 */
    private creators(): Set<string> {
        const create = this.room.currentState.getStateEvents(EventType.RoomCreate, "");
        const content = create?.getContent() as { room_version?: string; additional_creators?: unknown } | undefined;
        if (!create || !(Number(content?.room_version) >= 12)) return new Set();
        const more = Array.isArray(content?.additional_creators) ? content.additional_creators.filter((id) => typeof id === "string") : [];
        return new Set([create.getSender() ?? "", ...more]);
    }
}

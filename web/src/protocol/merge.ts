/**
 * Puts sync frames that wait together into one response to `/sync`, so that a client that was busy for a moment
 * does not pay for each frame alone.
 *
 * A response says: first the state, then the timeline. Merging is right only where the two frames, applied one
 * after the other, leave a client where the merged response leaves it. Where that is not so, `tryMerge` refuses
 * and the frames stay two responses. The cases it refuses:
 * - a room changes its section (invited, then joined);
 * - the second frame's state speaks of something that the first one's timeline changed to another event: in the
 *   merged response the older event of the timeline would win.
 *
 * A limited timeline ends everything before it: the first frame's messages are dropped, as the client drops those
 * it already has, and the state among them is kept as state.
 */
import type { EventLike, EventList, JsonObject, RoomPart, SyncBody, SyncFrame, TimelinePart } from "./frames.ts";

type Section = "join" | "leave" | "invite" | "knock";
const SECTIONS: readonly Section[] = ["join", "leave", "invite", "knock"];

/** The content of a frame without what belongs to the transport. The frame itself stays untouched. */
export function bodyOf(frame: SyncFrame): SyncBody {
    const { op: _op, mark: _mark, next_batch: _next, ...body } = frame;
    return body;
}

/** One body that equals `first`, then `second`; or `undefined` if there is none. Neither argument is changed. */
export function tryMerge(first: SyncBody, second: SyncBody): SyncBody | undefined {
    const merged: SyncBody = { ...first, ...second };
    if (first.rooms && second.rooms) {
        if (changesSection(first, second)) return undefined;
        const rooms = mergeRooms(first.rooms, second.rooms);
        if (rooms === undefined) return undefined;
        merged.rooms = rooms;
    }
    assign(merged, "account_data", latestBy(first.account_data, second.account_data, (e) => e.type));
    assign(merged, "presence", latestBy(first.presence, second.presence, (e) => e.sender ?? ""));
    assign(merged, "to_device", concat(first.to_device, second.to_device));
    assign(merged, "device_lists", mergeDeviceLists(first.device_lists, second.device_lists));
    return merged;
}

function changesSection(first: SyncBody, second: SyncBody): boolean {
    for (const a of SECTIONS) {
        for (const b of SECTIONS) {
            if (a === b) continue;
            const there = second.rooms?.[b];
            if (there && Object.keys(first.rooms?.[a] ?? {}).some((room) => Object.hasOwn(there, room))) return true;
        }
    }
    return false;
}

type Rooms = NonNullable<SyncBody["rooms"]>;

function mergeRooms(first: Rooms, second: Rooms): Rooms | undefined {
    const merged: Rooms = { ...first, ...second };
    for (const section of ["join", "leave"] as const) {
        const [a, b] = [first[section], second[section]];
        if (!a || !b) continue;
        const rooms = dictionary(a);
        for (const [id, part] of Object.entries(b)) {
            const before = rooms[id];
            const both = before ? mergeRoom(before, part) : part;
            if (both === undefined) return undefined;
            rooms[id] = both;
        }
        merged[section] = rooms;
    }
    for (const section of ["invite", "knock"] as const) {
        const [a, b] = [first[section], second[section]];
        if (a && b) merged[section] = Object.assign(dictionary<JsonObject>(a), b);
    }
    return merged;
}

/** A copy without a prototype: a room named `__proto__` is then a room like any other. */
function dictionary<T>(from: Record<string, T>): Record<string, T> {
    return Object.assign(Object.create(null) as Record<string, T>, from);
}

function mergeRoom(first: RoomPart, second: RoomPart): RoomPart | undefined {
    const merged: RoomPart = { ...first, ...second };
    if (second.timeline?.limited) {
        const overtaken = (first.timeline?.events ?? []).filter((e) => e.state_key !== undefined);
        assign(merged, "state", latestState(first.state?.events, overtaken, second.state?.events));
        merged.timeline = second.timeline;
    } else {
        if (stateWouldBeUndone(first.timeline, second.state)) return undefined;
        assign(merged, "state", latestState(first.state?.events, second.state?.events));
        assign(merged, "timeline", mergeTimeline(first.timeline, second.timeline));
    }
    assign(merged, "ephemeral", mergeEphemeral(first.ephemeral, second.ephemeral));
    assign(merged, "account_data", latestBy(first.account_data, second.account_data, (e) => e.type));
    if (first.summary && second.summary) merged.summary = { ...first.summary, ...second.summary };
    return merged;
}

function mergeTimeline(first?: TimelinePart, second?: TimelinePart): TimelinePart | undefined {
    if (!first || !second) return first ?? second;
    const merged: TimelinePart = { ...second, ...first, events: [...(first.events ?? []), ...(second.events ?? [])] };
    // An empty first part has nothing for which its prev_batch could be the start.
    if (!first.events?.length && !first.limited && second.prev_batch !== undefined) merged.prev_batch = second.prev_batch;
    return merged;
}

const stateKey = (e: EventLike): string => JSON.stringify([e.type, e.state_key ?? null]);

function stateWouldBeUndone(timeline: TimelinePart | undefined, state: EventList | undefined): boolean {
    if (!timeline?.events?.length || !state?.events?.length) return false;
    const inTimeline = new Map<string, string | undefined>();
    for (const e of timeline.events) if (e.state_key !== undefined) inTimeline.set(stateKey(e), e.event_id);
    return state.events.some((e) => inTimeline.has(stateKey(e)) && inTimeline.get(stateKey(e)) !== e.event_id);
}

function latestState(...lists: (EventLike[] | undefined)[]): EventList | undefined {
    if (lists.every((list) => list === undefined)) return undefined;
    const latest = new Map<string, EventLike>();
    for (const e of lists.flatMap((list) => list ?? [])) latest.set(stateKey(e), e);
    return { events: [...latest.values()] };
}

/** Both lists in order, of each key only the last event. */
function latestBy(first: EventList | undefined, second: EventList | undefined, key: (e: EventLike) => string): EventList | undefined {
    if (!first || !second) return first ?? second;
    const latest = new Map<string, EventLike>();
    for (const e of [...(first.events ?? []), ...(second.events ?? [])]) {
        latest.delete(key(e)); // to the end, where the newer one stands
        latest.set(key(e), e);
    }
    return { ...first, ...second, events: [...latest.values()] };
}

function concat(first?: EventList, second?: EventList): EventList | undefined {
    if (!first || !second) return first ?? second;
    return { ...first, ...second, events: [...(first.events ?? []), ...(second.events ?? [])] };
}

/** Receipts add up; who is typing is said whole each time. */
function mergeEphemeral(first?: EventList, second?: EventList): EventList | undefined {
    const both = concat(first, second);
    if (!both?.events) return both;
    const lastTyping = both.events.findLastIndex((e) => e.type === "m.typing");
    return { ...both, events: both.events.filter((e, i) => e.type !== "m.typing" || i === lastTyping) };
}

function mergeDeviceLists(first?: SyncBody["device_lists"], second?: SyncBody["device_lists"]): SyncBody["device_lists"] {
    if (!first || !second) return first ?? second;
    const changed = new Set(first.changed);
    const left = new Set(first.left);
    for (const user of second.changed ?? []) {
        changed.add(user);
        left.delete(user);
    }
    for (const user of second.left ?? []) {
        left.add(user);
        changed.delete(user);
    }
    return { changed: [...changed], left: [...left] };
}

function assign<T, K extends keyof T>(to: T, key: K, value: T[K] | undefined): void {
    if (value !== undefined) to[key] = value;
}

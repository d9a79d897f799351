import { describe, expect, it } from "vitest";
import type { EventLike, RoomPart, SyncBody, SyncFrame } from "../../src/protocol/frames.ts";
import { bodyOf, tryMerge } from "../../src/protocol/merge.ts";

const message = (id: string): EventLike => ({ type: "m.room.message", event_id: id, content: { body: id } });
const state = (id: string, type: string, key = ""): EventLike => ({ type, state_key: key, event_id: id });
const joined = (part: RoomPart, room = "!r"): SyncBody => ({ rooms: { join: { [room]: part } } });
const roomOf = (body: SyncBody | undefined, room = "!r"): RoomPart => {
    if (!body) throw new Error("not merged");
    return body.rooms!.join![room]!;
};
const ids = (part?: { events?: EventLike[] }): (string | undefined)[] => (part?.events ?? []).map((e) => e.event_id);

describe("tryMerge", () => {
    it("keeps the order of a room's events", () => {
        const a = joined({ timeline: { events: [message("$1"), message("$2")], prev_batch: "p1" } });
        const b = joined({ timeline: { events: [message("$3")], prev_batch: "p3" } });
        const room = roomOf(tryMerge(a, b));
        expect(ids(room.timeline)).toEqual(["$1", "$2", "$3"]);
        expect(room.timeline!.prev_batch).toBe("p1");
        expect(room.timeline!.limited).toBeUndefined();
    });

    it("does not change its arguments", () => {
        const a = joined({ timeline: { events: [message("$1")] }, ephemeral: { events: [{ type: "m.typing" }] } });
        const b = joined({ timeline: { events: [message("$2")] }, ephemeral: { events: [{ type: "m.typing" }] } });
        const before = JSON.stringify([a, b]);
        tryMerge(a, b);
        expect(JSON.stringify([a, b])).toBe(before);
    });

    it("keeps a gap that stands before the first frame's events", () => {
        const a = joined({ timeline: { events: [message("$5")], limited: true, prev_batch: "p5" } });
        const b = joined({ timeline: { events: [message("$6")] } });
        const { timeline } = roomOf(tryMerge(a, b));
        expect(timeline).toEqual({ events: [message("$5"), message("$6")], limited: true, prev_batch: "p5" });
    });

    it("drops what stands before a gap, and keeps the state among it", () => {
        const a = joined({
            state: { events: [state("$s0", "m.room.topic")] },
            timeline: { events: [message("$1"), state("$s1", "m.room.name"), state("$s2", "m.room.topic")] },
        });
        const b = joined({
            state: { events: [state("$s9", "m.room.name")] },
            timeline: { events: [message("$20")], limited: true, prev_batch: "p20" },
        });
        const room = roomOf(tryMerge(a, b));
        expect(room.timeline).toEqual({ events: [message("$20")], limited: true, prev_batch: "p20" });
        expect(ids(room.state)).toEqual(["$s2", "$s9"]);
    });

    it("takes the start of the second timeline if the first is empty", () => {
        const a = joined({ timeline: { events: [], prev_batch: "p1" } });
        const b = joined({ timeline: { events: [message("$2")], prev_batch: "p2" } });
        expect(roomOf(tryMerge(a, b)).timeline!.prev_batch).toBe("p2");
    });

    it("adds lazily loaded members", () => {
        const a = joined({ state: { events: [state("$a", "m.room.member", "@a")] }, timeline: { events: [message("$1")] } });
        const b = joined({ state: { events: [state("$b", "m.room.member", "@b")] }, timeline: { events: [message("$2")] } });
        expect(ids(roomOf(tryMerge(a, b)).state)).toEqual(["$a", "$b"]);
    });

    it("refuses when an older event of the timeline would undo newer state", () => {
        const a = joined({ timeline: { events: [state("$old", "m.room.member", "@b")] } });
        const b = joined({ state: { events: [state("$new", "m.room.member", "@b")] }, timeline: { events: [message("$2")] } });
        expect(tryMerge(a, b)).toBeUndefined();
        const same = joined({ state: { events: [state("$old", "m.room.member", "@b")] } });
        expect(tryMerge(a, same)).toBeDefined();
    });

    it("refuses when a room changes its section", () => {
        const invited: SyncBody = { rooms: { invite: { "!r": { invite_state: { events: [] } } } } };
        expect(tryMerge(invited, joined({}))).toBeUndefined();
        expect(tryMerge(joined({}), { rooms: { leave: { "!r": {} } } })).toBeUndefined();
        expect(tryMerge(invited, joined({}, "!other"))).toBeDefined();
    });

    it("keeps the rooms of both", () => {
        const merged = tryMerge(joined({ timeline: { events: [message("$1")] } }, "!a"), joined({ timeline: { events: [message("$2")] } }, "!b"));
        expect(Object.keys(merged!.rooms!.join!)).toEqual(["!a", "!b"]);
        expect(tryMerge({}, joined({}))!.rooms!.join).toHaveProperty(["!r"]);
        expect(tryMerge(joined({}), {})!.rooms!.join).toHaveProperty(["!r"]);
    });

    it("lets the newest account data, presence, typing and counts stand", () => {
        const a: SyncBody = {
            account_data: { events: [{ type: "x", content: { v: 1 } }, { type: "y" }] },
            presence: { events: [{ type: "m.presence", sender: "@a", content: { presence: "online" } }] },
            device_one_time_keys_count: { signed_curve25519: 50 },
            ...joined({
                ephemeral: { events: [{ type: "m.typing", content: { user_ids: ["@a"] } }, { type: "m.receipt", content: { $1: {} } }] },
                unread_notifications: { notification_count: 1 },
                summary: { "m.joined_member_count": 2, "m.heroes": ["@a"] },
            }),
        };
        const b: SyncBody = {
            account_data: { events: [{ type: "x", content: { v: 2 } }] },
            presence: { events: [{ type: "m.presence", sender: "@a", content: { presence: "offline" } }] },
            device_one_time_keys_count: { signed_curve25519: 49 },
            ...joined({
                ephemeral: { events: [{ type: "m.receipt", content: { $2: {} } }, { type: "m.typing", content: { user_ids: [] } }] },
                unread_notifications: { notification_count: 0 },
                summary: { "m.joined_member_count": 3 },
            }),
        };
        const merged = tryMerge(a, b)!;
        expect(merged.account_data!.events).toEqual([{ type: "y" }, { type: "x", content: { v: 2 } }]);
        expect(merged.presence!.events!.map((e) => e.content!.presence)).toEqual(["offline"]);
        expect(merged.device_one_time_keys_count).toEqual({ signed_curve25519: 49 });
        const room = roomOf(merged);
        expect(room.ephemeral!.events!.map((e) => e.type)).toEqual(["m.receipt", "m.receipt", "m.typing"]);
        expect(room.unread_notifications).toEqual({ notification_count: 0 });
        expect(room.summary).toEqual({ "m.joined_member_count": 3, "m.heroes": ["@a"] });
    });

    it("keeps every to-device message, in order", () => {
        const a: SyncBody = { to_device: { events: [{ type: "1" }, { type: "1" }] } };
        const b: SyncBody = { to_device: { events: [{ type: "2" }] } };
        expect(tryMerge(a, b)!.to_device!.events!.map((e) => e.type)).toEqual(["1", "1", "2"]);
    });

    it("follows a user through the device lists", () => {
        const merged = tryMerge({ device_lists: { changed: ["@a", "@b"], left: ["@c"] } }, { device_lists: { changed: ["@c"], left: ["@a"] } });
        expect(merged!.device_lists).toEqual({ changed: ["@b", "@c"], left: ["@a"] });
    });

    it("treats a room named __proto__ as a room", () => {
        const a = JSON.parse('{"rooms":{"join":{"__proto__":{"timeline":{"events":[{"type":"a"}]}}}}}') as SyncBody;
        const b = JSON.parse('{"rooms":{"join":{"__proto__":{"timeline":{"events":[{"type":"b"}]}}}}}') as SyncBody;
        const rooms = tryMerge(a, b)!.rooms!.join!;
        expect(Object.keys(rooms)).toEqual(["__proto__"]);
        expect(({} as { timeline?: unknown }).timeline).toBeUndefined();
    });

    it("takes the transport's members off a frame", () => {
        const frame: SyncFrame = { op: "sync", next_batch: "s1", mark: ["1", "2"], to_device: { events: [] } };
        expect(bodyOf(frame)).toEqual({ to_device: { events: [] } });
    });
});

/** A model of what a client knows of a room, to compare one response with two. */
function apply(model: { events: string[]; state: Map<string, string> }, body: SyncBody): void {
    const room = body.rooms?.join?.["!r"];
    for (const e of room?.state?.events ?? []) model.state.set(`${e.type}/${e.state_key}`, e.event_id!);
    if (room?.timeline?.limited) model.events = [`gap:${room.timeline.prev_batch}`];
    for (const e of room?.timeline?.events ?? []) {
        if (e.state_key !== undefined) model.state.set(`${e.type}/${e.state_key}`, e.event_id!);
        model.events.push(e.event_id!);
    }
}

it("leaves a client where the frames one by one leave it, whatever they hold", () => {
    let seed = 1;
    const random = (n: number): number => {
        seed = (seed * 1103515245 + 12345) % 2147483648;
        return Math.floor((seed / 2147483648) * n);
    };
    let merges = 0;
    for (let round = 0; round < 3000; round++) {
        let next = 0;
        const event = (): EventLike => (random(3) === 0 ? state(`$${next++}`, "m.room.member", `@${random(3)}`) : message(`$${next++}`));
        const body = (): SyncBody => {
            const part: RoomPart = {};
            if (random(3) === 0) part.state = { events: Array.from({ length: random(3) }, () => state(`$${next++}`, "m.room.member", `@${random(3)}`)) };
            if (random(4) > 0) part.timeline = { events: Array.from({ length: random(4) }, event), ...(random(4) === 0 ? { limited: true, prev_batch: `p${next}` } : {}) };
            return joined(part);
        };
        const frames = [body(), body(), body()];
        const single = { events: [] as string[], state: new Map<string, string>() };
        frames.forEach((f) => apply(single, f));
        const together = { events: [] as string[], state: new Map<string, string>() };
        let pending = frames[0]!;
        for (const f of frames.slice(1)) {
            const merged = tryMerge(pending, f);
            if (merged) {
                merges++;
                pending = merged;
            } else {
                apply(together, pending);
                pending = f;
            }
        }
        apply(together, pending);
        expect({ round, events: together.events, state: [...together.state].sort() }).toEqual({ round, events: single.events, state: [...single.state].sort() });
    }
    expect(merges).toBeGreaterThan(3000);
});

import { describe, expect, it } from "vitest";
import type { SyncFrame } from "../../src/protocol/frames.ts";
import { FrameBuffer, MAX_FRAMES } from "../../src/protocol/framebuffer.ts";
import { advance, format, parse, START } from "../../src/protocol/position.ts";

const mark = (partition: string, at: string): SyncFrame => ({ op: "sync", mark: [partition, at] });

describe("position", () => {
    it("has the written form of docs/websocket.md", () => {
        let position = advance(START, { op: "sync", next_batch: "s4_8f" });
        expect(format(position)).toBe("s4_8f");
        position = advance(position, mark("12", "90a"));
        position = advance(position, mark("12", "90b"));
        expect(format(position)).toBe("s4_8f~12.90b");
        position = advance(position, mark("3", "7"));
        expect(format(position)).toBe("s4_8f~12.90b~3.7");
        expect(parse("s4_8f~12.90b~3.7")).toEqual(position);
    });

    it("is emptied of marks by a complete frame and left alone by a frame without a position", () => {
        const position = parse("s1~2.3");
        expect(advance(position, { op: "sync" })).toBe(position);
        expect(advance(position, { op: "sync", next_batch: "s9" })).toEqual({ base: "s9", marks: {} });
        expect(position).toEqual({ base: "s1", marks: { "2": "3" } });
    });

    it.each(["s1~", "s1~2", "s1~.3", "s1~2."])("leaves %s to the server", (token) => {
        expect(format(parse(token))).toBe(token);
        expect(parse(token).marks).toEqual({});
    });

    it("begins with nothing", () => {
        expect(format(START)).toBeUndefined();
        expect(parse(undefined)).toEqual(START);
        expect(parse("")).toEqual(START);
    });
});

describe("FrameBuffer", () => {
    it("hands out one response for the frames that wait, with the position after the last", () => {
        const buffer = new FrameBuffer();
        buffer.push({ op: "sync", next_batch: "s1" });
        buffer.push({ ...mark("1", "a"), rooms: { join: { "!r": { timeline: { events: [{ type: "m", event_id: "$1" }] } } } } });
        buffer.push({ ...mark("1", "b"), rooms: { join: { "!r": { timeline: { events: [{ type: "m", event_id: "$2" }] } } } } });
        const response = buffer.take()!;
        expect(response.next_batch).toBe("s1~1.b");
        expect(response.rooms!.join!["!r"]!.timeline!.events!.map((e) => e.event_id)).toEqual(["$1", "$2"]);
        expect(buffer.take()).toBeUndefined();
        expect(format(buffer.delivered)).toBe("s1~1.b");
    });

    it("gives two responses for frames that cannot be one", () => {
        const buffer = new FrameBuffer();
        buffer.push({ op: "sync", next_batch: "s1", rooms: { invite: { "!r": {} } } });
        buffer.push({ op: "sync", next_batch: "s2", rooms: { join: { "!r": {} } } });
        expect(buffer.take()!.next_batch).toBe("s1");
        expect(format(buffer.received)).toBe("s2");
        expect(buffer.take()!.next_batch).toBe("s2");
    });

    it("says the last known key counts in every response", () => {
        const buffer = new FrameBuffer();
        buffer.push({ op: "sync", next_batch: "s1", device_one_time_keys_count: { signed_curve25519: 50 } });
        buffer.take();
        buffer.push(mark("1", "a"));
        expect(buffer.take()!.device_one_time_keys_count).toEqual({ signed_curve25519: 50 });
        expect(buffer.empty().device_one_time_keys_count).toEqual({ signed_curve25519: 50 });
    });

    it("refuses more than it may hold, and can go back to what was handed out", () => {
        const buffer = new FrameBuffer();
        buffer.push({ op: "sync", next_batch: "s1" });
        buffer.take();
        for (let i = 0; i < MAX_FRAMES; i++) expect(buffer.push(mark("1", String(i)))).toBe(true);
        expect(buffer.push(mark("1", "x"))).toBe(false);
        buffer.rewind();
        expect(buffer.size).toBe(0);
        expect(format(buffer.received)).toBe("s1");
    });
});

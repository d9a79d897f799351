/**
 * A position in what the server pushes: the last complete `next_batch`, and the marks seen after it.
 * It is a value: every step makes a new one, so that a position handed out cannot move.
 */
import type { SyncFrame } from "./frames.ts";

export interface Position {
    /** Absent before the first complete frame. */
    readonly base: string | undefined;
    readonly marks: Readonly<Record<string, string>>;
}

export const START: Position = { base: undefined, marks: {} };

/** The position after a frame was applied. A frame without a position (typing, presence) leaves it where it is. */
export function advance(position: Position, frame: SyncFrame): Position {
    if (frame.next_batch !== undefined) return { base: frame.next_batch, marks: {} };
    if (frame.mark === undefined) return position;
    const [partition, at] = frame.mark;
    return { base: position.base, marks: { ...position.marks, [partition]: at } };
}

/** The written form that `/sync` takes as `since`: the token, then for each mark `~` partition `.` position. */
export function format(position: Position): string | undefined {
    if (position.base === undefined) return undefined;
    const marks = Object.keys(position.marks)
        .sort()
        .map((partition) => `~${partition}.${position.marks[partition]}`);
    return position.base + marks.join("");
}

/** Reads the written form. What it cannot read as marks stays part of the token, which is the server's to judge. */
export function parse(token: string | undefined): Position {
    if (token === undefined || token === "") return START;
    const [base, ...written] = token.split("~");
    const marks: Record<string, string> = {};
    for (const mark of written) {
        const dot = mark.indexOf(".");
        if (dot <= 0 || dot === mark.length - 1) return { base: token, marks: {} };
        marks[mark.slice(0, dot)] = mark.slice(dot + 1);
    }
    return { base, marks };
}

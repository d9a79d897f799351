/** What keys do from anywhere in the app. */

export type Shortcut = "search" | "previous" | "next" | "unread" | "help";

/** The part of a keyboard event that is looked at. */
export interface Press {
    key: string;
    altKey: boolean;
    shiftKey: boolean;
    ctrlKey: boolean;
    metaKey: boolean;
}

interface Keys {
    key: string;
    /** Control, or Command where there is one. None is without one of these or Alt: letters alone are for writing. */
    command?: true;
    alt?: true;
    shift?: true;
}

export const SHORTCUTS: Readonly<Record<Shortcut, Keys>> = {
    search: { key: "k", command: true },
    previous: { key: "ArrowUp", alt: true },
    next: { key: "ArrowDown", alt: true },
    unread: { key: "ArrowDown", alt: true, shift: true },
    help: { key: "/", command: true },
};

/** What a press of keys is for, if for anything. Shift is let pass where the key needs it on some keyboards. */
export function shortcutOf(press: Press): Shortcut | undefined {
    const command = press.ctrlKey !== press.metaKey;
    const found = Object.entries(SHORTCUTS).find(([, keys]) => press.key.toLowerCase() === keys.key.toLowerCase() && command === (keys.command ?? false) && press.altKey === (keys.alt ?? false) && (keys.key === "/" || press.shiftKey === (keys.shift ?? false)));
    return found?.[0] as Shortcut | undefined;
}

/** The conversation that a step leads to, in the order of the list, round its ends; undefined if there is none. */
export function stepFrom(rooms: readonly { id: string; unread: number }[], current: string | undefined, step: "previous" | "next" | "unread"): string | undefined {
    const at = rooms.findIndex((room) => room.id === current);
    const behind = [...rooms.slice(at + 1), ...rooms.slice(0, Math.max(at, 0))];
    if (step === "unread") return behind.find((room) => room.unread > 0)?.id;
    return (step === "next" || at < 0 ? behind[0] : behind.at(-1))?.id;
}

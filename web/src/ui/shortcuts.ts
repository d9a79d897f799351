/** Keys that work from anywhere in the app, but for what a dialog covers. */
import { useEffect } from "preact/hooks";
import type { Chat } from "../domain/chat.ts";
import { type Shortcut, shortcutOf, stepFrom } from "../domain/shortcuts.ts";
import { go } from "./route.ts";

export function useShortcuts(chat: Chat, current: string | undefined, onHelp: () => void): void {
    useEffect(() => {
        const pressed = (event: KeyboardEvent): void => {
            if (event.defaultPrevented || event.isComposing || document.querySelector("dialog[open]") !== null) return;
            const what = shortcutOf(event);
            if (what === undefined || (what !== "help" && chat.preferences.current.value?.shortcuts === "off")) return;
            event.preventDefault();
            run(what);
        };
        const run = (what: Shortcut): void => {
            if (what === "help") return onHelp();
            if (what === "search") return toSearch();
            const rooms = chat.rooms.value.filter((room) => room.kind === "join" && !room.space);
            const roomId = stepFrom(rooms, current, what);
            if (roomId !== undefined) go({ page: "room", roomId });
        };
        document.addEventListener("keydown", pressed);
        return () => document.removeEventListener("keydown", pressed);
    }, [chat, current, onHelp]);
}

/** In a narrow window the list is not there while a room is. */
function toSearch(): void {
    const field = document.querySelector<HTMLInputElement>(".list-search input");
    if (field?.checkVisibility()) return field.select();
    go({ page: "rooms" });
    requestAnimationFrame(() => field?.select());
}

/** Where the focus is while something is open above the page, and where it goes after that. */
import { useLayoutEffect, useRef } from "preact/hooks";
import type { RefObject } from "preact";

/** What is about to have the focus again, for what is opened by something that closes. */
let returning: Element | null = null;

/** Gives the focus back to what had it before, if what goes away takes it with it; if that is gone too, to the room. */
export function useFocusReturn(): void {
    // In layout effects: what goes away in the same change has ended before this begins, and no key is pressed between.
    useLayoutEffect(() => {
        const at = document.activeElement;
        const to = at === null || at === document.body ? returning : at;
        return () => {
            returning = to;
            // When all of this is drawn: whatever took the focus meanwhile keeps it.
            queueMicrotask(() => {
                returning = null;
                if (document.activeElement !== null && document.activeElement !== document.body) return;
                const back = to instanceof HTMLElement && to.isConnected ? to : document.querySelector<HTMLElement>("main[tabindex]");
                back?.focus({ preventScroll: true });
            });
        };
    }, []);
}

/** A modal dialog of the browser's own, which keeps the focus inside and closes by Escape. */
export function useModal(): RefObject<HTMLDialogElement | null> {
    const dialog = useRef<HTMLDialogElement>(null);
    useFocusReturn(); // looks before the dialog takes the focus
    useLayoutEffect(() => dialog.current?.showModal(), []); // what is typed from now on is for the dialog
    return dialog;
}

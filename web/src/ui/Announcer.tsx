/** Says what others write in the open conversation to those who do not see it. The log itself is silent: it also grows at its beginning. */
import type { JSX } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import type { Item, Message } from "../domain/entries.ts";
import type { Timeline } from "../domain/timeline.ts";

/** Long messages are read by going to them. */
const MAX_LETTERS = 200;

function lastOf(items: readonly Item[]): Message | undefined {
    const group = items.findLast((item) => item.kind === "group");
    return group?.messages.at(-1);
}

export function Announcer({ timeline }: { timeline: Timeline }): JSX.Element {
    const last = lastOf(timeline.items.value);
    const said = useRef(last?.key);
    const [words, setWords] = useState("");
    useEffect(() => {
        if (!last || last.key === said.current || timeline.newer.value !== "none" || last.style === "locked") return;
        said.current = last.key;
        if (!last.own) setWords(`${last.senderName}: ${last.text.slice(0, MAX_LETTERS)}`);
    }, [last]);
    return (
        <p class="unseen" role="status" dir="auto">
            {words}
        </p>
    );
}

/** The line to write in. Enter sends, Shift and Enter makes a new line; on a touch keyboard Enter makes a new line. */
import type { JSX } from "preact";
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import type { Timeline } from "../domain/timeline.ts";
import { Icon } from "./parts.tsx";

/** What was begun in each room and not sent, for as long as the page lives. */
const drafts = new Map<string, string>();

export function Composer({ timeline, name }: { timeline: Timeline; name: string }): JSX.Element {
    const [text, setText] = useState(drafts.get(timeline.roomId) ?? "");
    const box = useRef<HTMLTextAreaElement>(null);
    const touch = matchMedia("(pointer: coarse)").matches;

    useEffect(() => {
        if (!touch) box.current?.focus();
    }, []);
    useLayoutEffect(() => {
        const area = box.current!;
        area.style.height = "auto";
        area.style.height = `${area.scrollHeight}px`;
    }, [text]);

    const change = (value: string): void => {
        setText(value);
        if (value === "") drafts.delete(timeline.roomId);
        else drafts.set(timeline.roomId, value);
        timeline.isTyping(value.trim() === "");
    };
    const send = (): void => {
        if (text.trim() === "") return;
        timeline.send(text);
        change("");
        box.current?.focus();
    };
    return (
        <form
            class="composer"
            onSubmit={(event) => {
                event.preventDefault();
                send();
            }}
        >
            <textarea
                ref={box}
                rows={1}
                value={text}
                dir="auto"
                aria-label={`Message to ${name}`}
                placeholder="Write a message"
                enterkeyhint={touch ? "enter" : "send"}
                onInput={(event) => change(event.currentTarget.value)}
                onKeyDown={(event) => {
                    if (event.key !== "Enter" || event.shiftKey || event.isComposing || touch) return;
                    event.preventDefault();
                    send();
                }}
            />
            <button type="submit" class="icon-button filled send" aria-label="Send" title="Send" disabled={text.trim() === ""}>
                <Icon name="send" />
            </button>
        </form>
    );
}

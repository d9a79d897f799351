/** The messages of a room. Keeps its place when older ones are put before it, and follows the end when it is at the end. */
import type { JSX } from "preact";
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import type { Item, Message } from "../domain/entries.ts";
import { splitLinks } from "../domain/links.ts";
import type { Timeline } from "../domain/timeline.ts";
import { Avatar, colourOf, Icon, Spinner } from "./parts.tsx";
import { clockTime, dayName, exactTime } from "./time.ts";

/** Distance from an end, in CSS pixels, within which the reader is taken to be there. */
const NEAR_END = 48;
const NEAR_START = 400;

export function Messages({ timeline }: { timeline: Timeline }): JSX.Element {
    const items = timeline.items.value;
    const scroller = useRef<HTMLDivElement>(null);
    const atEnd = useRef(true);
    const fromEnd = useRef(0);
    const [showJump, setShowJump] = useState(false);

    const look = (): void => {
        const box = scroller.current;
        if (!box) return;
        fromEnd.current = box.scrollHeight - box.scrollTop;
        atEnd.current = fromEnd.current - box.clientHeight <= NEAR_END;
        setShowJump(!atEnd.current);
        if (box.scrollTop < NEAR_START && timeline.older.value === "more") void timeline.loadOlder();
        if (atEnd.current && document.visibilityState === "visible") timeline.markRead();
    };
    const toEnd = (): void => {
        const box = scroller.current; // gone when an observer speaks once more after the end
        if (box) box.scrollTop = box.scrollHeight;
    };

    const first = useRef<string | undefined>(undefined);
    useLayoutEffect(() => {
        const box = scroller.current!;
        const grewAtStart = first.current !== undefined && first.current !== items[0]?.key;
        first.current = items[0]?.key;
        if (atEnd.current) toEnd();
        else if (grewAtStart) box.scrollTop = box.scrollHeight - fromEnd.current;
        look();
    }, [items]);

    useEffect(() => {
        // The keyboard of a phone, or a window that is pulled: the end stays the end.
        const observer = new ResizeObserver(() => atEnd.current && toEnd());
        observer.observe(scroller.current!);
        document.addEventListener("visibilitychange", look);
        return () => {
            observer.disconnect();
            document.removeEventListener("visibilitychange", look);
        };
    }, []);

    return (
        <div class="messages-frame">
            <div class="messages" ref={scroller} onScroll={look} tabIndex={0} role="log" aria-label="Messages">
                <div class="messages-content">
                    <Beginning timeline={timeline} />
                    {items.map((item) => (
                        <ItemView key={item.key} item={item} timeline={timeline} />
                    ))}
                </div>
            </div>
            {showJump && (
                <button type="button" class="jump" onClick={toEnd}>
                    <Icon name="down" /> Latest
                </button>
            )}
        </div>
    );
}

function Beginning({ timeline }: { timeline: Timeline }): JSX.Element | null {
    switch (timeline.older.value) {
        case "loading":
            return (
                <div class="beginning">
                    <Spinner label="Loading older messages" />
                </div>
            );
        case "failed":
            return (
                <div class="beginning">
                    <p>Older messages could not be loaded.</p>
                    <button type="button" class="button small" onClick={() => void timeline.loadOlder()}>
                        Try again
                    </button>
                </div>
            );
        case "none":
            return <p class="beginning">This is where it begins.</p>;
        default:
            return null;
    }
}

function ItemView({ item, timeline }: { item: Item; timeline: Timeline }): JSX.Element {
    if (item.kind === "day") {
        return (
            <h3 class="day">
                <time dateTime={new Date(item.ts).toISOString()}>{dayName(item.ts)}</time>
            </h3>
        );
    }
    if (item.kind === "notice") return <p class="notice">{item.text}</p>;
    return (
        <section class={`group ${item.own ? "own" : ""}`} aria-label={`${item.own ? "You" : item.senderName}, ${clockTime(item.messages[0]!.ts)}`}>
            {!item.own && <Avatar id={item.sender} name={item.senderName} size="s" />}
            <div class="group-body">
                {!item.own && (
                    <span class={`sender ink-${colourOf(item.sender)}`} title={item.sender}>
                        {item.senderName}
                    </span>
                )}
                {item.messages.map((message) => (
                    <MessageView key={message.key} message={message} timeline={timeline} />
                ))}
            </div>
        </section>
    );
}

function MessageView({ message, timeline }: { message: Message; timeline: Timeline }): JSX.Element {
    const { key, style, delivery, ts } = message;
    return (
        <div class={`message style-${style} is-${delivery}`} data-event={message.eventId}>
            <p class="bubble" dir="auto">
                {style === "emote" && <span class="emote-name">{message.senderName} </span>}
                <Text text={message.text} plain={style === "removed" || style === "locked"} />
                <span class="stamp">
                    {message.edited && "edited "}
                    {delivery === "sending" ? (
                        <span aria-label="Being sent">…</span>
                    ) : (
                        <time dateTime={new Date(ts).toISOString()} title={exactTime(ts)}>
                            {clockTime(ts)}
                        </time>
                    )}
                </span>
            </p>
            {delivery === "failed" && (
                <div class="failed" role="alert">
                    <span>Not sent.</span>
                    <button type="button" class="link" onClick={() => timeline.retry(key)}>
                        Try again
                    </button>
                    <button type="button" class="link" onClick={() => timeline.discard(key)}>
                        Delete
                    </button>
                </div>
            )}
        </div>
    );
}

/** Text stays text. Only addresses of the web become links, and they open elsewhere without knowing from where. */
function Text({ text, plain }: { text: string; plain: boolean }): JSX.Element {
    if (plain) return <>{text}</>;
    return (
        <>
            {splitLinks(text).map((segment, i) =>
                segment.href === undefined ? (
                    segment.text
                ) : (
                    <a key={i} href={segment.href} target="_blank" rel="noopener noreferrer nofollow">
                        {segment.text}
                    </a>
                ),
            )}
        </>
    );
}

/** The messages of a room. Keeps its place when older ones are put before it, and follows the end when it is at the end. */
import type { JSX } from "preact";
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import type { Item, Message } from "../domain/entries.ts";
import { t } from "../domain/i18n.ts";
import type { Media } from "../domain/media.ts";
import type { Timeline } from "../domain/timeline.ts";
import { UploadRows } from "./AttachmentView.tsx";
import { MessageMenu } from "./MessageMenu.tsx";
import { MessageView } from "./MessageView.tsx";
import { Avatar, colourOf, Icon, Spinner } from "./parts.tsx";
import { route } from "./route.ts";
import { clockTime, dayName } from "./time.ts";

/** Distance from an end, in CSS pixels, within which the reader is taken to be there. */
const NEAR_END = 48;
const NEAR_START = 400;

export function Messages({ timeline, media }: { timeline: Timeline; media: Media }): JSX.Element {
    const items = timeline.items.value;
    const scroller = useRef<HTMLDivElement>(null);
    const atEnd = useRef(true);
    const fromEnd = useRef(0);
    const [showJump, setShowJump] = useState(false);
    const [unreadAbove, setUnreadAbove] = useState(false);
    const [menu, setMenu] = useState<{ message: Message; at: DOMRect }>();
    const wantUnread = useRef(false);
    const uploads = timeline.uploads.list.value.length;

    const look = (): void => {
        const box = scroller.current;
        if (!box) return;
        fromEnd.current = box.scrollHeight - box.scrollTop;
        atEnd.current = fromEnd.current - box.clientHeight <= NEAR_END;
        setShowJump(!atEnd.current);
        const line = box.querySelector(".unread-line");
        if (line && line.getBoundingClientRect().bottom > box.getBoundingClientRect().top) setUnreadAbove(false);
        if (box.scrollTop < NEAR_START && timeline.older.value === "more") void timeline.loadOlder();
        if (atEnd.current && document.visibilityState === "visible") timeline.markRead();
    };
    const toEnd = (): void => {
        const box = scroller.current; // gone when an observer speaks once more after the end
        if (box) box.scrollTop = box.scrollHeight;
    };

    const toUnread = async (): Promise<void> => {
        setUnreadAbove(false);
        wantUnread.current = true;
        await timeline.findUnread();
        showUnread();
    };
    const showUnread = (): void => {
        const line = scroller.current?.querySelector(".unread-line");
        if (!wantUnread.current || !line) return;
        wantUnread.current = false;
        atEnd.current = false;
        line.scrollIntoView({ block: "start" });
    };
    const jump = (eventId: string): void => {
        atEnd.current = false;
        const row = scroller.current?.querySelector<HTMLElement>(`[data-event="${CSS.escape(eventId)}"]`);
        if (!row) return;
        row.scrollIntoView({ block: "center" });
        row.focus({ preventScroll: true });
    };

    const first = useRef<string | undefined>(undefined);
    useLayoutEffect(() => {
        const box = scroller.current!;
        const grewAtStart = first.current !== undefined && first.current !== items[0]?.key;
        first.current = items[0]?.key;
        if (atEnd.current) toEnd();
        else if (grewAtStart) box.scrollTop = box.scrollHeight - fromEnd.current;
        look();
        showUnread();
    }, [items, uploads]);
    useEffect(() => {
        // Whoever comes into a room with much that is new is at its end, and is shown the way to where it begins.
        const line = scroller.current!.querySelector(".unread-line");
        const hidden = line ? line.getBoundingClientRect().top < scroller.current!.getBoundingClientRect().top : timeline.unread.value === "above";
        setUnreadAbove(hidden);
    }, []);

    const wanted = route.value.page === "room" ? route.value.eventId : undefined;
    useEffect(() => {
        if (wanted !== undefined) void timeline.find(wanted).then((found) => found && requestAnimationFrame(() => jump(wanted)));
    }, [wanted]);

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
            <div class="messages" ref={scroller} onScroll={look} onKeyDown={moveFocus} tabIndex={0} role="log" aria-label={t("Messages")}>
                <div class="messages-content">
                    <Beginning timeline={timeline} />
                    {items.map((item) => (
                        <ItemView key={item.key} item={item} timeline={timeline} media={media} onMenu={(message, at) => setMenu({ message, at })} onJump={jump} />
                    ))}
                    <UploadRows timeline={timeline} />
                </div>
            </div>
            {unreadAbove && (
                <button type="button" class="jump jump-unread" onClick={() => void toUnread()}>
                    <Icon name="up" /> {t("New messages")}
                </button>
            )}
            {menu && <MessageMenu {...menu} timeline={timeline} onClose={() => setMenu(undefined)} />}
            {showJump && (
                <button type="button" class="jump" onClick={toEnd}>
                    <Icon name="down" /> {t("Latest")}
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
                    <Spinner label={t("Loading older messages")} />
                </div>
            );
        case "failed":
            return (
                <div class="beginning">
                    <p>{t("Older messages could not be loaded.")}</p>
                    <button type="button" class="button small" onClick={() => void timeline.loadOlder()}>
                        {t("Try again")}
                    </button>
                </div>
            );
        case "none":
            return <p class="beginning">{t("This is where it begins.")}</p>;
        default:
            return null;
    }
}

interface ItemProps {
    item: Item;
    timeline: Timeline;
    media: Media;
    onMenu: (message: Message, at: DOMRect) => void;
    onJump: (eventId: string) => void;
}

/** Arrow keys go from message to message; Enter opens what can be done with one. */
function moveFocus(event: KeyboardEvent & { currentTarget: HTMLElement }): void {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    const from = event.target as HTMLElement;
    if (step === undefined || (from !== event.currentTarget && !from.classList.contains("message"))) return;
    const rows = [...event.currentTarget.querySelectorAll<HTMLElement>(".message")];
    const at = rows.indexOf(from);
    event.preventDefault();
    (at < 0 ? rows.at(-1) : rows[at + step])?.focus();
}

function ItemView({ item, timeline, media, onMenu, onJump }: ItemProps): JSX.Element {
    if (item.kind === "day") {
        return (
            <h3 class="day">
                <time dateTime={new Date(item.ts).toISOString()}>{dayName(item.ts)}</time>
            </h3>
        );
    }
    if (item.kind === "unread") return <h3 class="unread-line">{t("New messages")}</h3>;
    if (item.kind === "notice") return <p class="notice">{item.text}</p>;
    return (
        <section class={`group ${item.own ? "own" : ""}`} aria-label={`${item.own ? t("You") : item.senderName}, ${clockTime(item.messages[0]!.ts)}`}>
            {!item.own && <Avatar id={item.sender} name={item.senderName} size="s" />}
            <div class="group-body">
                {!item.own && (
                    <span class={`sender ink-${colourOf(item.sender)}`} title={item.sender}>
                        {item.senderName}
                    </span>
                )}
                {item.messages.map((message) => (
                    <MessageView key={message.key} message={message} timeline={timeline} media={media} onMenu={onMenu} onJump={onJump} />
                ))}
            </div>
        </section>
    );
}

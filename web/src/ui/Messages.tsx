/**
 * The messages of a room. Draws those near the screen (window.ts), keeps its place when others come before or after
 * them, and follows the end when it is at the end.
 */
import type { JSX } from "preact";
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import type { Item, Message } from "../domain/entries.ts";
import { t } from "../domain/i18n.ts";
import type { Media } from "../domain/media.ts";
import type { Previews } from "../domain/previews.ts";
import type { Timeline } from "../domain/timeline.ts";
import { Announcer } from "./Announcer.tsx";
import { UploadRows } from "./AttachmentView.tsx";
import { Avatar, colourOf } from "./Avatar.tsx";
import { MessageMenu } from "./MessageMenu.tsx";
import { MessageRow } from "./MessageView.tsx";
import { ActionForm, Dialog, Icon, Spinner } from "./parts.tsx";
import { showProfile } from "./people.ts";
import { route } from "./route.ts";
import { clockTime, dayName } from "./time.ts";
import { around, AT_END, indexOf, moved, rangeOf, type Window, windowOf } from "./window.ts";

/** Distance from an end, in CSS pixels, within which the reader is taken to be there. */
const NEAR_END = 48;
/** Distance from an end of what is drawn within which more is drawn or loaded. */
const NEAR_EDGE = 600;

/** A place to be shown: the entry with this key, once it is drawn. */
interface Target {
    key: string;
    block: "start" | "center";
}

/** What the reader looks at, and how far it is from the top. */
interface Anchor {
    key: string;
    top: number;
}

export function Messages({ timeline, media, previews }: { timeline: Timeline; media: Media; previews: Previews | undefined }): JSX.Element {
    const items = timeline.items.value;
    const scroller = useRef<HTMLDivElement>(null);
    const content = useRef<HTMLDivElement>(null);
    const atEnd = useRef(true);
    const lastTop = useRef(0);
    const anchor = useRef<Anchor | undefined>(undefined);
    const target = useRef<Target | undefined>(undefined);
    const [shown, setShown] = useState<Window>(AT_END);
    const [showJump, setShowJump] = useState(false);
    const [unreadAbove, setUnreadAbove] = useState(false);
    const [dating, setDating] = useState(false);
    const [menu, setMenu] = useState<{ message: Message; at: DOMRect }>();
    const uploads = timeline.uploads.list.value.length;
    const range = rangeOf(items, shown);
    const whole = range.to >= items.length && timeline.newer.value === "none";
    // Observers and handlers outlive a drawing, and look at the last one.
    const now = useRef({ items, range, whole });
    now.current = { items, range, whole };

    /** Moves the window by one step, in a frame of its own: long tasks make a scroll stutter. */
    const shifting = useRef(0);
    const shift = (towards: "older" | "newer"): void => {
        if (shifting.current !== 0) return;
        shifting.current = requestAnimationFrame(() => {
            shifting.current = 0;
            setShown(windowOf(now.current.items, moved(now.current.items, now.current.range, towards)));
        });
    };
    const look = (): void => {
        const box = scroller.current;
        if (!box) return;
        const below = box.scrollHeight - box.scrollTop - box.clientHeight;
        // Whoever was at the end and did not scroll up stays there, whatever grew meanwhile.
        const stays = atEnd.current && box.scrollTop >= lastTop.current - 1;
        atEnd.current = now.current.whole && (below <= NEAR_END || stays);
        if (atEnd.current && below > NEAR_END) box.scrollTop = box.scrollHeight;
        lastTop.current = box.scrollTop;
        setShowJump(!atEnd.current);
        anchor.current = anchorIn(box);
        const line = box.querySelector(".unread-line");
        if (line && line.getBoundingClientRect().bottom > box.getBoundingClientRect().top) setUnreadAbove(false);
        if (target.current) return; // what is near the edges now is not where the reader will be
        if (box.scrollTop < NEAR_EDGE) {
            if (now.current.range.from > 0) shift("older");
            else if (timeline.older.value === "more") void timeline.loadOlder();
        }
        if (below < NEAR_EDGE && !atEnd.current) {
            if (now.current.range.to < now.current.items.length) shift("newer");
            else if (timeline.newer.value === "more") void timeline.loadNewer();
        }
        if (atEnd.current && document.visibilityState === "visible") timeline.markRead();
    };
    /** Puts the scroll where it belongs: to a target, to the end, or where the reader was. */
    const settle = (): void => {
        const box = scroller.current; // gone when an observer speaks once more after the end
        if (!box) return;
        const row = target.current && rowOf(box, target.current.key);
        if (row) {
            row.scrollIntoView({ block: target.current!.block });
            if (row.classList.contains("message")) row.focus({ preventScroll: true });
            target.current = undefined;
            atEnd.current = false;
        } else if (atEnd.current) box.scrollTop = box.scrollHeight;
        else if (anchor.current) {
            const kept = rowOf(box, anchor.current.key);
            const by = kept ? kept.getBoundingClientRect().top - anchor.current.top : 0;
            if (Math.abs(by) >= 1) box.scrollTop += by;
        }
        look();
    };
    const goTo = (key: string, block: Target["block"] = "center"): boolean => {
        const all = timeline.items.value;
        const index = indexOf(all, key);
        if (index < 0) return false;
        cancelAnimationFrame(shifting.current);
        shifting.current = 0;
        target.current = { key, block };
        atEnd.current = false;
        setShown(windowOf(all, around(all, index)));
        if (scroller.current && rowOf(scroller.current, key)) requestAnimationFrame(settle); // it may be drawn as it is
        return true;
    };
    const toEnd = (): void => {
        timeline.goToEnd();
        target.current = undefined;
        atEnd.current = true;
        setShown(AT_END);
        requestAnimationFrame(settle);
    };
    const toUnread = async (): Promise<void> => {
        setUnreadAbove(false);
        if (await timeline.goToUnread()) goTo("unread", "start");
    };
    const jump = async (eventId: string): Promise<void> => {
        if (!(await timeline.goTo(eventId))) return;
        const found = messagesIn(timeline.items.value).find((message) => message.eventId === eventId);
        if (found) goTo(found.key);
    };
    const toDay = async (ts: number): Promise<boolean> => {
        const found = await timeline.goToTime(ts);
        const all = messagesIn(timeline.items.value);
        const message = found && (all.find((each) => each.ts >= found.ts) ?? all.at(-1));
        return message !== undefined && goTo(message.key, "start");
    };

    useLayoutEffect(settle, [items, uploads, shown]);
    useEffect(() => {
        // Whoever comes into a room with much that is new is at its end, and is shown the way to where it begins.
        const box = scroller.current!;
        const line = box.querySelector(".unread-line");
        setUnreadAbove(line ? line.getBoundingClientRect().top < box.getBoundingClientRect().top : timeline.unread.value !== "none");
    }, []);

    const wanted = route.value.page === "room" && timeline.threadRoot === undefined ? route.value.eventId : undefined;
    useEffect(() => {
        if (wanted !== undefined) void jump(wanted);
    }, [route.value /* the same place may be asked for again */]);

    useEffect(() => {
        // The keyboard of a phone, a window that is pulled, a picture that arrives: the reader stays where they are.
        const observer = new ResizeObserver(settle);
        observer.observe(scroller.current!);
        observer.observe(content.current!);
        document.addEventListener("visibilitychange", look);
        return () => {
            observer.disconnect();
            document.removeEventListener("visibilitychange", look);
        };
    }, []);

    return (
        <div class="messages-frame">
            <div class="messages" ref={scroller} onScroll={look} onKeyDown={moveFocus} tabIndex={0} role="log" aria-live="off" aria-label={timeline.threadRoot === undefined ? t("Messages") : t("Replies")}>
                <div class="messages-content" ref={content}>
                    {range.from === 0 && <Beginning timeline={timeline} />}
                    {items.slice(range.from, range.to).map((item) => (
                        <ItemView key={item.key} item={item} timeline={timeline} media={media} previews={previews} onMenu={(message, at) => setMenu({ message, at })} onJump={(id) => void jump(id)} onDay={() => setDating(true)} />
                    ))}
                    {whole ? <UploadRows timeline={timeline} /> : <Later timeline={timeline} />}
                </div>
            </div>
            <Announcer timeline={timeline} />
            {unreadAbove && (
                <button type="button" class="jump jump-unread" onClick={() => void toUnread()}>
                    <Icon name="up" /> {t("New messages")}
                </button>
            )}
            {menu && <MessageMenu {...menu} timeline={timeline} onClose={() => setMenu(undefined)} />}
            {dating && <DayDialog onDay={toDay} onClose={() => setDating(false)} />}
            {showJump && (
                <button type="button" class="jump" onClick={toEnd}>
                    <Icon name="down" /> {t("Latest")}
                </button>
            )}
        </div>
    );
}

const messagesIn = (items: readonly Item[]): Message[] => items.flatMap((item) => (item.kind === "group" ? item.messages : []));

const rowOf = (box: HTMLElement, key: string): HTMLElement | null => box.querySelector(`[data-key="${CSS.escape(key)}"]`);

/** The first row that can be seen. Rows stand below each other, so that few need to be measured. */
function anchorIn(box: HTMLElement): Anchor | undefined {
    const top = box.getBoundingClientRect().top;
    const rows = box.querySelectorAll<HTMLElement>("[data-key]");
    let [low, high] = [0, rows.length];
    while (low < high) {
        const middle = (low + high) >> 1;
        if (rows[middle]!.getBoundingClientRect().bottom > top) high = middle;
        else low = middle + 1;
    }
    const row = rows[low];
    return row && { key: row.dataset.key!, top: row.getBoundingClientRect().top };
}

function Later({ timeline }: { timeline: Timeline }): JSX.Element | null {
    if (timeline.newer.value === "loading") {
        return (
            <div class="beginning">
                <Spinner label={t("Loading newer messages")} />
            </div>
        );
    }
    if (timeline.newer.value !== "failed") return null;
    return (
        <div class="beginning">
            <p>{t("Newer messages could not be loaded.")}</p>
            <button type="button" class="button small" onClick={() => void timeline.loadNewer()}>
                {t("Try again")}
            </button>
        </div>
    );
}

/** Asks for the day to go to. */
function DayDialog({ onDay, onClose }: { onDay: (ts: number) => Promise<boolean>; onClose: () => void }): JSX.Element {
    const [day, setDay] = useState("");
    const go = async (): Promise<void> => {
        const [year, month, date] = day.split("-").map(Number);
        if (!(await onDay(new Date(year!, month! - 1, date!).getTime()))) throw new Error(t("Nothing could be found there."));
        onClose();
    };
    return (
        <Dialog title={t("Go to a day")} onClose={onClose}>
            <ActionForm label={t("Go there")} action={go}>
                <label class="field">
                    {t("Day")}
                    <input type="date" required autofocus value={day} max={new Date().toLocaleDateString("sv")} onInput={(event) => setDay(event.currentTarget.value)} />
                </label>
            </ActionForm>
        </Dialog>
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
            return timeline.threadRoot === undefined ? <p class="beginning">{t("This is where it begins.")}</p> : null;
        default:
            return null;
    }
}

interface ItemProps {
    item: Item;
    timeline: Timeline;
    media: Media;
    previews: Previews | undefined;
    onMenu: (message: Message, at: DOMRect) => void;
    onJump: (eventId: string) => void;
    onDay: () => void;
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

function ItemView({ item, timeline, media, previews, onMenu, onJump, onDay }: ItemProps): JSX.Element {
    if (item.kind === "day") {
        return (
            <h3 class="day">
                <button type="button" title={t("Go to a day")} onClick={onDay}>
                    <time dateTime={new Date(item.ts).toISOString()}>{dayName(item.ts)}</time>
                </button>
            </h3>
        );
    }
    if (item.kind === "unread") return <h3 class="unread-line" data-key={item.key}>{t("New messages")}</h3>;
    if (item.kind === "notice") {
        return (
            <p class="notice" data-key={item.key}>
                {item.text}
            </p>
        );
    }
    return (
        <section class={`group ${item.own ? "own" : ""} ${item.continued ? "continued" : ""} ${item.goesOn ? "goes-on" : ""}`} aria-label={`${item.own ? t("You") : item.senderName}, ${clockTime(item.messages[0]!.ts)}`}>
            {!item.own && (
                <button type="button" class="avatar-button" tabIndex={-1} aria-label={t("Who is {name}?", { name: item.senderName })} onClick={() => showProfile(item.sender, timeline.roomId)}>
                    <Avatar id={item.sender} name={item.senderName} picture={timeline.avatarOf(item.sender)} size="s" />
                </button>
            )}
            <div class="group-body">
                {!item.own && !item.continued && (
                    <span class={`sender ink-${colourOf(item.sender)}`} title={item.sender}>
                        {item.senderName}
                    </span>
                )}
                {item.messages.map((message) => (
                    <MessageRow key={message.key} message={message} timeline={timeline} media={media} previews={previews} onMenu={onMenu} onJump={onJump} />
                ))}
            </div>
        </section>
    );
}

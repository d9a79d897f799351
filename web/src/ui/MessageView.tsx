/** One message: what it quotes, what it says, reactions, who read it, and the way to what can be done with it. */
import { Component, type JSX } from "preact";
import { useRef } from "preact/hooks";
import type { Message } from "../domain/entries.ts";
import { isSeen } from "../domain/gallery.ts";
import { listOf, number, t } from "../domain/i18n.ts";
import { tally } from "../domain/polls.ts";
import type { Media } from "../domain/media.ts";
import { linkIn, type Previews } from "../domain/previews.ts";
import type { Timeline } from "../domain/timeline.ts";
import { AttachmentView } from "./AttachmentView.tsx";
import { colourOf } from "./Avatar.tsx";
import { LinkPreview } from "./LinkPreview.tsx";
import { Icon, IconButton } from "./parts.tsx";
import { PollView } from "./PollView.tsx";
import { RichText, Text } from "./RichText.tsx";
import { go } from "./route.ts";
import { clockTime, exactTime } from "./time.ts";

/** A finger that rests this long means the message, not the list; one that moves this far scrolls. */
const LONG_PRESS_MS = 450;
const MOVED_PX = 10;

export interface MessageProps {
    message: Message;
    timeline: Timeline;
    media: Media;
    /** Absent where links are not looked at. */
    previews: Previews | undefined;
    onMenu: (message: Message, at: DOMRect) => void;
    onJump: (eventId: string) => void;
}

/** Draws a message again only if it is another one: the window moves over rows that stay as they are. */
export class MessageRow extends Component<MessageProps> {
    override shouldComponentUpdate(next: MessageProps): boolean {
        return next.message !== this.props.message || next.timeline !== this.props.timeline || next.previews !== this.props.previews;
    }

    render(): JSX.Element {
        return <MessageView {...this.props} />;
    }
}

function MessageView({ message, timeline, media, previews, onMenu, onJump }: MessageProps): JSX.Element {
    const { style, delivery } = message;
    const row = useRef<HTMLDivElement>(null);
    const link = previews && linkIn(message);
    const hasMenu = message.eventId !== undefined && style !== "removed";
    const menu = (): void => {
        if (hasMenu) onMenu(message, row.current!.querySelector(".bubble")!.getBoundingClientRect());
    };
    const press = useLongPress(menu);
    return (
        <div
            ref={row}
            class={`message style-${style} is-${delivery}`}
            data-event={message.eventId}
            data-key={message.key}
            tabIndex={-1}
            onKeyDown={(event) => {
                if (event.target !== row.current || (event.key !== "Enter" && event.key !== "ContextMenu")) return;
                event.preventDefault();
                menu();
            }}
            {...press}
        >
            <div class="bubble-line">
                <Bubble message={message} timeline={timeline} media={media} onJump={onJump} />
                {hasMenu && (
                    <div class="quick">
                        <IconButton icon="smile" label={t("React")} focusable={false} onClick={menu} />
                        <IconButton icon="reply" label={t("Reply")} focusable={false} onClick={() => (timeline.context.value = { kind: "reply", message })} />
                        <IconButton icon="more" label={t("More")} focusable={false} onClick={menu} />
                    </div>
                )}
            </div>
            {previews && link !== undefined && <LinkPreview key={link} href={link} previews={previews} media={media} />}
            {message.thread && <ThreadLine message={message} thread={message.thread} timeline={timeline} />}
            {message.reactions && <Reactions message={message} timeline={timeline} />}
            {message.readers && <Readers message={message} />}
            {delivery === "failed" && <Failed txn={message.key} words={t("Not sent.")} timeline={timeline} />}
            {message.change?.failed && <Failed txn={message.change.key} words={t("The change was not sent.")} timeline={timeline} />}
        </div>
    );
}

function Bubble({ message, timeline, media, onJump }: Pick<MessageProps, "message" | "timeline" | "media" | "onJump">): JSX.Element {
    const { style, attachment, caption, quote, rich } = message;
    const isBare = attachment !== undefined && isSeen(attachment) && caption === undefined && !quote;
    return (
        <div class={`bubble ${attachment ? "with-attachment" : ""} ${isBare ? "bare" : ""} ${rich ? "rich" : ""}`} dir="auto">
            {quote && (
                <button type="button" class="quote" dir="auto" onClick={() => onJump(quote.eventId)}>
                    <strong>{quote.senderName ?? t("An earlier message")}</strong>
                    {quote.text !== undefined && <span>{quote.text}</span>}
                </button>
            )}
            {style === "emote" && <bdi class="emote-name">{message.senderName} </bdi>}
            {attachment ? (
                <>
                    <AttachmentView message={message} attachment={attachment} timeline={timeline} media={media} />
                    {caption !== undefined && (
                        <div class="caption">
                            {rich ? <RichText nodes={rich} /> : <Text text={caption} />}
                            <Stamp message={message} />
                        </div>
                    )}
                </>
            ) : message.asked ? (
                <PollView message={message} poll={message.poll ?? tally(message.asked, [], undefined, "", false)} timeline={timeline} />
            ) : rich ? (
                <RichText nodes={rich} />
            ) : style === "removed" || style === "locked" ? (
                message.text
            ) : (
                <Text text={message.text} />
            )}
            {caption === undefined && <Stamp message={message} />}
        </div>
    );
}

/** When it was said, or what becomes of it. */
function Stamp({ message }: { message: Message }): JSX.Element {
    const { delivery, ts } = message;
    return (
        <span class="stamp">
            <bdi>
                {message.edited && `${t("edited")} `}
                {delivery === "waiting" || message.change?.failed === false ? (
                    <span class="waiting" role="img" aria-label={t("Waits to be sent")} title={t("Waits to be sent")}>
                        <Icon name="clock" />
                    </span>
                ) : delivery === "sending" ? (
                    <span role="img" aria-label={t("Being sent")}>
                        …
                    </span>
                ) : (
                    <time dateTime={new Date(ts).toISOString()} title={exactTime(ts)}>
                        {clockTime(ts)}
                    </time>
                )}
            </bdi>
        </span>
    );
}

function ThreadLine({ message, thread, timeline }: { message: Message; thread: NonNullable<Message["thread"]>; timeline: Timeline }): JSX.Element {
    return (
        <button type="button" class="thread-line" onClick={() => go({ page: "room", roomId: timeline.roomId, thread: message.eventId! })}>
            <Icon name="thread" /> <strong>{t("{count} reply|{count} replies", { count: thread.count })}</strong>
            {thread.last && (
                <span class="hint">
                    {thread.last.senderName}: {thread.last.text}
                </span>
            )}
        </button>
    );
}

function Reactions({ message, timeline }: Pick<MessageProps, "message" | "timeline">): JSX.Element {
    return (
        <div class="reactions">
            {message.reactions!.map(({ key, names, mine }) => (
                <button
                    key={key}
                    type="button"
                    class="reaction"
                    aria-pressed={mine !== undefined}
                    aria-label={t("{emoji} {number} by {names}", { emoji: key, number: names.length, names: listOf(names) })}
                    title={listOf(names)}
                    onClick={() => timeline.react(message, key)}
                >
                    <span>{key}</span> {number(names.length)}
                </button>
            ))}
        </div>
    );
}

const SHOWN_READERS = 4;

function Readers({ message }: { message: Message }): JSX.Element {
    const readers = message.readers!;
    const names = t("Read by {names}", { names: listOf(readers.map((reader) => reader.name)) });
    return (
        <div class="readers" role="img" aria-label={names} title={names}>
            {readers.slice(0, SHOWN_READERS).map(({ id, name }) => (
                <span key={id} class={`reader tint-${colourOf(id)}`}>
                    {[...name][0]?.toLocaleUpperCase()}
                </span>
            ))}
            {readers.length > SHOWN_READERS && <span class="hint">+{number(readers.length - SHOWN_READERS)}</span>}
        </div>
    );
}

function Failed({ txn, words, timeline }: { txn: string; words: string; timeline: Timeline }): JSX.Element {
    return (
        <div class="failed" role="alert">
            <span>{words}</span>
            <button type="button" class="link" onClick={() => timeline.retry(txn)}>
                {t("Try again")}
            </button>
            <button type="button" class="link" onClick={() => timeline.discard(txn)}>
                {t("Discard")}
            </button>
        </div>
    );
}

/** The finger that pressed long is lifted over what opened under it: that chooses nothing. */
function swallowClick(): void {
    const swallow = (event: Event): void => {
        event.preventDefault();
        event.stopPropagation();
    };
    addEventListener("click", swallow, { capture: true, once: true });
    addEventListener("pointerdown", () => removeEventListener("click", swallow, { capture: true }), { capture: true, once: true });
}

interface PressHandlers {
    onPointerDown: (event: PointerEvent) => void;
    onPointerMove: (event: PointerEvent) => void;
    onPointerUp: () => void;
    onPointerCancel: () => void;
    onContextMenu: (event: MouseEvent) => void;
}

/** Long press by touch, and the other button of a mouse where nothing is selected. */
function useLongPress(action: () => void): PressHandlers {
    const timer = useRef<ReturnType<typeof setTimeout> | undefined>(undefined);
    const start = useRef({ x: 0, y: 0 });
    const stop = (): void => clearTimeout(timer.current);
    return {
        onPointerDown: (event: PointerEvent) => {
            if (event.pointerType !== "touch") return;
            start.current = { x: event.clientX, y: event.clientY };
            stop();
            timer.current = setTimeout(() => {
                swallowClick();
                action();
            }, LONG_PRESS_MS);
        },
        onPointerMove: (event: PointerEvent) => {
            if (Math.hypot(event.clientX - start.current.x, event.clientY - start.current.y) > MOVED_PX) stop();
        },
        onPointerUp: stop,
        onPointerCancel: stop,
        onContextMenu: (event: MouseEvent) => {
            if (getSelection()?.isCollapsed === false || (event.target as Element).closest("a, img")) return;
            event.preventDefault();
            stop();
            action();
        },
    };
}

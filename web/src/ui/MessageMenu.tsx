/** What can be done with a message: a sheet on a phone, a small menu beside the message elsewhere. */
import type { JSX } from "preact";
import { useLayoutEffect, useState } from "preact/hooks";
import type { Message } from "../domain/entries.ts";
import { t } from "../domain/i18n.ts";
import type { Timeline } from "../domain/timeline.ts";
import { useModal } from "./focus.ts";
import { Icon, type IconName } from "./parts.tsx";
import { reported } from "./people.ts";
import { go } from "./route.ts";

const QUICK = ["👍", "❤️", "😂", "😮", "😢", "🎉"];
const MORE = [..."🙏👏🔥✅👀💯🤔😀😍😎🥳🤯😴😡👎🙌💪🤝☕🍰🌱🚲🐛🚀⭐❓❗➕"];
const MARGIN = 8;

export function MessageMenu({ message, at, timeline, onClose }: { message: Message; at: DOMRect; timeline: Timeline; onClose: () => void }): JSX.Element {
    const dialog = useModal();
    const [more, setMore] = useState(false);
    const [sure, setSure] = useState(false);
    useLayoutEffect(() => {
        if (matchMedia("(max-width: 47.99rem)").matches) return;
        const { style, offsetWidth, offsetHeight } = dialog.current!; // it is open: its measures are known
        const atRight = message.own !== (document.documentElement.dir === "rtl"); // the side that the bubble is at
        const left = Math.max(MARGIN, Math.min(atRight ? at.right - offsetWidth : at.left, innerWidth - offsetWidth - MARGIN));
        const top = Math.max(MARGIN, Math.min(at.bottom + 4, innerHeight - offsetHeight - MARGIN));
        style.inset = `${top}px auto auto ${left}px`;
    }, []);
    const pinned = message.eventId !== undefined && timeline.pins.ids.value.includes(message.eventId);
    const act = (action: () => void) => (): void => {
        onClose();
        action();
    };
    const emoji = (key: string): JSX.Element => (
        <button key={key} type="button" class="emoji" aria-label={t("React with {emoji}", { emoji: key })} onClick={act(() => timeline.react(message, key))}>
            {key}
        </button>
    );
    return (
        <dialog ref={dialog} class="menu" aria-label={t("What to do with the message")} onClose={onClose} onClick={(event) => event.target === dialog.current && onClose()}>
            <div class="menu-body">
                <div class="emojis">
                    {QUICK.map(emoji)}
                    <button type="button" class="emoji" aria-label={t("More reactions")} aria-expanded={more} onClick={() => setMore(!more)}>
                        <Icon name="plus" />
                    </button>
                    {more && MORE.map(emoji)}
                </div>
                <MenuItem icon="reply" label={t("Reply")} onClick={act(() => (timeline.context.value = { kind: "reply", message }))} />
                {timeline.threadRoot === undefined && message.eventId !== undefined && (
                    <MenuItem icon="thread" label={t("Reply in a thread")} onClick={act(() => go({ page: "room", roomId: timeline.roomId, thread: message.eventId! }))} />
                )}
                {message.mayEdit && <MenuItem icon="edit" label={t("Edit")} onClick={act(() => (timeline.context.value = { kind: "edit", message }))} />}
                {message.style !== "locked" && <MenuItem icon="copy" label={t("Copy the text")} onClick={act(() => void navigator.clipboard?.writeText(message.caption ?? message.text).catch(() => undefined))} />}
                {timeline.pins.may && message.eventId !== undefined && <MenuItem icon="pin" label={pinned ? t("Unpin") : t("Pin")} onClick={act(() => void timeline.pins.set(message.eventId!, !pinned).catch(() => undefined))} />}
                {!message.own && message.eventId !== undefined && (
                    <MenuItem icon="flag" label={t("Report")} onClick={act(() => (reported.value = { kind: "message", roomId: timeline.roomId, eventId: message.eventId! }))} />
                )}
                {message.mayRemove && !sure && <MenuItem icon="bin" label={t("Remove")} danger onClick={() => setSure(true)} />}
                {message.mayRemove && sure && <MenuItem icon="bin" label={t("Remove for everybody")} danger onClick={act(() => timeline.remove(message))} />}
            </div>
        </dialog>
    );
}

function MenuItem(props: { icon: IconName; label: string; danger?: boolean; onClick: () => void }): JSX.Element {
    return (
        <button type="button" class={`menu-item ${props.danger ? "danger" : ""}`} onClick={props.onClick}>
            <Icon name={props.icon} /> {props.label}
        </button>
    );
}

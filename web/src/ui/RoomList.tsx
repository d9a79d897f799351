/** All conversations, and what waits in them. */
import type { JSX } from "preact";
import { useEffect, useState } from "preact/hooks";
import type { App } from "../domain/app.ts";
import type { Chat } from "../domain/chat.ts";
import { number, t } from "../domain/i18n.ts";
import type { RoomSummary } from "../domain/rooms.ts";
import { type Found, holds, MIN_QUERY } from "../domain/search.ts";
import { useAttempt } from "./attempt.ts";
import { Avatar } from "./Avatar.tsx";
import { Connection } from "./Connection.tsx";
import { EncryptionNote } from "./EncryptionNotes.tsx";
import { NotificationNote } from "./NotificationSettings.tsx";
import { Icon, IconButton, Spinner } from "./parts.tsx";
import { PresenceDot } from "./Presence.tsx";
import { formatRoute, go } from "./route.ts";
import { exactTime, listTime } from "./time.ts";
import { UpdateNote } from "./UpdateNote.tsx";

export function RoomList(props: { app: App; chat: Chat; current: string | undefined; onNew: () => void; onAccount: () => void; onSpace: (roomId: string) => void }): JSX.Element {
    const { app, chat, current } = props;
    const [query, setQuery] = useState("");
    const [space, setSpace] = useState<string>();
    const rooms = chat.rooms.value;
    const spaces = rooms.filter((room) => room.space && room.kind === "join");
    const chosen = spaces.find((room) => room.id === space);
    const invites = query === "" ? rooms.filter((room) => room.kind === "invite") : [];
    const joined = rooms.filter((room) => room.kind === "join" && !room.space && (!chosen || chosen.children.includes(room.id)) && (query.trim() === "" || holds(room.name, query.trim())));
    return (
        <aside class="pane list-pane" aria-label={t("Conversations")}>
            <header class="bar">
                <button type="button" class="account-button" aria-label={t("Account of {id}", { id: chat.userId })} title={t("Account")} onClick={props.onAccount}>
                    <Avatar id={chat.userId} name={chat.own.profile.value.name} picture={chat.own.profile.value.avatar} size="s" />
                </button>
                <h1 class="bar-title">{t("Conversations")}</h1>
                <IconButton icon="plus" label={t("New conversation")} class="filled" onClick={props.onNew} />
            </header>
            <Connection app={app} />
            <EncryptionNote chat={chat} />
            <UpdateNote />
            <NotificationNote chat={chat} />
            <div class="list-search" role="search">
                <Icon name="search" />
                <input type="search" value={query} onInput={(event) => setQuery(event.currentTarget.value)} placeholder={t("Search")} aria-label={t("Search conversations and messages")} />
            </div>
            {spaces.length > 0 && (
                <div class="spaces" role="group" aria-label={t("Spaces")}>
                    <button type="button" aria-pressed={!chosen} onClick={() => setSpace(undefined)}>
                        {t("All")}
                    </button>
                    {spaces.map((room) => (
                        <button key={room.id} type="button" aria-pressed={room.id === space} onClick={() => setSpace(room.id)}>
                            {room.name}
                        </button>
                    ))}
                    {chosen && (
                        <button type="button" class="space-info" aria-label={t("About {name}", { name: chosen.name })} title={t("About {name}", { name: chosen.name })} onClick={() => props.onSpace(chosen.id)}>
                            <Icon name="info" />
                        </button>
                    )}
                </div>
            )}
            <div class="list-scroll">
                {!chat.ready.value && (
                    <div class="centered">
                        <Spinner label={t("Loading your conversations")} />
                    </div>
                )}
                {invites.length > 0 && (
                    <section aria-label={t("Invitations")}>
                        <ul class="rooms">
                            {invites.map((room) => (
                                <Invitation key={room.id} chat={chat} room={room} />
                            ))}
                        </ul>
                    </section>
                )}
                {chat.ready.value && joined.length === 0 && invites.length === 0 && query === "" && (
                    <div class="list-empty">
                        <p>{t("No conversations yet.")}</p>
                        <button type="button" class="button" onClick={props.onNew}>
                            <Icon name="plus" /> {t("Start one")}
                        </button>
                    </div>
                )}
                <ul class="rooms" onKeyDown={moveFocus}>
                    {joined.map((room) => (
                        <RoomRow key={room.id} chat={chat} room={room} current={room.id === current} />
                    ))}
                </ul>
                {query.trim().length >= MIN_QUERY && <FoundMessages chat={chat} query={query.trim()} />}
            </div>
        </aside>
    );
}

function RoomRow({ chat, room, current }: { chat: Chat; room: RoomSummary; current: boolean }): JSX.Element {
    const to = { page: "room", roomId: room.id } as const;
    return (
        <li>
            <a
                class={`room ${room.unread > 0 ? "has-unread" : ""}`}
                href={formatRoute(to)}
                aria-current={current ? "page" : undefined}
                onClick={(event) => {
                    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
                    event.preventDefault();
                    go(to);
                }}
            >
                <span class="with-dot">
                    <Avatar id={room.colouredAs} name={room.name} picture={room.avatar} />
                    {room.direct && <PresenceDot chat={chat} userId={chat.partnerIn(room.id)} />}
                </span>
                <span class="room-text">
                    <span class="room-line">
                        <span class="room-name">{room.name}</span>
                        {room.favourite && (
                            <span class="star" role="img" aria-label={t("Favourite")}>
                                <Icon name="star" />
                            </span>
                        )}
                        {room.ts > 0 && (
                            <time class="room-time" dateTime={new Date(room.ts).toISOString()} title={exactTime(room.ts)}>
                                {listTime(room.ts)}
                            </time>
                        )}
                    </span>
                    <span class="room-line">
                        <span class="room-preview">{room.preview}</span>
                        {room.unread > 0 && (
                            <span class={`badge ${room.mentions > 0 ? "badge-mention" : ""}`} aria-label={room.mentions > 0 ? t("{unread} unread, you are mentioned", { unread: room.unread }) : t("{unread} unread", { unread: room.unread })}>
                                {room.unread > 99 ? `${number(99)}+` : number(room.unread)}
                            </span>
                        )}
                    </span>
                </span>
            </a>
        </li>
    );
}

/** Typing goes on for a moment: the server is asked after it. */
const SEARCH_AFTER_MS = 300;

function FoundMessages({ chat, query }: { chat: Chat; query: string }): JSX.Element {
    const [state, setState] = useState<{ found?: Found[]; error?: string }>({});
    useEffect(() => {
        let current = true;
        setState({});
        const timer = setTimeout(() => {
            chat.search(query).then(
                (found) => current && setState({ found }),
                (error: unknown) => current && setState({ error: (error as Error).message }),
            );
        }, SEARCH_AFTER_MS);
        return () => {
            current = false;
            clearTimeout(timer);
        };
    }, [query]);
    return (
        <section class="found" aria-label={t("Messages")}>
            <h2>{t("Messages")}</h2>
            {state.error !== undefined ? (
                <p class="error" role="alert">
                    {state.error}
                </p>
            ) : !state.found ? (
                <Spinner label={t("Searching")} />
            ) : state.found.length === 0 ? (
                <p class="hint" role="status">
                    {t("No message holds this.")}
                </p>
            ) : (
                <ul>
                    {state.found.map((message) => (
                        <li key={message.eventId}>
                            <button type="button" class="found-message" onClick={() => go({ page: "room", roomId: message.roomId, eventId: message.eventId })}>
                                <span class="room-line">
                                    <strong class="room-name">{message.senderName}</strong>
                                    <span class="room-time">{listTime(message.ts)}</span>
                                </span>
                                <span class="found-text">{message.text.slice(0, 240)}</span>
                                <span class="hint">{message.roomName}</span>
                            </button>
                        </li>
                    ))}
                </ul>
            )}
        </section>
    );
}

function Invitation({ chat, room }: { chat: Chat; room: RoomSummary }): JSX.Element {
    const [busy, error, run] = useAttempt();
    const accept = async (): Promise<void> => {
        await chat.accept(room.id);
        go({ page: "room", roomId: room.id });
    };
    return (
        <li class="invitation">
            <Avatar id={room.colouredAs} name={room.name} picture={room.avatar} />
            <div class="room-text">
                <span class="room-name">{room.name}</span>
                <span class="room-preview">{room.direct ? t("Wants to talk to you") : room.preview}</span>
                <div class="invitation-actions">
                    <button type="button" class="button primary small" disabled={busy} onClick={() => run(accept)}>
                        {t("Accept")}
                    </button>
                    <button type="button" class="button small" disabled={busy} onClick={() => run(() => chat.decline(room.id))}>
                        {t("Decline")}
                    </button>
                </div>
                {error && (
                    <p class="error" role="alert">
                        {error}
                    </p>
                )}
            </div>
        </li>
    );
}

/** Arrow keys go from row to row, as in any list. */
function moveFocus(event: KeyboardEvent & { currentTarget: HTMLElement }): void {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step === undefined) return;
    const rows = [...event.currentTarget.querySelectorAll<HTMLElement>("a.room")];
    const at = rows.indexOf(document.activeElement as HTMLElement);
    if (at < 0) return;
    event.preventDefault();
    rows[at + step]?.focus();
}

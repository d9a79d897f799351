/** The signed-in app: the room list and the open room, side by side or, on a phone, one at a time. */
import type { JSX } from "preact";
import { useCallback, useEffect, useRef, useState } from "preact/hooks";
import type { App } from "../domain/app.ts";
import { t } from "../domain/i18n.ts";
import type { Chat } from "../domain/chat.ts";
import { Account } from "./Account.tsx";
import { Pictures } from "./Avatar.tsx";
import { later } from "./later.tsx";
import { InviteDialog, NewChat } from "./NewChat.tsx";
import { Empty, Spinner } from "./parts.tsx";
import { profile, reported } from "./people.ts";
import { Prompts } from "./Prompts.tsx";
import { RoomList } from "./RoomList.tsx";
import { RoomPane } from "./RoomPane.tsx";
import { go, route } from "./route.ts";
import { useShortcuts } from "./shortcuts.ts";

const Profile = later(() => import("./Profile.tsx").then((module) => module.Profile));
const DeviceList = later(() => import("./DeviceList.tsx").then((module) => module.DeviceList));

const OwnProfile = later(() => import("./OwnProfile.tsx").then((module) => module.OwnProfile));
const IgnoredList = later(() => import("./IgnoredList.tsx").then((module) => module.IgnoredList));
const RoomInfo = later(() => import("./RoomInfo.tsx").then((module) => module.RoomInfo));
const Report = later(() => import("./Report.tsx").then((module) => module.Report));

const Shortcuts = later(() => import("./Shortcuts.tsx").then((module) => module.Shortcuts));
const FindRooms = later(() => import("./FindRooms.tsx").then((module) => module.FindRooms));

type Open = "find" | "shortcuts" | "invite-space" | "profile" | "ignored" | "new" | "account" | "devices" | "invite" | "info" | undefined;

export function Shell({ app, chat }: { app: App; chat: Chat }): JSX.Element {
    const [open, setOpen] = useState<Open>();
    const [spaceId, setSpaceId] = useState<string>();
    const at = route.value;
    useEffect(() => {
        if (at.page !== "new") return; // a shortcut of the installed app
        go({ page: "rooms" }, true);
        setOpen("new");
    }, [at.page]);
    const roomId = at.page === "room" ? at.roomId : undefined;
    const room = chat.rooms.value.find((summary) => summary.id === roomId && summary.kind === "join");
    const main = useRef<HTMLElement>(null);
    useShortcuts(
        chat,
        roomId,
        useCallback(() => setOpen("shortcuts"), []),
    );
    const unread = chat.notifications.unread.value;
    useEffect(() => {
        const waiting = unread === 0 ? "" : unread > 99 ? "(99+) " : `(${unread}) `;
        document.title = waiting + (room ? `${room.name} · hubbub` : "hubbub");
        return () => void (document.title = "hubbub"); // whoever comes next reads no name
    }, [room?.name, unread]);
    const space = chat.rooms.value.find((summary) => summary.id === spaceId && summary.kind === "join");
    return (
        <Pictures.Provider value={chat.media}>
        <div class="shell" data-pane={roomId === undefined ? "list" : "room"}>
            {room && (
                <button type="button" class="button small skip" onClick={() => main.current?.focus()}>
                    {t("Skip to the conversation")}
                </button>
            )}
            <RoomList app={app} chat={chat} current={roomId} onNew={() => setOpen("new")} onAccount={() => setOpen("account")} onSpace={setSpaceId} />
            <main ref={main} class="pane room-pane" tabIndex={-1}>
                {room && <RoomPane key={room.id} app={app} chat={chat} room={room} onInvite={() => setOpen("invite")} onInfo={() => setOpen("info")} />}
                {!room && <NoRoom asked={roomId !== undefined} chat={chat} onNew={() => setOpen("new")} />}
            </main>
            <Prompts chat={chat} onDevices={() => setOpen("devices")} />
            {open === "shortcuts" && <Shortcuts chat={chat} onClose={() => setOpen(undefined)} />}
            {open === "find" && <FindRooms chat={chat} onClose={() => setOpen(undefined)} />}
            {space && <RoomInfo key={space.id} chat={chat} room={space} onInvite={() => setOpen("invite-space")} onClose={() => setSpaceId(undefined)} />}
            {open === "invite-space" && space && <InviteDialog chat={chat} room={space} onClose={() => setOpen(undefined)} />}
            {open === "profile" && <OwnProfile chat={chat} onClose={() => setOpen(undefined)} />}
            {open === "ignored" && <IgnoredList chat={chat} onClose={() => setOpen(undefined)} />}
            {reported.value && <Report chat={chat} what={reported.value} onClose={() => (reported.value = undefined)} />}
            {open === "devices" && <DeviceList chat={chat} onClose={() => setOpen(undefined)} />}
            {profile.value && <Profile key={profile.value.userId} chat={chat} {...profile.value} onClose={() => (profile.value = undefined)} />}
            {open === "new" && <NewChat chat={chat} onFind={() => setOpen("find")} onClose={() => setOpen(undefined)} />}
            {open === "account" && <Account app={app} chat={chat} onOpen={setOpen} onClose={() => setOpen(undefined)} />}
            {open === "info" && room && <RoomInfo chat={chat} room={room} onInvite={() => setOpen("invite")} onClose={() => setOpen(undefined)} />}
            {open === "invite" && room && <InviteDialog chat={chat} room={room} onClose={() => setOpen(undefined)} />}
        </div>
        </Pictures.Provider>
    );
}

function NoRoom({ asked, chat, onNew }: { asked: boolean; chat: Chat; onNew: () => void }): JSX.Element {
    if (!chat.ready.value) {
        return (
            <div class="centered">
                <Spinner label={t("Loading your conversations")} />
            </div>
        );
    }
    if (asked) {
        return (
            <Empty title={t("You are not in this room")}>
                <p>{t("It may be one that you left, or an invitation you have not accepted.")}</p>
                <button type="button" class="button" onClick={() => go({ page: "rooms" }, true)}>
                    {t("All conversations")}
                </button>
            </Empty>
        );
    }
    return (
        <Empty title={chat.rooms.value.length > 0 ? t("Pick a conversation") : t("It is quiet here")}>
            <p>{chat.rooms.value.length > 0 ? t("Or begin a new one.") : t("Begin the first conversation.")}</p>
            <button type="button" class="button primary" onClick={onNew}>
                {t("New conversation")}
            </button>
        </Empty>
    );
}

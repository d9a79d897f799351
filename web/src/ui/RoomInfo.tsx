/** A room from the inside: name and topic, who is there, favourites, and the way out. */
import type { JSX } from "preact";
import { useEffect, useState } from "preact/hooks";
import type { Chat } from "../domain/chat.ts";
import { t } from "../domain/i18n.ts";
import type { RoomSummary } from "../domain/rooms.ts";
import type { Person, RoomDetails, RoomSettings } from "../domain/roomsettings.ts";
import { type Attempt, useAttempt } from "./attempt.ts";
import { AskingList } from "./AskingList.tsx";
import { Avatar } from "./Avatar.tsx";
import { later } from "./later.tsx";
import { RoomNotifications } from "./NotificationSettings.tsx";
import { ActionForm, Dialog, Failure, Field, Icon, Tick } from "./parts.tsx";
import { showProfile } from "./people.ts";
import { PictureField } from "./PictureField.tsx";
import { Report } from "./Report.tsx";
import { RoleSelect } from "./RoleSelect.tsx";
import { roleName } from "./roles.ts";
import { RoomAccess } from "./RoomAccess.tsx";
import { go } from "./route.ts";

const RoomFilesView = later(() => import("./media/RoomFilesView.tsx").then((part) => part.RoomFilesView), true);

export function RoomInfo({ chat, room, onInvite, onClose }: { chat: Chat; room: RoomSummary; onInvite: () => void; onClose: () => void }): JSX.Element {
    const [settings] = useState(() => chat.settings(room.id));
    const [details, setDetails] = useState<RoomDetails>(() => settings.details());
    const [name, setName] = useState(details.name);
    const [topic, setTopic] = useState(details.topic);
    const [sure, setSure] = useState(false);
    const [reporting, setReporting] = useState(false);
    const [busy, error, attempt] = useAttempt();
    const [files, setFiles] = useState(false);
    const look = (): void => setDetails(settings.details());
    useEffect(() => void settings.load().then(look, () => undefined), []);
    useEffect(look, [chat.rooms.value, busy]);
    const leave = async (): Promise<void> => {
        await settings.leave();
        onClose();
        go({ page: "rooms" }, true);
    };
    if (reporting) return <Report chat={chat} what={{ kind: "room", roomId: room.id }} onClose={() => setReporting(false)} />;
    return (
        <Dialog title={room.space ? t("About this space") : t("About this room")} onClose={onClose}>
            {details.asking.length > 0 && <AskingList details={details} settings={settings} attempt={attempt} />}
            {details.mayAvatar && !room.direct && <PictureField id={room.id} name={details.name} picture={details.avatar} onChange={(picture) => settings.setPicture(picture).then(look)} />}
            {details.mayName || details.mayTopic ? (
                <ActionForm label={t("Save the changes")} action={() => settings.save(name, topic).then(look)}>
                    {!room.direct && <Field label={t("Name")} value={name} onInput={setName} />}
                    <Field label={t("Topic")} value={topic} onInput={setTopic} />
                </ActionForm>
            ) : (
                <p>{details.topic === "" ? details.name : details.topic}</p>
            )}
            <div class="buttons">
                <button type="button" class="button small" aria-pressed={room.favourite} onClick={() => void attempt(() => chat.setFavourite(room.id, !room.favourite))}>
                    <Icon name="star" /> {room.favourite ? t("No favourite any more") : t("Make it a favourite")}
                </button>
                {!room.space && (
                    <button type="button" class="button small" onClick={() => setFiles(true)}>
                        <Icon name="image" /> {t("Pictures and files")}
                    </button>
                )}
                {details.mayInvite && (
                    <button type="button" class="button small" onClick={onInvite}>
                        <Icon name="invite" /> {t("Invite people")}
                    </button>
                )}
                <button type="button" class="button small danger" onClick={() => setReporting(true)}>
                    <Icon name="flag" /> {t("Report")}
                </button>
            </div>
            {files && <RoomFilesView chat={chat} roomId={room.id} onClose={() => setFiles(false)} />}
            <RoomNotifications chat={chat} roomId={room.id} />
            <section class="people" aria-label={t("People")}>
                <h3>{t("{count} person|{count} people", { count: details.people.length })}</h3>
                <ul>
                    {details.people.map((person) => (
                        <PersonRow key={person.id} chat={chat} person={person} settings={settings} attempt={attempt} />
                    ))}
                </ul>
            </section>
            {!room.space && <InSpaces settings={settings} attempt={attempt} />}
            <RoomAccess talk={!room.space} details={details} settings={settings} attempt={attempt} />
            <Failure words={error} />
            {sure && <p class="hint">{t("The room goes out of your list, with all that was said in it.")}</p>}
            {sure ? (
                <button type="button" class="button danger" onClick={() => void attempt(leave)}>
                    {details.entrance === "public" ? t("Leave for good") : t("Leave: you need a new invitation to come back")}
                </button>
            ) : (
                <button type="button" class="button danger" onClick={() => setSure(true)}>
                    <Icon name="door" /> {t("Leave the room")}
                </button>
            )}
        </Dialog>
    );
}

/** The spaces that the room can be put into, if there are any. */
function InSpaces({ settings, attempt }: { settings: RoomSettings; attempt: Attempt }): JSX.Element | null {
    const spaces = settings.spaces();
    if (spaces.length === 0) return null;
    return (
        <fieldset class="in-room">
            <legend>{t("Spaces")}</legend>
            {spaces.map((space) => (
                <Tick key={space.id} label={t("In the space {name}", { name: space.name })} on={space.holds} onChange={(on) => attempt(() => settings.putInto(space.id, on))} />
            ))}
        </fieldset>
    );
}

function PersonRow({ chat, person, settings, attempt }: { chat: Chat; person: Person; settings: RoomSettings; attempt: Attempt }): JSX.Element {
    return (
        <li class="person">
            <button type="button" class="person-button" onClick={() => showProfile(person.id, settings.roomId)}>
                <Avatar id={person.id} name={person.name} picture={person.avatar} size="s" />
                <span class="room-text">
                    <span class="person-name">
                        {person.name}
                        {chat.trust.of(person.id).value === "verified" && person.id !== chat.userId && (
                            <span class="trust-mark" role="img" aria-label={t("Verified")}>
                                {" "}
                                <Icon name="shield" />
                            </span>
                        )}
                    </span>
                    <span class="hint">{person.invited ? t("Invited") : person.id}</span>
                </span>
            </button>
            {person.roles.length > 0 && !person.invited ? (
                <RoleSelect person={person} settings={settings} attempt={attempt} />
            ) : (
                <span class="hint">{roleName(person.role)}</span>
            )}
        </li>
    );
}

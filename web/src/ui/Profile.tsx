/** A person: who it is, whether that is certain, and what can be done with them, here and in the room. */
import type { JSX } from "preact";
import { useEffect, useState } from "preact/hooks";
import type { Chat } from "../domain/chat.ts";
import { t } from "../domain/i18n.ts";
import type { Person } from "../domain/roomsettings.ts";
import { useAttempt } from "./attempt.ts";
import { Avatar } from "./Avatar.tsx";
import { ActionForm, Dialog, Failure, Field, Icon } from "./parts.tsx";
import { presenceWords } from "./Presence.tsx";
import { Report } from "./Report.tsx";
import { RoleSelect } from "./RoleSelect.tsx";
import { roleName } from "./roles.ts";
import { go } from "./route.ts";

type Doing = "remove" | "ban" | "report" | undefined;

export function Profile({ chat, userId, roomId, onClose }: { chat: Chat; userId: string; roomId?: string; onClose: () => void }): JSX.Element {
    const [doing, setDoing] = useState<Doing>();
    const [, error, run] = useAttempt();
    const name = chat.nameOf(userId, roomId);
    const ignored = chat.ignored.has(userId);
    const talk = async (): Promise<void> => {
        const direct = await chat.createDirect(userId);
        onClose();
        go({ page: "room", roomId: direct });
    };
    const ignore = (): void => void run(() => chat.ignored.set(userId, !ignored));
    if (doing === "report") return <Report chat={chat} what={{ kind: "person", userId }} onClose={() => setDoing(undefined)} />;
    if (doing !== undefined && roomId !== undefined) return <TakeOut chat={chat} userId={userId} name={name} roomId={roomId} ban={doing === "ban"} onDone={onClose} onClose={() => setDoing(undefined)} />;
    return (
        <Dialog title={t("Profile")} onClose={onClose}>
            <div class="profile-head">
                <Avatar id={userId} name={name} picture={chat.avatarOf(userId, roomId)} size="l" />
                <strong>{name}</strong>
                <span class="hint">{userId}</span>
                {userId !== chat.userId && <span class="hint">{presenceWords(chat, userId)}</span>}
            </div>
            {userId === chat.userId ? (
                <p class="hint profile-self">{t("This is you.")}</p>
            ) : (
                <>
                    <Certainty chat={chat} userId={userId} name={name} onClose={onClose} />
                    <ActionForm label={t("Send a message")} action={talk} plain />
                    {roomId !== undefined && <InRoom chat={chat} userId={userId} roomId={roomId} onDo={setDoing} />}
                    {ignored && <p class="notice-box">{t("You ignore {name}: you see none of their messages and invitations.", { name })}</p>}
                    <div class="buttons">
                        <button type="button" class="button small" aria-pressed={ignored} onClick={ignore}>
                            <Icon name="mute" /> {ignored ? t("Stop ignoring") : t("Ignore")}
                        </button>
                        <button type="button" class="button small danger" onClick={() => setDoing("report")}>
                            <Icon name="flag" /> {t("Report")}
                        </button>
                    </div>
                    <Failure words={error} />
                </>
            )}
        </Dialog>
    );
}

function Certainty({ chat, userId, name, onClose }: { chat: Chat; userId: string; name: string; onClose: () => void }): JSX.Element | null {
    const trust = chat.trust.of(userId).value;
    if (chat.encryption.state.value !== "ready") return null;
    const verify = async (): Promise<void> => {
        await chat.verify(userId);
        onClose();
    };
    if (trust === "verified") {
        return (
            <p class="hint trust-verified profile-self">
                <Icon name="shield" /> {t("You have verified {name}.", { name })}
            </p>
        );
    }
    return (
        <ActionForm label={t("Verify {name}", { name })} action={verify} plain={trust !== "changed"}>
            {trust === "changed" && (
                <p class="error">
                    <Icon name="warning" /> {t("The keys of {name} have changed since you verified them.", { name })}
                </p>
            )}
        </ActionForm>
    );
}

/** What somebody is in the room, and what can be changed about it. */
function InRoom({ chat, userId, roomId, onDo }: { chat: Chat; userId: string; roomId: string; onDo: (doing: Doing) => void }): JSX.Element | null {
    const [settings] = useState(() => chat.settings(roomId));
    const find = (): Person | undefined => settings.details().people.find((person) => person.id === userId);
    const [person, setPerson] = useState(find);
    const [busy, error, attempt] = useAttempt();
    useEffect(() => setPerson(find()), [chat.rooms.value, busy]);
    if (!person) return null;
    return (
        <section class="in-room" aria-label={t("In this room")}>
            <h3>{t("In this room")}</h3>
            {person.roles.length === 0 || person.invited ? (
                <p class="hint">{person.invited ? t("Invited") : roleName(person.role)}</p>
            ) : (
                <label class="select-line">
                    <span>{t("Role")}</span>
                    <RoleSelect person={person} settings={settings} attempt={attempt} />
                </label>
            )}
            {(person.mayRemove || person.mayBan) && (
                <div class="buttons">
                    {person.mayRemove && (
                        <button type="button" class="button small" onClick={() => onDo("remove")}>
                            <Icon name="door" /> {person.invited ? t("Take the invitation back") : t("Remove from the room")}
                        </button>
                    )}
                    {person.mayBan && (
                        <button type="button" class="button small danger" onClick={() => onDo("ban")}>
                            <Icon name="ban" /> {t("Ban")}
                        </button>
                    )}
                </div>
            )}
            <Failure words={error} />
        </section>
    );
}

function TakeOut(props: { chat: Chat; userId: string; name: string; roomId: string; ban: boolean; onDone: () => void; onClose: () => void }): JSX.Element {
    const { chat, userId, name, ban } = props;
    const [reason, setReason] = useState("");
    const settings = chat.settings(props.roomId);
    const act = async (): Promise<void> => {
        await (ban ? settings.ban(userId, reason) : settings.remove(userId, reason));
        props.onDone();
    };
    return (
        <Dialog title={ban ? t("Ban {name}", { name }) : t("Remove {name}", { name })} onClose={props.onClose}>
            <ActionForm label={ban ? t("Ban") : t("Remove from the room")} action={act} danger>
                <p>{ban ? t("{name} cannot come back until you lift the ban.", { name }) : t("{name} can come back with an invitation.", { name })}</p>
                <Field label={t("Reason")} value={reason} onInput={setReason} hint={t("All in the room can read it. You need not give one.")} autoFocus />
            </ActionForm>
        </Dialog>
    );
}

/** The dialogs that bring people together: a conversation with one person, a room, an invitation. */
import type { JSX } from "preact";
import { useState } from "preact/hooks";
import { t } from "../domain/i18n.ts";
import type { Chat } from "../domain/chat.ts";
import type { RoomSummary } from "../domain/rooms.ts";
import { ActionForm, Choice, Dialog, Field } from "./parts.tsx";
import { go } from "./route.ts";

type Kind = "direct" | "room";

export function NewChat({ chat, onClose }: { chat: Chat; onClose: () => void }): JSX.Element {
    const [kind, setKind] = useState<Kind>("direct");
    const [person, setPerson] = useState("");
    const [name, setName] = useState("");
    const [people, setPeople] = useState("");
    const create = async (): Promise<void> => {
        const roomId = kind === "direct" ? await chat.createDirect(person) : await chat.createRoom(name, people);
        onClose();
        go({ page: "room", roomId });
    };
    const example = t("bob, or {id}", { id: `@bob:${chat.serverName}` });
    return (
        <Dialog title={t("New conversation")} onClose={onClose}>
            <ActionForm label={kind === "direct" ? t("Start talking") : t("Create room")} action={create}>
                <Choice
                    label={t("With whom")}
                    value={kind}
                    onChange={setKind}
                    options={[
                        ["direct", t("One person")],
                        ["room", t("A group")],
                    ]}
                />
                {kind === "direct" ? (
                    <Field key="person" label={t("Person")} value={person} onInput={setPerson} placeholder={example} autoFocus required />
                ) : (
                    <>
                        <Field key="name" label={t("Name of the room")} value={name} onInput={setName} autoFocus required />
                        <Field key="people" label={t("People to invite")} value={people} onInput={setPeople} placeholder="bob, carol" hint={t("You can invite more later")} />
                    </>
                )}
            </ActionForm>
        </Dialog>
    );
}

export function InviteDialog({ chat, room, onClose }: { chat: Chat; room: RoomSummary; onClose: () => void }): JSX.Element {
    const [people, setPeople] = useState("");
    const invite = async (): Promise<void> => {
        await chat.invite(room.id, people);
        onClose();
    };
    return (
        <Dialog title={t("Invite to {name}", { name: room.name })} onClose={onClose}>
            <ActionForm label={t("Invite")} action={invite}>
                <Field label={t("People")} value={people} onInput={setPeople} placeholder="bob, carol" autoFocus required />
            </ActionForm>
        </Dialog>
    );
}

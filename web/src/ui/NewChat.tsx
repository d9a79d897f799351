/** The dialogs that bring people together: a conversation with one person, a room, an invitation. */
import type { JSX } from "preact";
import { useState } from "preact/hooks";
import { t } from "../domain/i18n.ts";
import type { Chat } from "../domain/chat.ts";
import type { RoomSummary } from "../domain/rooms.ts";
import { ActionForm, Choice, Dialog, Field, Icon } from "./parts.tsx";
import { go } from "./route.ts";

type Kind = "direct" | "room" | "space";

export function NewChat({ chat, onFind, onClose }: { chat: Chat; onFind: () => void; onClose: () => void }): JSX.Element {
    const [kind, setKind] = useState<Kind>("direct");
    const [person, setPerson] = useState("");
    const [name, setName] = useState("");
    const [people, setPeople] = useState("");
    const create = async (): Promise<void> => {
        if (kind === "space") return chat.createSpace(name, people).then(onClose);
        const roomId = kind === "direct" ? await chat.createDirect(person) : await chat.createRoom(name, people);
        onClose();
        go({ page: "room", roomId });
    };
    const example = t("bob, or {id}", { id: `@bob:${chat.serverName}` });
    return (
        <Dialog title={t("New conversation")} onClose={onClose}>
            <ActionForm label={kind === "direct" ? t("Start talking") : kind === "space" ? t("Create space") : t("Create room")} action={create}>
                <Choice
                    label={t("With whom")}
                    value={kind}
                    onChange={setKind}
                    options={[
                        ["direct", t("One person")],
                        ["room", t("A group")],
                        ["space", t("A space")],
                    ]}
                />
                {kind === "direct" ? (
                    <Field key="person" label={t("Person")} value={person} onInput={setPerson} placeholder={example} autoFocus required />
                ) : (
                    <>
                        {kind === "space" && <p class="hint">{t("A space holds rooms that belong together. You put them into it in their settings.")}</p>}
                        <Field key="name" label={kind === "space" ? t("Name of the space") : t("Name of the room")} value={name} onInput={setName} autoFocus required />
                        <Field key="people" label={t("People to invite")} value={people} onInput={setPeople} placeholder="bob, carol" hint={t("You can invite more later")} />
                    </>
                )}
            </ActionForm>
            <button type="button" class="button" onClick={onFind}>
                <Icon name="search" /> {t("Find a public room")}
            </button>
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

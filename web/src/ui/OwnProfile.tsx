/** The name and the picture that the others see. */
import type { JSX } from "preact";
import { useState } from "preact/hooks";
import type { Chat } from "../domain/chat.ts";
import { t } from "../domain/i18n.ts";
import { ActionForm, Dialog, Field } from "./parts.tsx";
import { PictureField } from "./PictureField.tsx";

export function OwnProfile({ chat, onClose }: { chat: Chat; onClose: () => void }): JSX.Element {
    const { name: known, avatar } = chat.own.profile.value;
    const [name, setName] = useState(known);
    return (
        <Dialog title={t("Your profile")} onClose={onClose}>
            <PictureField id={chat.userId} name={known} picture={avatar} onChange={(picture) => chat.own.setPicture(picture)} />
            <ActionForm label={t("Save")} action={() => chat.own.rename(name).then(onClose)}>
                <Field label={t("Name that others see")} value={name} onInput={setName} hint={chat.userId} autoComplete="name" required />
            </ActionForm>
        </Dialog>
    );
}

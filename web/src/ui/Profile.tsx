/** A person: who it is, whether that is certain, and what can be done with them. */
import type { JSX } from "preact";
import type { Chat } from "../domain/chat.ts";
import { t } from "../domain/i18n.ts";
import { ActionForm, Avatar, Dialog, Icon } from "./parts.tsx";
import { go } from "./route.ts";

export function Profile({ chat, userId, roomId, onClose }: { chat: Chat; userId: string; roomId?: string; onClose: () => void }): JSX.Element {
    const name = chat.nameOf(userId, roomId);
    const self = userId === chat.userId;
    const talk = async (): Promise<void> => {
        const direct = await chat.createDirect(userId);
        onClose();
        go({ page: "room", roomId: direct });
    };
    return (
        <Dialog title={name} onClose={onClose}>
            <div class="account">
                <Avatar id={userId} name={name} />
                <div>
                    <strong>{name}</strong>
                    <p class="hint">{userId}</p>
                </div>
            </div>
            {!self && (
                <>
                    <Certainty chat={chat} userId={userId} name={name} onClose={onClose} />
                    <ActionForm label={t("Send a message")} action={talk} plain />
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
            <p class="hint trust-verified">
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

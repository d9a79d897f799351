/** Who is signed in, how the app looks, and the way out. */
import type { JSX } from "preact";
import { useState } from "preact/hooks";
import type { App } from "../domain/app.ts";
import type { Chat } from "../domain/chat.ts";
import { t } from "../domain/i18n.ts";
import type { TransportStatus } from "../protocol/transport.ts";
import type { Preferences } from "../domain/preferences.ts";
import { loadLook } from "../platform/theme.ts";
import { AccentChoice } from "./AccentChoice.tsx";
import { useAttempt, useChosen } from "./attempt.ts";
import { Avatar } from "./Avatar.tsx";
import { KeepKey } from "./EncryptionNotes.tsx";
import { LanguageField } from "./LanguageField.tsx";
import { NotificationSettings } from "./NotificationSettings.tsx";
import { ActionForm, Choice, Dialog, Failure, Icon, Switch } from "./parts.tsx";
import { go } from "./route.ts";

const CONNECTIONS = (): Record<TransportStatus["kind"], string> => ({
    socket: t("Connected"),
    http: t("Connected, without the quick way (a proxy may block WebSockets)"),
    connecting: t("Connecting…"),
    offline: t("Offline"),
    stopped: t("Not connected"),
});

/** Whoever lost the recovery key makes another one; the old one opens nothing from then on. */
function NewKey({ chat }: { chat: Chat }): JSX.Element {
    const { recoveryKey } = chat.encryption;
    const [shown, setShown] = useState(false);
    return (
        <>
            <ActionForm
                label={t("New recovery key")}
                action={async () => {
                    if (recoveryKey.value === undefined) await chat.encryption.newRecoveryKey();
                    setShown(true);
                }}
            >
                <p class="hint">{t("Your conversations are encrypted. If you lost your recovery key, make a new one here.")}</p>
            </ActionForm>
            {shown && <KeepKey chat={chat} onClose={() => setShown(false)} />}
        </>
    );
}

function Invitations({ chat }: { chat: Chat }): JSX.Element {
    const [allowed, choose] = useChosen(chat.invites.allowed.value);
    const [, error, run] = useAttempt();
    return (
        <>
            <Switch
                label={t("Allow invitations")}
                hint={allowed ? t("Others can invite you to conversations and rooms.") : t("Nobody can invite you. Whoever tries is told so.")}
                on={allowed}
                onChange={(on) => choose(on, run(() => chat.invites.allow(on)))}
            />
            <Failure words={error} />
        </>
    );
}

export function Account({ app, chat, onOpen, onClose }: { app: App; chat: Chat; onOpen: (screen: "devices" | "profile" | "ignored" | "shortcuts") => void; onClose: () => void }): JSX.Element {
    const now = (): Preferences => chat.preferences.current.value ?? loadLook();
    const look = now();
    // Of what holds now, not when this was drawn: a second press may come first.
    const change = (change: Partial<Preferences>): void => chat.preferences.change({ ...now(), ...change });
    const signOut = (): void => {
        onClose();
        go({ page: "signin" }, true);
        void app.signOut();
    };
    return (
        <Dialog title={t("Account")} onClose={onClose}>
            <div class="account">
                <Avatar id={chat.userId} name={chat.own.profile.value.name} picture={chat.own.profile.value.avatar} />
                <div>
                    <strong>{chat.own.profile.value.name}</strong>
                    <p class="hint">{chat.userId}</p>
                    <p class="hint">{CONNECTIONS()[app.connection.value.kind]}</p>
                </div>
            </div>
            <Choice
                label={t("Appearance")}
                value={look.theme}
                onChange={(theme) => change({ theme })}
                options={[
                    ["system", t("System")],
                    ["light", t("Light")],
                    ["dark", t("Dark")],
                ]}
            />
            <AccentChoice value={look.accent} onChange={(accent) => change({ accent })} />
            <Choice
                label={t("Density")}
                value={look.density}
                onChange={(density) => change({ density })}
                options={[
                    ["comfortable", t("Comfortable")],
                    ["compact", t("Compact")],
                ]}
            />
            <LanguageField value={look.language} onChange={(language) => change({ language })} />
            <Choice
                label={t("Previews of links")}
                value={look.previews}
                onChange={(previews) => change({ previews })}
                options={[
                    ["open", t("Open rooms")],
                    ["all", t("Everywhere")],
                    ["none", t("Never")],
                ]}
            />
            {look.previews === "all" && <p class="hint">{t("The server learns the links of your encrypted conversations, and nothing else of them.")}</p>}
            <Invitations chat={chat} />
            <NotificationSettings chat={chat} quiet={look.quiet} onQuiet={(quiet) => change({ quiet: { ...now().quiet, ...quiet } })} />
            <div class="buttons">
                <button type="button" class="button" onClick={() => onOpen("profile")}>
                    <Icon name="edit" /> {t("Your profile")}
                </button>
                <button type="button" class="button" onClick={() => onOpen("devices")}>
                    <Icon name="device" /> {t("Your devices")}
                </button>
                <button type="button" class="button" onClick={() => onOpen("ignored")}>
                    <Icon name="mute" /> {t("Ignored people")}
                </button>
                <button type="button" class="button" onClick={() => onOpen("shortcuts")}>
                    <Icon name="keys" /> {t("Keyboard shortcuts")}
                </button>
            </div>
            {chat.encryption.state.value === "ready" && <NewKey chat={chat} />}
            <button type="button" class="button danger" onClick={signOut}>
                {t("Sign out")}
            </button>
        </Dialog>
    );
}

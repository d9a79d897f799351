/** The few moments in which encryption asks for attention: a key to keep, a key to give, and nothing otherwise. */
import type { JSX } from "preact";
import { useState } from "preact/hooks";
import type { Chat } from "../domain/chat.ts";
import { t } from "../domain/i18n.ts";
import { saveAs } from "../platform/files.ts";
import { ActionForm, Dialog, Field, Icon } from "./parts.tsx";

/** Above the list, while there is something to do. */
export function EncryptionNote({ chat }: { chat: Chat }): JSX.Element | null {
    const { encryption } = chat;
    const [open, setOpen] = useState(false);
    const state = encryption.state.value;
    const toKeep = encryption.recoveryKey.value !== undefined;
    const words = toKeep
        ? [t("Keep your recovery key"), t("With it you read your messages on other devices.")]
        : state === "locked"
          ? [t("Unlock your messages"), t("With another device, or with your recovery key.")]
          : state === "unset"
            ? [t("Protect your messages"), t("Set up encryption with your password.")]
            : undefined;
    if (!words) return null;
    return (
        <>
            <button type="button" class="note" onClick={() => setOpen(true)}>
                <Icon name="lock" />
                <span>
                    <strong>{words[0]}</strong>
                    <span class="hint">{words[1]}</span>
                </span>
            </button>
            {open && toKeep && <KeepKey chat={chat} onClose={() => setOpen(false)} />}
            {open && !toKeep && state === "locked" && <Unlock chat={chat} onClose={() => setOpen(false)} />}
            {open && !toKeep && state === "unset" && <SetUp chat={chat} onClose={() => setOpen(false)} />}
        </>
    );
}

export function KeepKey({ chat, onClose }: { chat: Chat; onClose: () => void }): JSX.Element | null {
    const [copied, setCopied] = useState(false);
    const key = chat.encryption.recoveryKey.value;
    if (key === undefined) return null;
    const copy = (): void => void navigator.clipboard?.writeText(key).then(() => setCopied(true), () => undefined);
    const save = (): void => {
        const url = URL.createObjectURL(new Blob([`${chat.userId}\n${key}\n`], { type: "text/plain" }));
        saveAs(url, "hubbub-recovery-key.txt");
        setTimeout(() => URL.revokeObjectURL(url), 10_000);
    };
    const done = (): void => {
        chat.encryption.recoveryKey.value = undefined;
        onClose();
    };
    return (
        <Dialog title={t("Your recovery key")} onClose={onClose}>
            <p>{t("Your messages are encrypted. If you sign in on another device, or lose this one, this key opens them. Nobody can give it to you again.")}</p>
            <output class="recovery-key" aria-label={t("Your recovery key")}>
                {key}
            </output>
            <div class="buttons">
                <button type="button" class="button" onClick={copy}>
                    <Icon name="copy" /> {copied ? t("Copied") : t("Copy")}
                </button>
                <button type="button" class="button" onClick={save}>
                    <Icon name="save" /> {t("Save")}
                </button>
            </div>
            <button type="button" class="button primary" onClick={done}>
                {t("I have kept it")}
            </button>
        </Dialog>
    );
}

/** On a new device: another device lets it in, or the recovery key does. */
export function Unlock({ chat, onClose }: { chat: Chat; onClose: () => void }): JSX.Element {
    const [key, setKey] = useState("");
    const [lost, setLost] = useState(false);
    const unlock = async (): Promise<void> => {
        await chat.encryption.restore(key);
        onClose();
    };
    const ask = async (): Promise<void> => {
        await chat.verifications.askOwn();
        onClose();
    };
    if (lost) return <StartOver chat={chat} onClose={onClose} />;
    return (
        <Dialog title={t("Unlock your messages")} onClose={onClose}>
            <ActionForm label={t("Use another device")} action={ask}>
                <p class="hint">{t("Where you are signed in already, you compare a few pictures, and that is all.")}</p>
            </ActionForm>
            <p class="or">{t("or")}</p>
            <ActionForm label={t("Unlock")} action={unlock} plain>
                <Field label={t("Recovery key")} value={key} onInput={setKey} hint={t("You were shown it when your account was made.")} required />
            </ActionForm>
            <button type="button" class="link hint" onClick={() => setLost(true)}>
                {t("I have neither")}
            </button>
        </Dialog>
    );
}

function StartOver({ chat, onClose }: { chat: Chat; onClose: () => void }): JSX.Element {
    const [password, setPassword] = useState("");
    const startOver = async (): Promise<void> => {
        await chat.encryption.startOver(password);
        onClose();
    };
    return (
        <Dialog title={t("Start over")} onClose={onClose}>
            <p class="notice-box">{t("You get new keys. What was written before and is locked stays locked for good, and those who verified you are told that your keys have changed.")}</p>
            <ActionForm label={t("Make new keys")} action={startOver}>
                <Field label={t("Password")} type="password" value={password} onInput={setPassword} autoComplete="current-password" autoFocus required />
            </ActionForm>
        </Dialog>
    );
}

function SetUp({ chat, onClose }: { chat: Chat; onClose: () => void }): JSX.Element {
    const [password, setPassword] = useState("");
    const setUp = async (): Promise<void> => {
        await chat.encryption.setUp(password);
        onClose();
    };
    return (
        <Dialog title={t("Protect your messages")} onClose={onClose}>
            <ActionForm label={t("Set up encryption")} action={setUp}>
                <Field label={t("Password")} type="password" value={password} onInput={setPassword} autoComplete="current-password" autoFocus required />
            </ActionForm>
        </Dialog>
    );
}

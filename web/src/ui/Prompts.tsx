/** Questions that come by themselves, one at a time, beside what one does and not over it. */
import type { ComponentChildren, JSX } from "preact";
import { useState } from "preact/hooks";
import type { Chat } from "../domain/chat.ts";
import { t } from "../domain/i18n.ts";
import { Unlock } from "./EncryptionNotes.tsx";
import { later } from "./later.tsx";
import { Icon, type IconName, IconButton } from "./parts.tsx";
import { listTime } from "./time.ts";

const Verify = later(() => import("./Verify.tsx").then((module) => module.Verify));

export function Prompts({ chat, onDevices }: { chat: Chat; onDevices: () => void }): JSX.Element {
    const [unlocking, setUnlocking] = useState(false);
    const verification = chat.verifications.current.value;
    const asked = verification?.step.value.kind === "asked";
    const toKey = (): void => {
        chat.verifications.dismiss();
        setUnlocking(true);
    };
    return (
        <>
            <div class="prompts" aria-live="polite">
                {asked ? <Asked chat={chat} onDevices={onDevices} /> : !verification && <NewDevice chat={chat} onDevices={onDevices} />}
            </div>
            {verification && !asked && <Verify chat={chat} verification={verification} onRecoveryKey={toKey} onClose={() => chat.verifications.dismiss()} />}
            {unlocking && <Unlock chat={chat} onClose={() => setUnlocking(false)} />}
        </>
    );
}

function Asked({ chat, onDevices }: { chat: Chat; onDevices: () => void }): JSX.Element {
    const verification = chat.verifications.current.value!;
    const name = chat.nameOf(verification.userId);
    const decline = (): void => {
        chat.verifications.dismiss();
        if (verification.own) onDevices();
    };
    return (
        <Prompt
            icon="shield"
            title={verification.own ? t("Is this you?") : t("{name} wants to verify you", { name })}
            words={verification.own ? t("Another device signed in to your account and wants to read your messages.") : t("You compare a few pictures, so that both know that nobody stands in between.")}
            onClose={() => chat.verifications.dismiss()}
        >
            <button type="button" class="button primary small" onClick={() => void verification.accept()}>
                {verification.own ? t("Yes, compare") : t("Compare")}
            </button>
            <button type="button" class="button small" onClick={decline}>
                {verification.own ? t("No, not me") : t("Not now")}
            </button>
        </Prompt>
    );
}

function NewDevice({ chat, onDevices }: { chat: Chat; onDevices: () => void }): JSX.Element | null {
    const device = chat.encryption.state.value === "ready" ? chat.devices.fresh.value[0] : undefined;
    if (!device) return null;
    const dismiss = (): void => void chat.devices.dismiss(device.id);
    return (
        <Prompt icon="device" title={t("Is this you?")} words={t("New sign-in: {device}", { device: device.name }) + (device.seen > 0 ? ` · ${listTime(device.seen)}` : "")} onClose={dismiss}>
            <button type="button" class="button primary small" onClick={() => void chat.verifications.askDevice(device.id).then(dismiss, () => undefined)}>
                {t("Yes, compare")}
            </button>
            <button
                type="button"
                class="button small"
                onClick={() => {
                    dismiss();
                    onDevices();
                }}
            >
                {t("No, not me")}
            </button>
        </Prompt>
    );
}

function Prompt(props: { icon: IconName; title: string; words: string; onClose: () => void; children: ComponentChildren }): JSX.Element {
    return (
        <section class="prompt" aria-label={props.title}>
            <Icon name={props.icon} />
            <div class="prompt-text">
                <strong>{props.title}</strong>
                <p class="hint">{props.words}</p>
                <div class="prompt-buttons">{props.children}</div>
            </div>
            <IconButton icon="close" label={t("Later")} onClick={props.onClose} />
        </section>
    );
}

/** Comparing emoji, step by step, whoever asked for it. */
import type { ComponentChildren, JSX } from "preact";
import type { Chat } from "../domain/chat.ts";
import { t } from "../domain/i18n.ts";
import type { Emoji, Failure, Verification } from "../domain/verification.ts";
import { Dialog, Icon, Spinner } from "./parts.tsx";
import { sasName } from "./sasnames.ts";

export function Verify({ chat, verification, onRecoveryKey }: { chat: Chat; verification: Verification; onRecoveryKey: () => void }): JSX.Element {
    const name = chat.nameOf(verification.userId);
    const close = (): void => chat.verifications.dismiss();
    return (
        <Dialog title={verification.own ? t("Is this you?") : t("Verify {name}", { name })} onClose={close}>
            <div class="verify" aria-live="polite">
                <Steps chat={chat} verification={verification} name={name} onClose={close} onRecoveryKey={onRecoveryKey} />
            </div>
        </Dialog>
    );
}

interface StepProps {
    chat: Chat;
    verification: Verification;
    name: string;
    onClose: () => void;
    onRecoveryKey: () => void;
}

function Steps(props: StepProps): JSX.Element {
    const { chat, verification, name, onClose } = props;
    const step = verification.step.value;
    const own = verification.own;
    switch (step.kind) {
        case "asked":
        case "starting":
            return <Busy words={t("Getting ready…")} onCancel={onClose} />;
        case "waiting":
            return (
                <Busy words={own ? t("Open hubbub on another device where you are signed in, and answer there.") : t("{name} has been asked. Meet or call each other meanwhile: you will compare a few pictures.", { name })} onCancel={onClose}>
                    {own && chat.encryption.state.value === "locked" && (
                        <button type="button" class="button" onClick={props.onRecoveryKey}>
                            <Icon name="lock" /> {t("Use the recovery key instead")}
                        </button>
                    )}
                </Busy>
            );
        case "compare":
            return <Compare verification={verification} emoji={step.emoji} name={name} />;
        case "confirmed":
            return <Busy words={own ? t("Now confirm it on the other device, too.") : t("Waiting for {name} to confirm it, too.", { name })} onCancel={onClose} />;
        case "done":
            return (
                <>
                    <p class="verify-mark">
                        <Icon name="shield" />
                    </p>
                    <p>{own ? t("It is you. Both devices read your messages now.") : t("Nobody stands between you and {name}. You will be told if that changes.", { name })}</p>
                    <button type="button" class="button primary" onClick={onClose}>
                        {t("Done")}
                    </button>
                </>
            );
        case "failed":
            return <Failed {...props} why={step.why} />;
    }
}

function Busy({ words, onCancel, children }: { words: string; onCancel: () => void; children?: ComponentChildren }): JSX.Element {
    return (
        <>
            <p class="verify-busy">
                <Spinner label={t("Working")} /> <span>{words}</span>
            </p>
            {children}
            <button type="button" class="button" onClick={onCancel}>
                {t("Cancel")}
            </button>
        </>
    );
}

function Compare({ verification, emoji, name }: { verification: Verification; emoji: readonly Emoji[]; name: string }): JSX.Element {
    return (
        <>
            <p>{verification.own ? t("Does the other device show the same pictures, in the same order?") : t("Does {name} see the same pictures, in the same order? Ask in person or on the phone, not here.", { name })}</p>
            <ol class="sas">
                {emoji.map(([symbol, english], at) => (
                    <li key={at}>
                        <span class="sas-symbol" aria-hidden="true">
                            {symbol}
                        </span>
                        <span class="sas-name">{english === "" ? symbol : sasName(english)}</span>
                    </li>
                ))}
            </ol>
            <div class="buttons">
                <button type="button" class="button danger" onClick={() => void verification.answer(false)}>
                    {t("They differ")}
                </button>
                <button type="button" class="button primary" onClick={() => void verification.answer(true)}>
                    {t("They are the same")}
                </button>
            </div>
        </>
    );
}

function whyWords(why: Failure, own: boolean, name: string): string {
    if (why === "mismatch" && own) return t("The pictures were not the same. Somebody may have got into your account: sign out devices that you do not know, and change your password.");
    if (why === "mismatch") return t("The pictures were not the same. Somebody may be reading what you write to {name}. Tell it each other in another way, and try again.", { name });
    if (why === "unanswered") return own ? t("The other device did not answer.") : t("{name} did not answer.", { name });
    if (why === "refused") return own ? t("It was declined on the other device.") : t("{name} does not want to do it now.", { name });
    if (why === "elsewhere") return t("It goes on on another device of yours.");
    return why === "cancelled" ? t("It was cancelled.") : t("Something went wrong.");
}

function Failed({ chat, verification, name, why, onClose, onRecoveryKey }: StepProps & { why: Failure }): JSX.Element {
    const { own, request } = verification;
    const locked = chat.encryption.state.value === "locked";
    const again = (): void => {
        const { verifications } = chat;
        const other = request.otherDeviceId;
        const asking = !own ? chat.verify(verification.userId) : locked || other === undefined ? verifications.askOwn() : verifications.askDevice(other);
        asking.catch(() => undefined); // it stays as it is, and can be tried again
    };
    return (
        <>
            <p class={why === "mismatch" ? "error" : "notice-box"} role={why === "mismatch" ? "alert" : undefined}>
                {whyWords(why, own, name)}
            </p>
            <div class="buttons">
                {why !== "elsewhere" && (
                    <button type="button" class="button primary" onClick={again}>
                        {t("Try again")}
                    </button>
                )}
                {own && locked && (
                    <button type="button" class="button" onClick={onRecoveryKey}>
                        {t("Use the recovery key")}
                    </button>
                )}
                <button type="button" class="button" onClick={onClose}>
                    {t("Close")}
                </button>
            </div>
        </>
    );
}

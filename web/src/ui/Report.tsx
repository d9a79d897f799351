/** Telling those who run the server of a message, a room or a person. */
import type { JSX } from "preact";
import { useState } from "preact/hooks";
import type { Chat } from "../domain/chat.ts";
import { t } from "../domain/i18n.ts";
import type { Reported } from "../domain/reports.ts";
import { ActionForm, Dialog, Field } from "./parts.tsx";

const titles = (): Record<Reported["kind"], string> => ({ message: t("Report this message"), room: t("Report this room"), person: t("Report this person") });

export function Report({ chat, what, onClose }: { chat: Chat; what: Reported; onClose: () => void }): JSX.Element {
    const [reason, setReason] = useState("");
    const [sent, setSent] = useState(false);
    return (
        <Dialog title={titles()[what.kind]} onClose={onClose}>
            {sent ? (
                <>
                    <p role="status">{t("Thank you. Those who run this server will look at it.")}</p>
                    <button type="button" class="button primary" onClick={onClose}>
                        {t("Close")}
                    </button>
                </>
            ) : (
                <ActionForm label={t("Report")} action={() => chat.report(what, reason).then(() => setSent(true))}>
                    <p class="hint">{t("Those who run this server are told who reports what, and why. Encrypted messages they still cannot read.")}</p>
                    <Field label={t("What is wrong with it?")} value={reason} onInput={setReason} autoFocus required />
                </ActionForm>
            )}
        </Dialog>
    );
}

/** Choosing a picture, and taking it away. */
import type { JSX } from "preact";
import { useRef } from "preact/hooks";
import { t } from "../domain/i18n.ts";
import { asAvatar } from "../platform/pictures.ts";
import { useAttempt } from "./attempt.ts";
import { Avatar } from "./Avatar.tsx";
import { Failure, Spinner } from "./parts.tsx";

export function PictureField(props: { id: string; name: string; picture: string | undefined; onChange: (picture: Blob | undefined) => Promise<void> }): JSX.Element {
    const [busy, error, run] = useAttempt();
    const picker = useRef<HTMLInputElement>(null);
    const change = async (file: File | undefined): Promise<void> => {
        const picture = file && (await asAvatar(file));
        if (file && !picture) throw new Error(t("This file is no picture that can be shown."));
        await props.onChange(picture);
    };
    return (
        <div class="picture-field">
            <Avatar id={props.id} name={props.name} picture={props.picture} size="l" />
            <div class="picture-buttons">
                <input
                    ref={picker}
                    type="file"
                    accept="image/*"
                    hidden
                    aria-label={t("Picture")}
                    onChange={(event) => {
                        const file = event.currentTarget.files?.[0];
                        event.currentTarget.value = "";
                        if (file) void run(() => change(file));
                    }}
                />
                <button type="button" class="button small" disabled={busy} onClick={() => picker.current?.click()}>
                    {busy ? <Spinner label={t("Working")} /> : props.picture === undefined ? t("Choose a picture") : t("Another picture")}
                </button>
                {props.picture !== undefined && !busy && (
                    <button type="button" class="button small" onClick={() => run(() => change(undefined))}>
                        {t("Remove the picture")}
                    </button>
                )}
            </div>
            <Failure words={error} />
        </div>
    );
}

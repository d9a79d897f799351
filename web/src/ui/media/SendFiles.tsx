/** What is about to be sent: how it looks, what is said to it, and whether pictures are made smaller. */
import type { JSX } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { sizeText, tooLarge } from "../../domain/filelimits.ts";
import { t } from "../../domain/i18n.ts";
import type { Timeline } from "../../domain/timeline.ts";
import { kindOf } from "../../platform/files.ts";
import { canShrink, prepareFile } from "../../platform/prepare.ts";
import { ActionForm, Choice, Dialog, Icon, IconButton, useAddress } from "../parts.tsx";
import { staged, stageFiles } from "./staged.ts";

type Form = "smaller" | "original";

export function SendFiles({ timeline, files, onClose }: { timeline: Timeline; files: readonly File[]; onClose: () => void }): JSX.Element {
    const [caption, setCaption] = useState("");
    const [form, setForm] = useState<Form>("smaller");
    const [limit, setLimit] = useState<number>();
    const more = useRef<HTMLInputElement>(null);
    useEffect(() => void timeline.uploads.limit().then(setLimit), []);
    const isSmaller = (file: File): boolean => form === "smaller" && canShrink(file);
    const refusal = (file: File): string | undefined => (isSmaller(file) ? undefined : tooLarge(file.size, limit));
    const fitting = files.filter((file) => refusal(file) === undefined);
    const remove = (file: File): void => {
        const rest = files.filter((each) => each !== file);
        staged.value = rest.length === 0 ? undefined : { timeline, files: rest };
    };
    const send = async (): Promise<void> => {
        const prepared = [];
        for (const file of fitting) {
            const made = await prepareFile(file, form === "original");
            const words = tooLarge(made.blob.size, limit);
            if (words !== undefined) throw new Error(`${made.name}: ${words}`);
            prepared.push(made);
        }
        // What is said stands below the last one.
        prepared.forEach((made, i) => timeline.sendFile(made, i === prepared.length - 1 ? caption : ""));
        onClose();
    };
    return (
        <Dialog title={t("Send {count} file|Send {count} files", { count: files.length })} onClose={onClose}>
            {files.length === 1 && kindOf(files[0]!.type) === "image" ? <LargePreview file={files[0]!} /> : null}
            <ul class="staged" aria-label={t("Files to be sent")}>
                {files.map((file) => (
                    <StagedRow key={`${file.name} ${file.size} ${file.lastModified}`} file={file} refusal={refusal(file)} alone={files.length === 1} onRemove={() => remove(file)} />
                ))}
            </ul>
            {fitting.length > 0 ? (
                <ActionForm label={t("Send")} action={send}>
                    <CaptionBox value={caption} onInput={setCaption} />
                    {files.some(canShrink) && (
                        <div class="field">
                            <Choice label={t("Pictures")} value={form} onChange={setForm} options={[["smaller", t("Smaller")], ["original", t("Original")]]} />
                            <p class="hint">{form === "smaller" ? t("Sent quickly, and without what the camera wrote into them, as the place.") : t("As they are, to the last pixel.")}</p>
                        </div>
                    )}
                </ActionForm>
            ) : (
                <p class="error" role="alert">
                    {t("None of this can be sent here.")}
                </p>
            )}
            <input
                ref={more}
                type="file"
                multiple
                hidden
                aria-label={t("Further files")}
                onChange={(event) => {
                    stageFiles(timeline, [...(event.currentTarget.files ?? [])]);
                    event.currentTarget.value = "";
                }}
            />
            <button type="button" class="button small" onClick={() => more.current?.click()}>
                <Icon name="plus" /> {t("Add files")}
            </button>
        </Dialog>
    );
}

/** Enter sends, as in the line to write in. */
function CaptionBox({ value, onInput }: { value: string; onInput: (value: string) => void }): JSX.Element {
    const area = useRef<HTMLTextAreaElement>(null);
    const touch = matchMedia("(pointer: coarse)").matches;
    useEffect(() => {
        if (!touch) area.current?.focus();
    }, []);
    return (
        <textarea
            ref={area}
            class="caption-box"
            rows={2}
            value={value}
            dir="auto"
            maxLength={4000}
            aria-label={t("Caption")}
            placeholder={t("Add a caption")}
            onInput={(event) => onInput(event.currentTarget.value)}
            onKeyDown={(event) => {
                if (event.key !== "Enter" || event.shiftKey || event.isComposing || touch) return;
                event.preventDefault();
                event.currentTarget.form?.requestSubmit();
            }}
        />
    );
}

function LargePreview({ file }: { file: File }): JSX.Element {
    const url = useAddress(file);
    return <div class="staged-large">{url !== undefined && <img src={url} alt={file.name} />}</div>;
}

function StagedRow({ file, refusal, alone, onRemove }: { file: File; refusal: string | undefined; alone: boolean; onRemove: () => void }): JSX.Element {
    const url = useAddress(file);
    const kind = kindOf(file.type);
    return (
        <li class="staged-file">
            {!alone || kind !== "image" ? (
                <span class="staged-picture" aria-hidden="true">
                    {kind === "image" && url !== undefined ? <img src={url} alt="" /> : <Icon name={kind === "video" ? "play" : kind === "audio" ? "mic" : "file"} />}
                </span>
            ) : null}
            <span class="file-text">
                <span class="file-name">{file.name}</span>
                <span class={refusal === undefined ? "hint" : "hint refused"}>{refusal ?? sizeText(file.size)}</span>
            </span>
            {!alone && <IconButton icon="close" label={t("Leave out {name}", { name: file.name })} onClick={onRemove} />}
        </li>
    );
}

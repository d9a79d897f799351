/** Pictures, recordings and files in the timeline, and those that are on their way. */
import { computed } from "@preact/signals";
import type { JSX } from "preact";
import { useRef, useState } from "preact/hooks";
import { isSeen, seenIn } from "../domain/gallery.ts";
import type { Message } from "../domain/entries.ts";
import { sizeText } from "../domain/filelimits.ts";
import { t } from "../domain/i18n.ts";
import { type Attachment, isShown, type Media } from "../domain/media.ts";
import type { Timeline } from "../domain/timeline.ts";
import type { Upload, Uploads } from "../domain/uploads.ts";
import { playTime } from "../domain/waveform.ts";
import { saveAs } from "../platform/files.ts";
import { Blur, shownSize, usePreview, useSize } from "./media/Frame.tsx";
import { gallery } from "./media/gallery.ts";
import { Sound } from "./media/Sound.tsx";
import { Icon, IconButton, useAddress } from "./parts.tsx";

/** The frame of a picture, in CSS pixels; the style sheet makes it smaller on small screens. */
const LARGEST = { width: 360, height: 320 };

export function AttachmentView({ message, attachment, timeline, media }: { message: Message; attachment: Attachment; timeline: Timeline; media: Media }): JSX.Element {
    const [failed, setFailed] = useState(false);
    if (isSeen(attachment)) {
        const open = (): void => {
            const older = async (): Promise<boolean> => {
                await timeline.loadOlder();
                return timeline.older.value === "more";
            };
            gallery.value = { items: computed(() => seenIn(timeline.items.value)), key: message.key, older };
        };
        return <Picture attachment={attachment} media={media} onOpen={open} />;
    }
    if (attachment.kind === "audio" && isShown(attachment.type)) {
        const load = (): Promise<string> => media.original(attachment);
        const save = (): void => void load().then((url) => saveAs(url, attachment.name), () => setFailed(true));
        return (
            <>
                {!attachment.waveform && <p class="sound-name">{attachment.name}</p>}
                <Sound name={attachment.waveform ? t("Voice message") : attachment.name} durationMs={attachment.durationMs} waveform={attachment.waveform} load={load} onSave={save} />
                {failed && <p class="hint">{t("The file could not be loaded.")}</p>}
            </>
        );
    }
    return <FileRow attachment={attachment} media={media} />;
}

function Picture({ attachment, media, onOpen }: { attachment: Attachment; media: Media; onOpen: () => void }): JSX.Element {
    const frame = useRef<HTMLButtonElement>(null);
    const size = shownSize(attachment, LARGEST);
    const { url, failed } = usePreview(frame, attachment, media, size);
    useSize(frame, size);
    const isVideo = attachment.kind === "video";
    const { name } = attachment;
    const note = [attachment.durationMs && playTime(attachment.durationMs), sizeText(attachment.size)].filter(Boolean).join(" · ");
    return (
        <button type="button" ref={frame} class={`picture ${isVideo ? "video" : ""}`} onClick={onOpen} aria-label={isVideo ? `${t("Play the video {name}", { name })} ${note}` : t("Open the picture {name}", { name })}>
            {attachment.blurhash !== undefined && <Blur hash={attachment.blurhash} />}
            {url !== undefined && <img src={url} alt={name} />}
            {failed && attachment.blurhash === undefined && <span class="hint">{name}</span>}
            {isVideo && (
                <>
                    <span class="picture-play">
                        <Icon name="play" />
                    </span>
                    <span class="picture-note">{note}</span>
                </>
            )}
        </button>
    );
}

type Fetching = { kind: "idle" } | { kind: "failed" } | { kind: "loading"; progress: number; abort: AbortController };

export function FileRow({ attachment, media }: { attachment: Attachment; media: Media }): JSX.Element {
    const [state, setState] = useState<Fetching>({ kind: "idle" });
    const open = async (): Promise<void> => {
        const abort = new AbortController();
        setState({ kind: "loading", progress: 0, abort });
        try {
            const url = await media.original(attachment, { onProgress: (progress) => setState({ kind: "loading", progress, abort }), signal: abort.signal });
            setState({ kind: "idle" });
            saveAs(url, attachment.name);
        } catch {
            setState({ kind: abort.signal.aborted ? "idle" : "failed" });
        }
    };
    const loading = state.kind === "loading" ? state : undefined;
    return (
        <div class="file-frame">
            <button type="button" class="file" onClick={() => !loading && void open()} title={t("Save {name}", { name: attachment.name })}>
                <span class="file-icon">
                    <Icon name={loading ? "down" : "file"} />
                </span>
                <span class="file-text">
                    <span class="file-name">{attachment.name}</span>
                    {loading ? (
                        <progress value={loading.progress} max={1} aria-label={t("Download of {name}", { name: attachment.name })} />
                    ) : (
                        <span class="hint">{state.kind === "failed" ? t("The file could not be loaded.") : sizeText(attachment.size)}</span>
                    )}
                </span>
            </button>
            {loading && <IconButton icon="close" label={t("Cancel the download")} onClick={() => loading.abort.abort()} />}
        </div>
    );
}

/** Files that are on their way to this place: the room, or one thread of it. */
export function UploadRows({ timeline }: { timeline: Timeline }): JSX.Element {
    const { uploads, threadRoot } = timeline;
    return (
        <>
            {uploads.list.value.filter(({ file }) => rootOf(file.more) === threadRoot).map((upload) => (
                <UploadRow key={upload.id} upload={upload} uploads={uploads} />
            ))}
        </>
    );
}

function rootOf(more: Record<string, unknown> | undefined): string | undefined {
    const relation = more?.["m.relates_to"] as { rel_type?: unknown; event_id?: string } | undefined;
    return relation?.rel_type === "m.thread" ? relation.event_id : undefined;
}

function UploadRow({ upload, uploads }: { upload: Upload; uploads: Uploads }): JSX.Element {
    const { id, name, file, progress, failed, waits } = upload;
    const picture = useAddress(file.thumbnail?.blob ?? (file.kind === "image" ? file.blob : undefined));
    return (
        <div class="upload" role="group" aria-label={name}>
            <span class="file-icon" aria-hidden="true">
                {picture === undefined ? <Icon name={file.waveform ? "mic" : "file"} /> : <img src={picture} alt="" />}
            </span>
            <span class="file-text">
                <span class="file-name">{name}</span>
                {waits ? (
                    <span class="hint">{t("Waits to be sent")}</span>
                ) : failed === undefined ? (
                    <>
                        <span class="hint">{t("{done} of {all}", { done: sizeText(progress * file.blob.size), all: sizeText(file.blob.size) })}</span>
                        <progress value={progress} max={1} aria-label={t("Upload of {name}", { name })} />
                    </>
                ) : (
                    <span class="error" role="alert">
                        {failed}
                    </span>
                )}
            </span>
            {(failed !== undefined || waits) && (
                <button type="button" class="link" onClick={() => uploads.retry(id)}>
                    {t("Try again")}
                </button>
            )}
            <IconButton icon="close" label={t("Cancel the upload")} onClick={() => uploads.cancel(id)} />
        </div>
    );
}

/** Pictures, recordings and files in the timeline. */
import type { JSX } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { number, t } from "../domain/i18n.ts";
import { type Attachment, isShown, type Media } from "../domain/media.ts";
import type { Timeline } from "../domain/timeline.ts";
import { saveAs } from "../platform/files.ts";
import { useModal } from "./focus.ts";
import { Icon, IconButton, Spinner } from "./parts.tsx";

/** The frame of a picture, in CSS pixels; the style sheet makes it smaller on small screens. */
const MAX_WIDTH = 360;
const MAX_HEIGHT = 320;

export function AttachmentView({ attachment, media }: { attachment: Attachment; media: Media }): JSX.Element {
    if (attachment.kind === "image" && isShown(attachment.type)) return <Picture attachment={attachment} media={media} />;
    if ((attachment.kind === "audio" || attachment.kind === "video") && isShown(attachment.type)) return <Player attachment={attachment} media={media} />;
    return <FileRow attachment={attachment} media={media} />;
}

function Picture({ attachment, media }: { attachment: Attachment; media: Media }): JSX.Element {
    const frame = useRef<HTMLButtonElement>(null);
    const [url, setUrl] = useState<string>();
    const [failed, setFailed] = useState(false);
    const [open, setOpen] = useState(false);
    useEffect(() => {
        const { width = MAX_WIDTH, height = MAX_HEIGHT } = attachment;
        const scale = Math.min(1, MAX_WIDTH / width, MAX_HEIGHT / height);
        frame.current!.style.width = `${Math.max(80, Math.round(width * scale))}px`;
        frame.current!.style.aspectRatio = `${width} / ${height}`;
        // Only what comes near the screen is loaded.
        const observer = new IntersectionObserver(
            (seen) => {
                if (!seen.some((each) => each.isIntersecting)) return;
                observer.disconnect();
                media.preview(attachment)?.then(setUrl, () => setFailed(true)) ?? setFailed(true);
            },
            { rootMargin: "400px" },
        );
        observer.observe(frame.current!);
        return () => observer.disconnect();
    }, [attachment.source.mxc]);
    return (
        <>
            <button type="button" ref={frame} class="picture" onClick={() => setOpen(true)} aria-label={t("Open the picture {name}", { name: attachment.name })}>
                {url !== undefined && <img src={url} alt={attachment.name} />}
                {failed && <span class="hint">{attachment.name}</span>}
            </button>
            {open && <Viewer attachment={attachment} media={media} onClose={() => setOpen(false)} />}
        </>
    );
}

function Viewer({ attachment, media, onClose }: { attachment: Attachment; media: Media; onClose: () => void }): JSX.Element {
    const dialog = useModal();
    const [url, setUrl] = useState<string>();
    const [error, setError] = useState(false);
    useEffect(() => {
        media.original(attachment).then(setUrl, () => setError(true));
    }, []);
    return (
        <dialog ref={dialog} class="viewer" aria-label={attachment.name} onClose={onClose} onClick={(event) => event.target === dialog.current && onClose()}>
            <header class="viewer-bar">
                <span>{attachment.name}</span>
                <IconButton icon="save" label={t("Save")} onClick={() => url !== undefined && saveAs(url, attachment.name)} />
                <IconButton icon="close" label={t("Close")} onClick={onClose} />
            </header>
            {url !== undefined ? <img src={url} alt={attachment.name} /> : error ? <p>{t("The file could not be loaded.")}</p> : <Spinner label={t("Loading")} />}
        </dialog>
    );
}

function Player({ attachment, media }: { attachment: Attachment; media: Media }): JSX.Element {
    const [url, setUrl] = useState<string>();
    if (url !== undefined) return attachment.kind === "video" ? <video class="player" src={url} controls autoPlay /> : <audio class="player" src={url} controls autoPlay />;
    return <FileRow attachment={attachment} media={media} onOpen={setUrl} />;
}

function FileRow({ attachment, media, onOpen }: { attachment: Attachment; media: Media; onOpen?: (url: string) => void }): JSX.Element {
    const [state, setState] = useState<"idle" | "loading" | "failed">("idle");
    const open = async (): Promise<void> => {
        setState("loading");
        try {
            const url = await media.original(attachment);
            setState("idle");
            if (onOpen) onOpen(url);
            else saveAs(url, attachment.name);
        } catch {
            setState("failed");
        }
    };
    return (
        <button type="button" class="file" onClick={() => void open()} title={onOpen ? t("Play {name}", { name: attachment.name }) : t("Save {name}", { name: attachment.name })}>
            {state === "loading" ? <Spinner label={t("Loading")} /> : <Icon name={onOpen ? "play" : "save"} />}
            <span class="file-text">
                <span class="file-name">{attachment.name}</span>
                <span class="hint">{state === "failed" ? t("The file could not be loaded.") : sizeText(attachment.size)}</span>
            </span>
        </button>
    );
}

export function sizeText(bytes: number | undefined): string {
    if (bytes === undefined) return "";
    const format = (value: number, unit: string): string => number(value, { style: "unit", unit, unitDisplay: "short", maximumFractionDigits: 1 });
    return bytes < 1e6 ? format(Math.max(0.1, bytes / 1e3), "kilobyte") : format(bytes / 1e6, "megabyte");
}

/** Files that are on their way. */
export function UploadRows({ timeline }: { timeline: Timeline }): JSX.Element {
    const { uploads } = timeline;
    return (
        <>
            {uploads.list.value.map((upload) => (
                <div key={upload.id} class="upload" role="group" aria-label={upload.name}>
                    <span class="file-text">
                        <span class="file-name">{upload.name}</span>
                        {upload.waits ? <span class="hint">{t("Waits to be sent")}</span> : upload.failed === undefined ? <progress value={upload.progress} max={1} aria-label={t("Upload of {name}", { name: upload.name })} /> : <span class="error" role="alert">{upload.failed}</span>}
                    </span>
                    {(upload.failed !== undefined || upload.waits) && (
                        <button type="button" class="link" onClick={() => uploads.retry(upload.id)}>
                            {t("Try again")}
                        </button>
                    )}
                    <IconButton icon="close" label={t("Cancel the upload")} onClick={() => uploads.cancel(upload.id)} />
                </div>
            ))}
        </>
    );
}

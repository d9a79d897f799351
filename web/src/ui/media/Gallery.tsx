/**
 * A picture or video, large. Arrows and swipes go to the next one, Escape and a swipe down close; pictures are made
 * larger by the wheel, two fingers, a double click, + and -. A dialog of the browser's own keeps the focus inside.
 */
import type { JSX } from "preact";
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import type { MediaItem } from "../../domain/gallery.ts";
import { t } from "../../domain/i18n.ts";
import type { Attachment, Media } from "../../domain/media.ts";
import { saveAs } from "../../platform/files.ts";
import { useModal } from "../focus.ts";
import { IconButton } from "../parts.tsx";
import { exactTime } from "../time.ts";
import type { Opened } from "./gallery.ts";
import { useZoom } from "./zoom.ts";

/** Pages of a conversation that are looked through for the next picture. */
const LOOKS = 10;
/** Neighbours below this are fetched before they are asked for. */
const AHEAD_BYTES = 4 << 20;

export function Gallery({ opened, media, onClose: close }: { opened: Opened; media: Media; onClose: () => void }): JSX.Element {
    const dialog = useModal();
    const items = opened.items.value;
    const [key, setKey] = useState(opened.key);
    const last = useRef<MediaItem | undefined>(undefined);
    const index = items.findIndex((each) => each.key === key);
    const item = items[index] ?? last.current; // it may be sent, removed, or out of sight meanwhile
    last.current = item;
    useEffect(() => {
        let gone = false;
        const fetchOlder = async (): Promise<void> => {
            for (let i = 0; i < LOOKS && !gone && (await opened.older()); i++);
        };
        if (index === 0) void fetchOlder(); // until something comes, which begins this anew
        for (const near of [items[index - 1], items[index + 1]]) if (near?.attachment.kind === "image" && (near.attachment.size ?? Infinity) < AHEAD_BYTES) media.original(near.attachment).catch(() => undefined);
        return () => void (gone = true);
    }, [key, items.length]);
    const to = (step: number): void => {
        const next = items[index + step];
        if (next) setKey(next.key);
    };
    const keys = (event: KeyboardEvent): void => {
        if ((event.target as Element).closest("video")) return; // it has keys of its own
        const forward = getComputedStyle(dialog.current!).direction === "rtl" ? -1 : 1;
        const step = { ArrowRight: forward, ArrowLeft: -forward }[event.key];
        if (step !== undefined) to(step);
    };
    return (
        <dialog ref={dialog} class="gallery" aria-label={item?.attachment.name ?? t("Picture")} onClose={close} onKeyDown={keys}>
            {item && <Large key={item.key} item={item} media={media} onClose={close} onStep={to} before={index > 0} after={index >= 0 && index < items.length - 1} />}
        </dialog>
    );
}

interface LargeProps {
    item: MediaItem;
    media: Media;
    onClose: () => void;
    onStep: (step: number) => void;
    before: boolean;
    after: boolean;
}

function Large({ item, media, onClose, onStep, before, after }: LargeProps): JSX.Element {
    const { attachment, caption } = item;
    const { url, progress, failed } = useOriginal(attachment, media);
    const save = (): void => {
        if (url !== undefined) saveAs(url, attachment.name);
    };
    return (
        <>
            <header class="gallery-bar">
                <p class="gallery-who">
                    <strong>{item.senderName}</strong>
                    <time dateTime={new Date(item.ts).toISOString()}>{exactTime(item.ts)}</time>
                </p>
                <IconButton icon="save" label={t("Save")} onClick={save} />
                <IconButton icon="close" label={t("Close")} onClick={onClose} />
            </header>
            {attachment.kind === "image" ? <Zoomed attachment={attachment} media={media} url={url} onStep={onStep} onClose={onClose} /> : <Video url={url} attachment={attachment} media={media} />}
            {before && <IconButton icon="back" class="gallery-step before" label={t("Previous")} onClick={() => onStep(-1)} />}
            {after && <IconButton icon="next" class="gallery-step after" label={t("Next")} onClick={() => onStep(1)} />}
            <div class="gallery-foot">
                {failed ? <p role="alert">{t("The file could not be loaded.")}</p> : url === undefined && <progress value={progress} max={1} aria-label={t("Download of {name}", { name: attachment.name })} />}
                {caption !== undefined && (
                    <p class="gallery-caption" dir="auto">
                        {caption}
                    </p>
                )}
            </div>
        </>
    );
}

function useOriginal(attachment: Attachment, media: Media): { url: string | undefined; progress: number; failed: boolean } {
    const [url, setUrl] = useState<string>();
    const [progress, setProgress] = useState(0);
    const [failed, setFailed] = useState(false);
    useEffect(() => {
        const abort = new AbortController();
        media.original(attachment, { onProgress: (at) => abort.signal.aborted || setProgress(at), signal: abort.signal }).then(
            (address) => abort.signal.aborted || setUrl(address),
            () => abort.signal.aborted || setFailed(true),
        );
        return () => abort.abort();
    }, []);
    return { url, progress, failed };
}

/** What was shown in the timeline, for the time until the whole file is there. */
function usePreviewAddress(attachment: Attachment, media: Media): string | undefined {
    const [url, setUrl] = useState<string>();
    useEffect(() => {
        let gone = false;
        media.preview(attachment)?.then((address) => gone || setUrl(address), () => undefined);
        return () => void (gone = true);
    }, []);
    return url;
}

function Zoomed({ attachment, media, url, onStep, onClose }: { attachment: Attachment; media: Media; url: string | undefined; onStep: (step: number) => void; onClose: () => void }): JSX.Element {
    const stage = useRef<HTMLDivElement>(null);
    const preview = usePreviewAddress(attachment, media);
    const image = useRef<HTMLImageElement>(null);
    const handlers = useZoom(stage, image, { onStep, onClose });
    const shown = url ?? preview;
    useLayoutEffect(() => {
        const { width, height } = attachment;
        if (!image.current || !width || !height) return;
        // The preview is as large as the picture will be; neither is blown up.
        image.current.style.maxWidth = `${width}px`;
        image.current.style.maxHeight = `${height}px`;
    }, [shown]);
    return (
        <div ref={stage} class="gallery-stage" {...handlers}>
            {shown !== undefined && <img ref={image} src={shown} alt={attachment.name} draggable={false} />}
        </div>
    );
}

function Video({ attachment, media, url }: { attachment: Attachment; media: Media; url: string | undefined }): JSX.Element {
    const preview = usePreviewAddress(attachment, media);
    return (
        <div class="gallery-stage">
            {url === undefined ? (
                preview !== undefined && <img src={preview} alt={attachment.name} />
            ) : (
                <video src={url} controls autoPlay playsInline aria-label={attachment.name} {...(preview === undefined ? {} : { poster: preview })} />
            )}
        </div>
    );
}

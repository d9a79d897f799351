/** The ways to something that is no text: files by a picker; on a phone a sheet with the camera, and what else there is. */
import type { ComponentChildren, JSX } from "preact";
import { useRef, useState } from "preact/hooks";
import { t } from "../../domain/i18n.ts";
import type { Timeline } from "../../domain/timeline.ts";
import { useModal } from "../focus.ts";
import { Icon, type IconName, IconButton } from "../parts.tsx";
import { stageFiles } from "./staged.ts";

const PICTURES = "image/*,video/*";

export function Attach({ timeline, onPoll }: { timeline: Timeline; onPoll: (() => void) | undefined }): JSX.Element {
    const files = useRef<HTMLInputElement>(null);
    const pictures = useRef<HTMLInputElement>(null);
    const camera = useRef<HTMLInputElement>(null);
    const [open, setOpen] = useState(false);
    const touch = matchMedia("(pointer: coarse)").matches;
    const chosen = (event: Event & { currentTarget: HTMLInputElement }): void => {
        stageFiles(timeline, [...(event.currentTarget.files ?? [])]);
        event.currentTarget.value = "";
    };
    const common = { type: "file", hidden: true, onChange: chosen } as const;
    const act = (action: () => void) => (): void => {
        setOpen(false);
        action();
    };
    return (
        <>
            <input ref={files} {...common} multiple aria-label={t("Files to send")} />
            {touch && (
                <>
                    <input ref={pictures} {...common} multiple accept={PICTURES} aria-label={t("Pictures and videos to send")} />
                    <input ref={camera} {...common} accept="image/*" capture="environment" aria-label={t("Picture from the camera")} />
                </>
            )}
            <IconButton icon="attach" label={touch ? t("Attach") : t("Attach a file")} onClick={() => (touch ? setOpen(true) : files.current?.click())} />
            {!touch && onPoll && <IconButton icon="poll" label={t("New poll")} onClick={onPoll} />}
            {open && (
                <AttachSheet onClose={() => setOpen(false)}>
                    <SheetItem icon="camera" label={t("Camera")} onClick={act(() => camera.current?.click())} />
                    <SheetItem icon="image" label={t("Pictures and videos")} onClick={act(() => pictures.current?.click())} />
                    <SheetItem icon="file" label={t("File")} onClick={act(() => files.current?.click())} />
                    {onPoll && <SheetItem icon="poll" label={t("New poll")} onClick={act(onPoll)} />}
                </AttachSheet>
            )}
        </>
    );
}

function AttachSheet({ onClose, children }: { onClose: () => void; children: ComponentChildren }): JSX.Element {
    const dialog = useModal();
    return (
        <dialog ref={dialog} class="menu attach-sheet" aria-label={t("Attach")} onClose={onClose} onClick={(event) => event.target === dialog.current && onClose()}>
            <div class="menu-body">{children}</div>
        </dialog>
    );
}

function SheetItem(props: { icon: IconName; label: string; onClick: () => void }): JSX.Element {
    return (
        <button type="button" class="menu-item" onClick={props.onClick}>
            <Icon name={props.icon} /> {props.label}
        </button>
    );
}

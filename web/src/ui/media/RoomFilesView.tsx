/** All that was sent to a room beside words: pictures and videos to go through, files and recordings to save and hear. */
import { computed } from "@preact/signals";
import type { JSX } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import type { Chat } from "../../domain/chat.ts";
import { isSeen, type MediaItem, type RoomFiles } from "../../domain/gallery.ts";
import { t } from "../../domain/i18n.ts";
import { isShown, type Media } from "../../domain/media.ts";
import { playTime } from "../../domain/waveform.ts";
import { FileRow } from "../AttachmentView.tsx";
import { Choice, Dialog, Icon, Spinner } from "../parts.tsx";
import { dayName } from "../time.ts";
import { Blur, usePreview } from "./Frame.tsx";
import { gallery } from "./gallery.ts";
import { Sound } from "./Sound.tsx";

type Kind = "seen" | "files" | "sounds";

const kindOf = ({ attachment }: MediaItem): Kind => (isSeen(attachment) ? "seen" : attachment.kind === "audio" && isShown(attachment.type) ? "sounds" : "files");

export function RoomFilesView({ chat, roomId, onClose }: { chat: Chat; roomId: string; onClose: () => void }): JSX.Element {
    const [files] = useState(() => chat.files(roomId));
    const [kind, setKind] = useState<Kind>("seen");
    useEffect(() => void files.load(), []);
    const shown = files.items.value.filter((item) => kindOf(item) === kind);
    return (
        <Dialog title={t("Pictures and files")} onClose={onClose}>
            <Choice label={t("Show")} value={kind} onChange={setKind} options={[["seen", t("Pictures")], ["files", t("Files")], ["sounds", t("Recordings")]]} />
            {shown.length > 0 && (
                <ul class={kind === "seen" ? "room-pictures" : "room-files"} aria-label={t("Pictures and files")}>
                    {shown.map((item) => (
                        <li key={item.key}>{kind === "seen" ? <Thumb item={item} files={files} media={chat.media} /> : <Row item={item} kind={kind} media={chat.media} />}</li>
                    ))}
                </ul>
            )}
            <More files={files} none={shown.length === 0} />
        </Dialog>
    );
}

function More({ files, none }: { files: RoomFiles; none: boolean }): JSX.Element | null {
    const state = files.state.value;
    if (state === "loading") {
        return (
            <p class="room-files-more">
                <Spinner label={t("Loading")} />
            </p>
        );
    }
    if (state === "none") return none ? <p class="hint room-files-more">{t("There is nothing of this kind here.")}</p> : null;
    return (
        <div class="room-files-more">
            {state === "failed" && <p class="hint">{t("Older messages could not be loaded.")}</p>}
            <button type="button" class="button small" onClick={() => void files.load()}>
                {state === "failed" ? t("Try again") : t("Look further back")}
            </button>
        </div>
    );
}

const SIDE = 120;

function Thumb({ item, files, media }: { item: MediaItem; files: RoomFiles; media: Media }): JSX.Element {
    const frame = useRef<HTMLButtonElement>(null);
    const { attachment } = item;
    const { url } = usePreview(frame, attachment, media, { width: SIDE, height: SIDE });
    const open = (): void => {
        const older = async (): Promise<boolean> => {
            await files.load();
            return files.state.value === "more";
        };
        // The newest stands first here; there the way goes from the oldest to the newest.
        gallery.value = { items: computed(() => files.items.value.filter((each) => isSeen(each.attachment)).toReversed()), key: item.key, older };
    };
    const length = attachment.durationMs ? playTime(attachment.durationMs) : "";
    const label = attachment.kind === "video" ? `${t("Play the video {name}", { name: attachment.name })} ${length}` : t("Open the picture {name}", { name: attachment.name });
    return (
        <button type="button" ref={frame} class="room-picture" aria-label={label} onClick={open}>
            {attachment.blurhash !== undefined && <Blur hash={attachment.blurhash} />}
            {url !== undefined && <img src={url} alt="" />}
            {attachment.kind === "video" && (
                <span class="picture-note">
                    <Icon name="play" /> {length}
                </span>
            )}
        </button>
    );
}

function Row({ item, kind, media }: { item: MediaItem; kind: Kind; media: Media }): JSX.Element {
    const { attachment } = item;
    return (
        <>
            {kind === "sounds" ? (
                <Sound name={attachment.waveform ? t("Voice message") : attachment.name} durationMs={attachment.durationMs} waveform={attachment.waveform} load={() => media.original(attachment)} />
            ) : (
                <FileRow attachment={attachment} media={media} />
            )}
            <span class="hint">{t("{name}, {day}", { name: item.senderName, day: dayName(item.ts) })}</span>
        </>
    );
}

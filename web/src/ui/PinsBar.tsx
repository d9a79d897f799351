/** Says that messages are pinned, and shows them. */
import type { JSX } from "preact";
import { useEffect, useState } from "preact/hooks";
import { t } from "../domain/i18n.ts";
import type { Pinned } from "../domain/pins.ts";
import type { Timeline } from "../domain/timeline.ts";
import { Dialog, Failure, Icon, IconButton, Spinner } from "./parts.tsx";
import { go } from "./route.ts";
import { exactTime } from "./time.ts";

export function PinsBar({ timeline }: { timeline: Timeline }): JSX.Element | null {
    const [open, setOpen] = useState(false);
    const count = timeline.pins.ids.value.length;
    if (count === 0) return null;
    return (
        <>
            <button type="button" class="pins-bar" onClick={() => setOpen(true)}>
                <Icon name="pin" /> {t("{count} pinned message|{count} pinned messages", { count })}
            </button>
            {open && <PinsDialog timeline={timeline} onClose={() => setOpen(false)} />}
        </>
    );
}

function PinsDialog({ timeline, onClose }: { timeline: Timeline; onClose: () => void }): JSX.Element {
    const { pins } = timeline;
    const [found, setFound] = useState<Pinned[]>();
    const [error, setError] = useState<string>();
    useEffect(() => void pins.load().then(setFound), [pins.ids.value]);
    return (
        <Dialog title={t("Pinned messages")} onClose={onClose}>
            {!found && <Spinner label={t("Loading")} />}
            {found?.length === 0 && <p class="hint">{t("None of them can be shown here.")}</p>}
            <ul class="pins">
                {found?.map(({ eventId, senderName, text, ts }) => (
                    <li key={eventId} class="pin">
                        <button
                            type="button"
                            class="pin-text"
                            onClick={() => {
                                onClose();
                                go({ page: "room", roomId: timeline.roomId, eventId }, true);
                            }}
                        >
                            <strong>{senderName}</strong> <span class="hint">{exactTime(ts)}</span>
                            <span class="pin-words">{text.slice(0, 300)}</span>
                        </button>
                        {pins.may && <IconButton icon="close" label={t("Unpin")} onClick={() => void pins.set(eventId, false).catch((failure: unknown) => setError((failure as Error).message))} />}
                    </li>
                ))}
            </ul>
            <Failure words={error} />
        </Dialog>
    );
}

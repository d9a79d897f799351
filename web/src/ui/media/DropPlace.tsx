/** A conversation onto which files can be dropped, and which says so while some are held over it. */
import type { ComponentChildren, JSX } from "preact";
import { useRef, useState } from "preact/hooks";
import { t } from "../../domain/i18n.ts";
import type { Timeline } from "../../domain/timeline.ts";
import { Icon } from "../parts.tsx";
import { stageFiles } from "./staged.ts";

export function DropPlace({ timeline, children }: { timeline: Timeline; children: ComponentChildren }): JSX.Element {
    const [over, setOver] = useState(false);
    /** Of the elements in it that the pointer is over: going from one to the next is no leaving. */
    const depth = useRef(0);
    const holdsFiles = (event: DragEvent): boolean => event.dataTransfer?.types.includes("Files") ?? false;
    const end = (): void => {
        depth.current = 0;
        setOver(false);
    };
    return (
        <div
            class="conversation drop-place"
            onDragEnter={(event) => {
                if (!holdsFiles(event)) return;
                event.preventDefault();
                depth.current++;
                setOver(true);
            }}
            onDragOver={(event) => holdsFiles(event) && event.preventDefault()}
            onDragLeave={(event) => {
                if (holdsFiles(event) && --depth.current <= 0) end();
            }}
            onDrop={(event) => {
                if (!holdsFiles(event)) return;
                event.preventDefault();
                end();
                stageFiles(timeline, [...(event.dataTransfer?.files ?? [])]);
            }}
        >
            {children}
            {over && (
                <div class="drop-note">
                    <p>
                        <Icon name="attach" /> {t("Drop files here to send them")}
                    </p>
                </div>
            )}
        </div>
    );
}

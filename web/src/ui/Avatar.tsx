/** The picture of a person or a room; a letter on a colour that belongs to the ID until there is one, and where there is none. */
import { createContext, type JSX } from "preact";
import { useContext, useEffect, useState } from "preact/hooks";
import type { Media } from "../domain/media.ts";

const COLOURS = 6;

/** Pictures are fetched with the session's token, and no `img` can do that by itself. */
export const Pictures = createContext<Media | undefined>(undefined);

export function Avatar({ id, name, picture, size = "m" }: { id: string; name: string; picture?: string | undefined; size?: "s" | "m" | "l" }): JSX.Element {
    const media = useContext(Pictures);
    const [shown, setShown] = useState<{ of: string; address: string }>();
    useEffect(() => {
        let current = true;
        if (picture !== undefined) media?.avatar(picture)?.then((address) => current && setShown({ of: picture, address }), () => undefined);
        return () => {
            current = false;
        };
    }, [media, picture]);
    const letter = [...name.replace(/^[@#!\s]+/, "")][0]?.toLocaleUpperCase() ?? "?";
    if (shown && shown.of === picture) return <img class={`avatar avatar-${size}`} src={shown.address} alt="" draggable={false} onError={() => setShown(undefined)} />;
    return (
        <span class={`avatar avatar-${size} tint-${colourOf(id)}`} aria-hidden="true">
            {letter}
        </span>
    );
}

export function colourOf(id: string): number {
    let hash = 0;
    for (const char of id) hash = (hash * 31 + char.codePointAt(0)!) >>> 0;
    return hash % COLOURS;
}

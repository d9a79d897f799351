/** What a link leads to, under the message that holds it. */
import type { JSX } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import type { Media } from "../domain/media.ts";
import type { Preview, Previews } from "../domain/previews.ts";

export function LinkPreview({ href, previews, media }: { href: string; previews: Previews; media: Media }): JSX.Element {
    const place = useRef<HTMLDivElement>(null);
    const [preview, setPreview] = useState<Preview>();
    const [picture, setPicture] = useState<string>();
    useEffect(() => {
        // Only what comes near the screen is asked for.
        const observer = new IntersectionObserver(
            (seen) => {
                if (!seen.some((each) => each.isIntersecting)) return;
                observer.disconnect();
                void previews.of(href).then(async (found) => {
                    setPreview(found);
                    if (found?.picture !== undefined) setPicture(await media.thumbnail(found.picture).catch(() => undefined));
                });
            },
            { rootMargin: "200px" },
        );
        observer.observe(place.current!);
        return () => observer.disconnect();
    }, [href]);
    return (
        <div ref={place} class="link-place">
            {preview && (
                <a class="link-preview" href={href} target="_blank" rel="noopener noreferrer">
                    {picture !== undefined && <img src={picture} alt="" />}
                    <span class="link-text">
                        <span class="hint">{preview.site}</span>
                        <strong>{preview.title}</strong>
                        {preview.description !== undefined && <span class="link-about">{preview.description}</span>}
                    </span>
                </a>
            )}
        </div>
    );
}

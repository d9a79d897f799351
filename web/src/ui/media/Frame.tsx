/**
 * The place of a picture: has its measures before the picture is there, so that nothing moves when it comes, and shows
 * its hash until then. The picture is fetched in the size in which it is shown, when it comes near the screen.
 */
import type { JSX } from "preact";
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import type { Attachment, Box, Media } from "../../domain/media.ts";

/** The measures in which a picture is shown, in CSS pixels. What says nothing of its shape gets a frame of its own. */
export function shownSize({ width, height }: Pick<Attachment, "width" | "height">, most: Box, least = 96): Box {
    if (!width || !height) return { width: most.width * 0.75, height: most.height * 0.75 };
    const scale = Math.min(1, most.width / width, most.height / height);
    return { width: Math.min(most.width, Math.max(least, Math.round(width * scale))), height: Math.min(most.height, Math.max(least / 2, Math.round(height * scale))) };
}

export type Loaded = { url?: string; failed?: boolean };

/** Fetches the preview once the element comes near the screen. */
export function usePreview(element: { current: HTMLElement | null }, attachment: Attachment, media: Media, size: Box): Loaded {
    const [loaded, setLoaded] = useState<Loaded>({});
    useEffect(() => {
        let gone = false;
        const show = (): void => {
            const sharp = Math.min(globalThis.devicePixelRatio || 1, 3);
            const loading = media.preview(attachment, { width: size.width * sharp, height: size.height * sharp });
            if (!loading) return setLoaded({ failed: true });
            loading.then(
                (url) => gone || setLoaded({ url }),
                () => gone || setLoaded({ failed: true }),
            );
        };
        const observer = new IntersectionObserver(
            (seen) => {
                if (!seen.some((each) => each.isIntersecting)) return;
                observer.disconnect();
                show();
            },
            { rootMargin: "400px" },
        );
        observer.observe(element.current!);
        return () => {
            gone = true;
            observer.disconnect();
        };
    }, [attachment.source.mxc]);
    return loaded;
}

/** Gives an element the measures, through the DOM: the page's policy lets no style stand in markup. */
export function useSize(element: { current: HTMLElement | null }, { width, height }: Box): void {
    useLayoutEffect(() => {
        const { style } = element.current!;
        style.width = `${width}px`;
        style.aspectRatio = `${width} / ${height}`;
    }, [width, height]);
}

/** Drawn under the picture; the picture covers it. */
export function Blur({ hash }: { hash: string }): JSX.Element {
    const canvas = useRef<HTMLCanvasElement>(null);
    useLayoutEffect(() => {
        let gone = false;
        void import("../../domain/blurhashes.ts").then(({ pixelsOf, SIDE }) => {
            const pixels = gone ? undefined : pixelsOf(hash);
            if (!pixels) return;
            canvas.current!.width = canvas.current!.height = SIDE;
            canvas.current!.getContext("2d")!.putImageData(new ImageData(pixels, SIDE, SIDE), 0, 0);
        }, () => undefined);
        return () => void (gone = true);
    }, [hash]);
    return <canvas ref={canvas} class="blur" width={1} height={1} aria-hidden="true" />;
}

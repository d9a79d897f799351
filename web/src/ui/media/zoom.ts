/** Makes a picture larger and moves it, by wheel, mouse, fingers and keys; while it is whole, swipes go on or close. */
import { useLayoutEffect, useRef } from "preact/hooks";

const LARGEST = 8;
const DOUBLE = 2.5;
const KEY_STEP = 1.5;
/** A swipe is at least this long, in CSS pixels. */
const SWIPE = 56;

interface View {
    scale: number;
    x: number;
    y: number;
}

interface Element {
    current: HTMLElement | null;
}

export interface Handlers {
    onPointerDown(event: PointerEvent): void;
    onPointerMove(event: PointerEvent): void;
    onPointerUp(event: PointerEvent): void;
    onPointerCancel(event: PointerEvent): void;
    onDblClick(event: MouseEvent): void;
    onClick(event: MouseEvent): void;
}

export function useZoom(stage: Element, picture: Element, { onStep, onClose }: { onStep: (step: number) => void; onClose: () => void }): Handlers {
    const view = useRef<View>({ scale: 1, x: 0, y: 0 });
    const pointers = useRef(new Map<number, { x: number; y: number }>());
    const start = useRef({ x: 0, y: 0 });
    const moved = useRef(false);
    const apply = (next: View): void => {
        const scale = Math.min(LARGEST, Math.max(1, next.scale));
        const { clientWidth, clientHeight } = stage.current!;
        // It cannot be pushed out of sight.
        const hold = (value: number, side: number): number => Math.min(Math.max(value, (-side * (scale - 1)) / 2), (side * (scale - 1)) / 2);
        view.current = scale === 1 ? { scale, x: 0, y: 0 } : { scale, x: hold(next.x, clientWidth), y: hold(next.y, clientHeight) };
        if (picture.current) picture.current.style.transform = `translate(${view.current.x}px, ${view.current.y}px) scale(${scale})`;
        stage.current!.classList.toggle("zoomed", scale > 1);
    };
    /** What is under that point stays under it. */
    const zoomAt = (factor: number, clientX?: number, clientY?: number): void => {
        const { left, top, width, height } = stage.current!.getBoundingClientRect();
        const [px, py] = [(clientX ?? left + width / 2) - left - width / 2, (clientY ?? top + height / 2) - top - height / 2];
        const { scale, x, y } = view.current;
        const to = Math.min(LARGEST, Math.max(1, scale * factor));
        apply({ scale: to, x: px - ((px - x) * to) / scale, y: py - ((py - y) * to) / scale });
    };
    // As soon as the picture can be seen: an effect would wait until it was drawn, and a key that is pressed before is lost.
    useLayoutEffect(() => {
        const box = stage.current!;
        const wheel = (event: WheelEvent): void => {
            event.preventDefault(); // which a handler of the framework, being passive, could not
            zoomAt(Math.exp(-event.deltaY / 300), event.clientX, event.clientY);
        };
        const keys = (event: KeyboardEvent): void => {
            if (event.key === "+" || event.key === "=") zoomAt(KEY_STEP);
            else if (event.key === "-") zoomAt(1 / KEY_STEP);
            else if (event.key === "0") apply({ scale: 1, x: 0, y: 0 });
        };
        box.addEventListener("wheel", wheel, { passive: false });
        addEventListener("keydown", keys);
        return () => {
            box.removeEventListener("wheel", wheel);
            removeEventListener("keydown", keys);
        };
    }, []);
    const spread = (): { distance: number; x: number; y: number } => {
        const [a, b] = [...pointers.current.values()];
        return { distance: Math.hypot(a!.x - b!.x, a!.y - b!.y), x: (a!.x + b!.x) / 2, y: (a!.y + b!.y) / 2 };
    };
    const end = (event: PointerEvent, counts: boolean): void => {
        const alone = pointers.current.size === 1;
        if (!pointers.current.delete(event.pointerId) || !alone || view.current.scale > 1 || !counts) return;
        const [dx, dy] = [event.clientX - start.current.x, event.clientY - start.current.y];
        if (event.pointerType === "mouse") return;
        if (Math.abs(dx) > SWIPE && Math.abs(dx) > Math.abs(dy)) {
            const rtl = getComputedStyle(stage.current!).direction === "rtl";
            onStep(dx < 0 !== rtl ? 1 : -1);
        } else if (dy > SWIPE * 1.5) onClose();
    };
    return {
        onPointerDown(event) {
            if (event.button !== 0) return;
            stage.current!.setPointerCapture(event.pointerId);
            pointers.current.set(event.pointerId, { x: event.clientX, y: event.clientY });
            start.current = { x: event.clientX, y: event.clientY };
            moved.current = pointers.current.size > 1;
        },
        onPointerMove(event) {
            const before = pointers.current.get(event.pointerId);
            if (!before) return;
            const now = { x: event.clientX, y: event.clientY };
            if (Math.hypot(now.x - start.current.x, now.y - start.current.y) > 4) moved.current = true;
            if (pointers.current.size === 2) {
                const old = spread();
                pointers.current.set(event.pointerId, now);
                const { distance, x, y } = spread();
                return zoomAt(distance / Math.max(1, old.distance), x, y);
            }
            pointers.current.set(event.pointerId, now);
            const { scale, x, y } = view.current;
            if (scale > 1) apply({ scale, x: x + now.x - before.x, y: y + now.y - before.y });
        },
        onPointerUp: (event) => end(event, true),
        onPointerCancel: (event) => end(event, false),
        onDblClick: (event) => (view.current.scale > 1 ? apply({ scale: 1, x: 0, y: 0 }) : zoomAt(DOUBLE, event.clientX, event.clientY)),
        onClick(event) {
            // Beside the picture.
            const box = picture.current?.getBoundingClientRect();
            const beside = box && (event.clientX < box.left || event.clientX > box.right || event.clientY < box.top || event.clientY > box.bottom);
            if (!moved.current && beside) onClose();
        },
    };
}

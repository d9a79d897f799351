/** Screens that few people need at once: their code is loaded when they are first opened. */
import type { ComponentType, JSX } from "preact";
import { useEffect, useState } from "preact/hooks";
import { t } from "../domain/i18n.ts";
import { Dialog, Spinner } from "./parts.tsx";

/**
 * A component that is loaded when it is first shown. In `build.ts` its file stands among those that come later. What is
 * no dialog itself is loaded `quietly`: nothing stands in its place until it is there.
 */
export function later<P extends object>(load: () => Promise<ComponentType<P>>, quietly = false): (props: P & { onClose?: () => void }) => JSX.Element | null {
    let Loaded: ComponentType<P> | undefined;
    return function Later(props) {
        const [state, setState] = useState<"loading" | "here" | "failed">(Loaded ? "here" : "loading");
        useEffect(() => {
            if (Loaded) return;
            load().then(
                (component) => {
                    Loaded = component;
                    setState("here");
                },
                () => setState("failed"),
            );
        }, []);
        if (state === "here" && Loaded) return <Loaded {...props} />;
        if (quietly && state === "loading") return null;
        return (
            <Dialog title={t("One moment")} onClose={props.onClose ?? (() => undefined)}>
                {state === "failed" ? <p class="error">{t("The server cannot be reached. Check your connection.")}</p> : <Spinner label={t("Working")} />}
            </Dialog>
        );
    };
}

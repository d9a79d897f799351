/** Installs the service worker, which keeps the app's own files for when there is no network, and asks before a new build takes over. */
import type { ToWorker } from "../store/notes.ts";

interface Policies {
    createPolicy(name: string, rules: { createScriptURL: (url: string) => string }): { createScriptURL(url: string): string };
}

/** How often an open page asks whether there is a new build. */
const LOOK_EVERY_MS = 60 * 60_000;

/** `offer` is given the way to a newer build, once it is here. */
export async function registerWorker(offer: (take: () => void) => void): Promise<void> {
    if (!import.meta.env.PROD || !("serviceWorker" in navigator)) return;
    // The page's policy asks for trusted addresses of scripts. This policy knows one address.
    const { trustedTypes } = globalThis as { trustedTypes?: Policies };
    const url = trustedTypes?.createPolicy("hubbub-worker", { createScriptURL: () => "/sw.js" }).createScriptURL("") ?? "/sw.js";
    const registration = await navigator.serviceWorker.register(url, { scope: "/" }).catch(() => undefined); // the app works without
    if (!registration) return;
    const look = (): void => void ready(registration.waiting, offer);
    look();
    registration.addEventListener("updatefound", () => registration.installing?.addEventListener("statechange", look));
    const again = (): void => void registration.update().catch(() => undefined);
    setInterval(again, LOOK_EVERY_MS);
    document.addEventListener("visibilitychange", () => document.visibilityState === "visible" && again());
}

/** A worker that waits, while another one serves the page. */
async function ready(waiting: ServiceWorker | null, offer: (take: () => void) => void): Promise<void> {
    if (!waiting || !navigator.serviceWorker.controller) return;
    const skip: ToWorker = { type: "skip" };
    if (await holdsThisPage(waiting)) return waiting.postMessage(skip); // the page is of that build already
    offer(() => {
        navigator.serviceWorker.addEventListener("controllerchange", () => location.reload(), { once: true });
        waiting.postMessage(skip);
    });
}

/** Whether the script that this page began with is of a worker's build. */
function holdsThisPage(worker: ServiceWorker): Promise<boolean> {
    const own = document.querySelector<HTMLScriptElement>('script[type="module"]')?.getAttribute("src");
    return new Promise((resolve) => {
        const { port1, port2 } = new MessageChannel();
        port1.onmessage = (event: MessageEvent<unknown>) => resolve(Array.isArray(event.data) && event.data.includes(own));
        const ask: ToWorker = { type: "files" };
        worker.postMessage(ask, [port2]);
    });
}

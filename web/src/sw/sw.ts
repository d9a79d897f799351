/**
 * The service worker: keeps the app's own files, so that it opens without a network. Rooms and messages are kept by the
 * app itself. Nothing of the API passes through here, and no message or token is ever in its cache.
 */
import { keptUnder, type Manifest, routeOf } from "./rules.ts";

/** Put in by build.ts: the files of this build, and a name for all of them. */
declare const __FILES__: Manifest;

interface WorkerScope {
    origin: string;
    clients: { claim(): Promise<void> };
    skipWaiting(): Promise<void>;
    addEventListener(type: "install" | "activate", listener: (event: { waitUntil(done: Promise<unknown>): void }) => void): void;
    addEventListener(type: "fetch", listener: (event: { request: Request; respondWith(answer: Promise<Response>): void }) => void): void;
}

const scope = globalThis as unknown as WorkerScope;
const { name, shell, later } = __FILES__;
/** How long the network may take to give the page before the kept one is shown. */
const PAGE_WAIT_MS = 3_000;

scope.addEventListener("install", (event) => {
    const fill = async (): Promise<void> => {
        const cache = await caches.open(name);
        await cache.addAll(["/", ...shell]);
        await scope.skipWaiting(); // files are named by their content: an open page goes on with its own
    };
    event.waitUntil(fill());
});

scope.addEventListener("activate", (event) => {
    const tidy = async (): Promise<void> => {
        await scope.clients.claim();
        // The build before this one is kept for pages that are still open.
        const others = (await caches.keys()).filter((key) => key !== name);
        await Promise.all(keptUnder(others).map((key) => caches.delete(key)));
        const cache = await caches.open(name);
        await cache.addAll(later).catch(() => undefined); // a file that is missing is fetched when it is asked for
    };
    event.waitUntil(tidy());
});

scope.addEventListener("fetch", (event) => {
    const { request } = event;
    const way = routeOf(request.method, new URL(request.url), scope.origin, request.mode === "navigate");
    if (way === "page") event.respondWith(page(request));
    else if (way === "file") event.respondWith(file(request));
});

async function page(request: Request): Promise<Response> {
    const cache = await caches.open(name);
    const kept = await cache.match("/");
    if (!kept) return fetch(request);
    const late = new Promise<Response>((resolve) => setTimeout(() => resolve(kept), PAGE_WAIT_MS));
    return Promise.race([fetch(request).then((answer) => (answer.ok ? answer : kept), () => kept), late]);
}

async function file(request: Request): Promise<Response> {
    const kept = await caches.match(request);
    if (kept) return kept;
    const answer = await fetch(request);
    if (answer.ok) {
        const copy = answer.clone();
        void caches.open(name).then((cache) => cache.put(request, copy)).catch(() => undefined);
    }
    return answer;
}

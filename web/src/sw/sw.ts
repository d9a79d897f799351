/**
 * The service worker: keeps the app's own files, so that it opens without a network, and tells of messages when no page
 * is looked at (push.ts). Rooms and messages are kept by the app itself. What a page asks of the API does not pass
 * through here, and no message or token is ever in its cache.
 */
import type { ToWorker } from "../store/notes.ts";
import { dataOf, environmentOf, type WorkerScope } from "./browser.ts";
import { Push } from "./push.ts";
import { keptUnder, type Manifest, routeOf } from "./rules.ts";

/** Put in by build.ts: the files of this build, and a name for all of them. */
declare const __FILES__: Manifest;

interface Scope extends WorkerScope {
    origin: string;
    addEventListener(type: "install" | "activate" | "pushsubscriptionchange", listener: (event: Waiting) => void): void;
    addEventListener(type: "fetch", listener: (event: { request: Request; respondWith(answer: Promise<Response>): void }) => void): void;
    addEventListener(type: "push", listener: (event: Waiting & { data: { json(): unknown } | null }) => void): void;
    addEventListener(type: "notificationclick", listener: (event: Waiting & { notification: Notification; action: string; reply?: string | null }) => void): void;
    addEventListener(type: "message", listener: (event: Waiting & { data: ToWorker; ports: readonly MessagePort[] }) => void): void;
}

interface Waiting {
    waitUntil(done: Promise<unknown>): void;
}

const scope = globalThis as unknown as Scope;
const { name, shell, later } = __FILES__;
const push = new Push(environmentOf(scope));
/** How long the network may take to give the page before the kept one is shown. */
const PAGE_WAIT_MS = 3_000;

scope.addEventListener("install", (event) => {
    const fill = async (): Promise<void> => {
        const cache = await caches.open(name);
        await cache.addAll(["/", ...shell]); // then it waits until the page says so, or none is open
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

/** Where there is a new build, a page asks which files are in it, and says when it may take over. */
scope.addEventListener("message", (event) => {
    if (event.data.type === "files") event.ports[0]?.postMessage(shell);
    else if (event.data.type === "skip") event.waitUntil(scope.skipWaiting());
});

scope.addEventListener("push", (event) => {
    const read = (): unknown => {
        try {
            return event.data?.json();
        } catch {
            return undefined;
        }
    };
    event.waitUntil(push.pushed(read()));
});

scope.addEventListener("notificationclick", (event) => {
    event.notification.close();
    const data = dataOf(event.notification);
    if (data) event.waitUntil(push.pressed(event.action, data.roomId, data.eventId, event.reply ?? null));
});

scope.addEventListener("pushsubscriptionchange", (event) => event.waitUntil(push.renew()));

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

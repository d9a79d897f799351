/** What push.ts asks of the browser. */
import { IndexedDBKeyValue } from "../store/idb.ts";
import { keysOf, type ToPage } from "../store/notes.ts";
import type { Page, Shown, Showing, WorkerEnvironment } from "./push.ts";

/** The parts of the worker's scope that the page's types do not have. */
export interface WorkerScope {
    registration: ServiceWorkerRegistration;
    clients: {
        claim(): Promise<void>;
        matchAll(options: { type: "window"; includeUncontrolled: boolean }): Promise<WindowClient[]>;
        openWindow(url: string): Promise<unknown>;
    };
    skipWaiting(): Promise<void>;
}

interface WindowClient {
    focused: boolean;
    visibilityState: string;
    postMessage(message: unknown, ports?: MessagePort[]): void;
    focus(): Promise<unknown>;
}

/** How long a page may take to say what a message is; it may still have to come and be decrypted. */
const DESCRIBE_MS = 4_000;

/** Options of notifications that the types of the page leave out. */
interface FullOptions extends NotificationOptions {
    actions: { action: string; title: string; type?: "button" | "text"; placeholder?: string }[];
    renotify: boolean;
    timestamp: number;
}

export function environmentOf(scope: WorkerScope): WorkerEnvironment {
    return {
        kv: new IndexedDBKeyValue(indexedDB),
        fetch: (input, init) => fetch(input, init),
        now: () => new Date(),
        pages: async () => (await scope.clients.matchAll({ type: "window", includeUncontrolled: true })).map(pageOf),
        openPage: async (path) => void (await scope.clients.openWindow(path).catch(() => undefined)), // allowed after a press alone
        shown: async () => (await scope.registration.getNotifications()).flatMap(shownOf),
        show: (showing) => scope.registration.showNotification(showing.title, optionsOf(showing)),
        badge: (unread) => setBadge(unread),
        subscribe: async (vapid) => keysOf(await scope.registration.pushManager.subscribe({ userVisibleOnly: true, applicationServerKey: vapid })),
    };
}

function pageOf(client: WindowClient): Page {
    return {
        focused: client.focused && client.visibilityState === "visible",
        ask: (question) =>
            new Promise((resolve) => {
                const { port1, port2 } = new MessageChannel();
                const timer = setTimeout(() => resolve(undefined), DESCRIBE_MS);
                port1.onmessage = (event: MessageEvent<unknown>) => {
                    clearTimeout(timer);
                    resolve(event.data);
                };
                client.postMessage(question, [port2]);
            }),
        tell: (message: ToPage) => client.postMessage(message),
        focus: async () => void (await client.focus().catch(() => undefined)), // the browser wants a press for it
    };
}

interface NotedData {
    roomId: string;
    eventId: string;
}

export function dataOf(notification: Notification): NotedData | undefined {
    const data = notification.data as Partial<NotedData> | null;
    return typeof data?.roomId === "string" && typeof data.eventId === "string" ? { roomId: data.roomId, eventId: data.eventId } : undefined;
}

function shownOf(notification: Notification): Shown[] {
    const data = dataOf(notification);
    return data ? [{ ...data, close: () => notification.close() }] : [];
}

function optionsOf({ body, roomId, eventId, silent, again, words }: Showing): FullOptions {
    return {
        body,
        tag: roomId, // the newest of a room replaces the one before
        renotify: again,
        silent,
        icon: "/icon-192.png",
        badge: "/badge.png",
        lang: words.lang,
        dir: words.dir,
        data: { roomId, eventId } satisfies NotedData,
        timestamp: Date.now(),
        actions: [
            { action: "reply", type: "text", title: words.reply, placeholder: words.replyHint },
            { action: "read", title: words.read },
        ],
    };
}

/** Also in the service worker, where the browser has it. */
async function setBadge(unread: number): Promise<void> {
    const { navigator } = globalThis as { navigator?: { setAppBadge?: (count: number) => Promise<void> } };
    await navigator?.setAppBadge?.(unread).catch(() => undefined);
}

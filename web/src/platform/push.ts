/** The browser's part of notifications (domain/notifications.ts), and the number of what is unread on the app's icon. */
import type { PushBrowser } from "../domain/notifications.ts";
import { keysOf, type ToPage } from "../store/notes.ts";
import { deviceName } from "./devicename.ts";

const supported = (): boolean => "serviceWorker" in navigator && "PushManager" in globalThis && "Notification" in globalThis && import.meta.env.PROD;

/** Chromium and its kin; the others end a subscription that shows nothing. */
const numbersAlone = (): boolean => "userAgentData" in navigator;

const registration = (): Promise<ServiceWorkerRegistration> => navigator.serviceWorker.ready;

export function pushBrowser(open: (roomId: string) => void): PushBrowser {
    return {
        supported: supported(),
        numbersAlone: numbersAlone(),
        deviceName: deviceName(navigator.userAgent),
        permission: () => Notification.permission,
        ask: () => Notification.requestPermission(),
        async subscription() {
            const subscription = await (await registration()).pushManager.getSubscription();
            return subscription ? keysOf(subscription) : undefined;
        },
        subscribe: async (vapid) => keysOf(await (await registration()).pushManager.subscribe({ userVisibleOnly: true, applicationServerKey: vapid })),
        unsubscribe: async () => void (await (await (await registration()).pushManager.getSubscription())?.unsubscribe()),
        listen(handle) {
            const hear = (event: MessageEvent<ToPage>): void => void handle(event.data).then((answer) => event.ports[0]?.postMessage(answer));
            navigator.serviceWorker.addEventListener("message", hear);
            navigator.serviceWorker.startMessages();
            return () => navigator.serviceWorker.removeEventListener("message", hear);
        },
        async close(roomIds) {
            const shown = await (await registration()).getNotifications();
            for (const each of shown) if (roomIds.has(each.tag)) each.close();
        },
        open(roomId) {
            window.focus();
            open(roomId);
        },
    };
}

const ICONS = { none: "/favicon.svg", some: "/favicon-unread.svg" };

/** On the icon of the installed app and on that of the tab. */
export function showUnread(unread: number): void {
    const { setAppBadge } = navigator as { setAppBadge?: (count: number) => Promise<void> };
    setAppBadge?.call(navigator, unread).catch(() => undefined);
    const icon = document.querySelector<HTMLLinkElement>("link[rel=icon]");
    const wanted = unread > 0 ? ICONS.some : ICONS.none;
    if (icon && icon.getAttribute("href") !== wanted) icon.setAttribute("href", wanted);
}

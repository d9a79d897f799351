/** Where in the app the reader is, as the part of the address after `#`, so that "back" works on a phone. */
import { signal } from "@preact/signals";

export type Route = { page: "rooms" } | { page: "room"; roomId: string; eventId?: string; thread?: string } | { page: "signup"; token: string } | { page: "signin" } | { page: "new" };

export function parseRoute(hash: string): Route {
    const [path = "", query = ""] = hash.replace(/^#/, "").split("?", 2);
    const [, page, id] = path.split("/");
    if (page === "room" && id) {
        try {
            const asked = new URLSearchParams(query);
            const [eventId, thread] = [asked.get("event"), asked.get("thread")];
            return { page: "room", roomId: decodeURIComponent(id), ...(eventId === null ? {} : { eventId }), ...(thread === null ? {} : { thread }) };
        } catch {
            return { page: "rooms" };
        }
    }
    if (page === "signup") return { page: "signup", token: new URLSearchParams(query).get("token") ?? "" };
    if (page === "signin") return { page: "signin" };
    if (page === "new") return { page: "new" };
    return { page: "rooms" };
}

export function formatRoute(route: Route): string {
    if (route.page === "room") {
        const asked = new URLSearchParams({ ...(route.eventId === undefined ? {} : { event: route.eventId }), ...(route.thread === undefined ? {} : { thread: route.thread }) }).toString();
        return `#/room/${encodeURIComponent(route.roomId)}${asked === "" ? "" : `?${asked}`}`;
    }
    if (route.page === "signup") return "#/signup";
    if (route.page === "new") return "#/new";
    return route.page === "signin" ? "#/signin" : "#/";
}

export const route = signal<Route>({ page: "rooms" });

export function watchRoute(): void {
    const read = (): void => {
        route.value = parseRoute(location.hash);
    };
    window.addEventListener("hashchange", read);
    read();
}

/** Goes to another place; `replace` where "back" must not lead here again. */
export function go(to: Route, replace = false): void {
    if (replace) history.replaceState(null, "", formatRoute(to));
    else if (location.hash !== formatRoute(to)) history.pushState(null, "", formatRoute(to));
    route.value = to;
}

/** What the service worker answers, and what it leaves alone. */

export interface Manifest {
    name: string;
    /** What the first screen needs. */
    shell: string[];
    /** What comes after it: encryption, languages. */
    later: string[];
}

export type Way = "page" | "file" | "network";

/** Files of the build and the page itself may be kept; the API never is, nor anything of another host. */
export function routeOf(method: string, url: URL, origin: string, navigation: boolean): Way {
    if (method !== "GET" || url.origin !== origin || url.pathname.startsWith("/_") || url.pathname === "/sw.js") return "network";
    if (navigation) return url.pathname.startsWith("/.well-known/") ? "network" : "page";
    return /^\/assets\/[^/]+$/.test(url.pathname) || /^\/[a-z0-9-]+\.(svg|png|webmanifest)$/.test(url.pathname) ? "file" : "network";
}

const OWN = "hubbub-files-";

/** Of the caches of other builds, those to throw away: all but the newest. Names end in the time of the build. */
export function keptUnder(names: readonly string[]): string[] {
    return names.filter((name) => name.startsWith(OWN)).sort().slice(0, -1);
}

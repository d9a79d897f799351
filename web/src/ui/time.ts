/** Times as people say them, in the language of the app, in the browser's form of it. */

import { language, t } from "../domain/i18n.ts";

const FORMS = {
    clock: { hour: "2-digit", minute: "2-digit" },
    weekday: { weekday: "long" },
    shortWeekday: { weekday: "short" },
    dayMonth: { day: "numeric", month: "long" },
    shortDate: { day: "numeric", month: "short" },
    fullDate: { day: "numeric", month: "long", year: "numeric" },
    exact: { dateStyle: "full", timeStyle: "short" },
} as const satisfies Record<string, Intl.DateTimeFormatOptions>;

const made = new Map<string, Intl.DateTimeFormat>();

function format(form: keyof typeof FORMS, ts: number): string {
    const tongue = language.value;
    const key = `${tongue} ${form}`;
    let known = made.get(key);
    if (!known) {
        // British and American English write times differently: the browser knows which is meant.
        const own = globalThis.navigator?.languages?.find((tag) => tag.toLowerCase().split("-")[0] === tongue);
        made.set(key, (known = new Intl.DateTimeFormat(own ?? tongue, FORMS[form])));
    }
    return known.format(ts);
}

const DAY_MS = 86_400_000;

function daysAgo(ts: number, now: number): number {
    const midnight = (t: number): number => new Date(t).setHours(0, 0, 0, 0);
    return Math.round((midnight(now) - midnight(ts)) / DAY_MS);
}

export function clockTime(ts: number): string {
    return format("clock", ts);
}

export function exactTime(ts: number): string {
    return format("exact", ts);
}

/** For the line above a day's messages. */
export function dayName(ts: number, now = Date.now()): string {
    const ago = daysAgo(ts, now);
    if (ago === 0) return t("Today");
    if (ago === 1) return t("Yesterday");
    if (ago > 1 && ago < 7) return format("weekday", ts);
    return new Date(ts).getFullYear() === new Date(now).getFullYear() ? format("dayMonth", ts) : format("fullDate", ts);
}

/** For the room list, where there is little room. */
export function listTime(ts: number, now = Date.now()): string {
    if (ts === 0) return "";
    const ago = daysAgo(ts, now);
    if (ago <= 0) return format("clock", ts);
    return ago < 7 ? format("shortWeekday", ts) : format("shortDate", ts);
}

/** Times as people say them, in the language of the app. */

import { formatter, language } from "../domain/i18n.ts";

const FORMS = {
    clock: { hour: "2-digit", minute: "2-digit" },
    weekday: { weekday: "long" },
    shortWeekday: { weekday: "short" },
    dayMonth: { day: "numeric", month: "long" },
    shortDate: { day: "numeric", month: "short" },
    fullDate: { day: "numeric", month: "long", year: "numeric" },
    exact: { dateStyle: "full", timeStyle: "short" },
} as const satisfies Record<string, Intl.DateTimeFormatOptions>;

function format(form: keyof typeof FORMS, ts: number): string {
    return formatter(`time ${form}`, (locale) => new Intl.DateTimeFormat(locale, FORMS[form])).format(ts);
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

/** "Today" and "Yesterday"; they begin a line. */
function near(days: number): string {
    const words = formatter("near", (locale) => new Intl.RelativeTimeFormat(locale, { numeric: "auto" })).format(-days, "day");
    return words.charAt(0).toLocaleUpperCase(language.value) + words.slice(1);
}

/** For the line above a day's messages. */
export function dayName(ts: number, now = Date.now()): string {
    const ago = daysAgo(ts, now);
    if (ago === 0 || ago === 1) return near(ago);
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

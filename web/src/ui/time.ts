/** Times as people say them, in the language of the browser. */

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const weekday = new Intl.DateTimeFormat(undefined, { weekday: "long" });
const shortWeekday = new Intl.DateTimeFormat(undefined, { weekday: "short" });
const dayMonth = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "long" });
const shortDate = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short" });
const fullDate = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "long", year: "numeric" });
const exact = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "short" });

const DAY_MS = 86_400_000;

function daysAgo(ts: number, now: number): number {
    const midnight = (t: number): number => new Date(t).setHours(0, 0, 0, 0);
    return Math.round((midnight(now) - midnight(ts)) / DAY_MS);
}

export function clockTime(ts: number): string {
    return clock.format(ts);
}

export function exactTime(ts: number): string {
    return exact.format(ts);
}

/** For the line above a day's messages. */
export function dayName(ts: number, now = Date.now()): string {
    const ago = daysAgo(ts, now);
    if (ago === 0) return "Today";
    if (ago === 1) return "Yesterday";
    if (ago > 1 && ago < 7) return weekday.format(ts);
    return new Date(ts).getFullYear() === new Date(now).getFullYear() ? dayMonth.format(ts) : fullDate.format(ts);
}

/** For the room list, where there is little room. */
export function listTime(ts: number, now = Date.now()): string {
    if (ts === 0) return "";
    const ago = daysAgo(ts, now);
    if (ago <= 0) return clock.format(ts);
    return ago < 7 ? shortWeekday.format(ts) : shortDate.format(ts);
}

/** Whether somebody is there, in a word or as a dot. */
import type { JSX } from "preact";
import type { Chat } from "../domain/chat.ts";
import { t } from "../domain/i18n.ts";
import { listTime } from "./time.ts";

const HOUR_MS = 3_600_000;
const MINUTE_MS = 60_000;

/** Nothing where the server does not tell. */
export function presenceWords(chat: Chat, userId: string, now = Date.now()): string | undefined {
    const { state, seen } = chat.presence.of(userId).value;
    if (state === "online") return t("Online");
    if (state === "unknown" || seen === 0) return undefined;
    const ago = now - seen;
    if (ago < MINUTE_MS) return t("Here a moment ago");
    return ago < HOUR_MS ? t("Here {count} minute ago|Here {count} minutes ago", { count: Math.floor(ago / MINUTE_MS) }) : t("Last here: {time}", { time: listTime(seen) });
}

export function PresenceDot({ chat, userId }: { chat: Chat; userId: string | undefined }): JSX.Element | null {
    if (userId === undefined || chat.presence.of(userId).value.state !== "online") return null;
    return <span class="presence-dot" role="img" aria-label={t("Online")} />;
}

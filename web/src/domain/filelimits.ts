/** How large files may be, and sizes in words. */
import { number, t } from "./i18n.ts";

/** Words for a file that the server would not take; nothing if it fits, or if the server does not say. */
export function tooLarge(bytes: number, limit: number | undefined): string | undefined {
    return limit === undefined || bytes <= limit ? undefined : t("Too large: {size}, and this server takes up to {limit}.", { size: sizeText(bytes), limit: sizeText(limit) });
}

export function sizeText(bytes: number | undefined): string {
    if (bytes === undefined) return "";
    const format = (value: number, unit: string): string => number(value, { style: "unit", unit, unitDisplay: "short", maximumFractionDigits: value < 10 ? 1 : 0 });
    if (bytes < 1e6) return format(Math.max(0.1, bytes / 1e3), "kilobyte");
    return bytes < 1e9 ? format(bytes / 1e6, "megabyte") : format(bytes / 1e9, "gigabyte");
}

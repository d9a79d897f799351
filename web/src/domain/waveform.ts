/** How loud a recording is over its time, as it travels with a voice message and as it is drawn. Pure. */

/** The loudest there is. spec: MSC1767 (extensible events), audio, `waveform` */
export const LOUDEST = 1024;
/** Values that travel. MSC3245 wants between 30 and 120. */
const SENT = 100;
/** More than this is not read of a message. */
const MAX_READ = 4096;

/** What is sent, from levels between 0 and 1 that were taken at even times. Whispers are drawn as high as shouts. */
export function waveformOf(levels: readonly number[]): number[] {
    const peak = Math.max(0.02, ...levels); // silence stays silence
    return resample(levels, Math.min(SENT, Math.max(1, levels.length))).map((level) => Math.round(Math.min(1, Math.max(0, level / peak)) * LOUDEST));
}

/** The waveform that a message's content holds, if it is one. */
export function waveformIn(value: unknown): number[] | undefined {
    if (!Array.isArray(value) || value.length === 0 || value.length > MAX_READ) return undefined;
    return value.every((each) => typeof each === "number" && Number.isFinite(each)) ? (value as number[]).map((each) => Math.min(LOUDEST, Math.max(0, each))) : undefined;
}

/** So many values, each the loudest of its stretch, or those between where there are too few. */
export function resample(values: readonly number[], count: number): number[] {
    if (values.length === 0) return new Array<number>(count).fill(0);
    return Array.from({ length: count }, (_, i) => {
        const from = Math.floor((i * values.length) / count);
        const to = Math.max(from + 1, Math.floor(((i + 1) * values.length) / count));
        return Math.max(...values.slice(from, to));
    });
}

/** A time as players show it: 0:05, 12:40, 1:02:03. */
export function playTime(ms: number): string {
    const seconds = Math.max(0, Math.round(ms / 1000));
    const [hours, minutes, rest] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60, seconds % 60];
    const two = (value: number): string => String(value).padStart(2, "0");
    return hours > 0 ? `${hours}:${two(minutes)}:${two(rest)}` : `${minutes}:${two(rest)}`;
}

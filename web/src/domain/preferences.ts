/** What a person likes. The first screen needs this before there is an account; preferencestore.ts keeps it in the account. */
import { minutesOf } from "../store/notes.ts";
import { LANGUAGES, type Language } from "./i18n.ts";

export const ACCENTS = ["green", "blue", "violet", "rose", "amber"] as const;
export type Accent = (typeof ACCENTS)[number];

export interface Preferences {
    theme: "system" | "light" | "dark";
    /** The one colour that is not grey. */
    accent: Accent;
    density: "comfortable" | "compact";
    /** As the browser asks for, or always the same. */
    language: "system" | Language;
    /** In which rooms the server is asked what links lead to; it reads nothing else of an encrypted room. */
    previews: "open" | "all" | "none";
    /** Hours of the day, of each device, in which notifications make no sound. */
    quiet: { on: boolean; from: string; to: string };
    /** Keys that work everywhere in the app (shortcuts.ts): other programs may want them. */
    shortcuts: "on" | "off";
}

export const DEFAULTS: Preferences = { theme: "system", accent: "green", density: "comfortable", language: "system", previews: "open", quiet: { on: false, from: "22:00", to: "07:00" }, shortcuts: "on" };
export const PREFERENCES_TYPE = "chat.hubbub.preferences";

/** Preferences in account data that may hold anything; what is not understood is as if it were not said. */
export function readPreferences(content: unknown): Preferences {
    const given = (typeof content === "object" && content !== null ? content : {}) as Record<string, unknown>;
    const pick = <T extends string>(value: unknown, allowed: readonly T[], otherwise: T): T => allowed.find((each) => each === value) ?? otherwise;
    return {
        theme: pick(given.theme, ["system", "light", "dark"], DEFAULTS.theme),
        accent: pick(given.accent, ACCENTS, DEFAULTS.accent),
        density: pick(given.density, ["comfortable", "compact"], DEFAULTS.density),
        language: pick(given.language, ["system", ...LANGUAGES.map(([id]) => id)], DEFAULTS.language),
        previews: pick(given.previews, ["open", "all", "none"], DEFAULTS.previews),
        quiet: readQuiet(given.quiet),
        shortcuts: pick(given.shortcuts, ["on", "off"], DEFAULTS.shortcuts),
    };
}

function readQuiet(given: unknown): Preferences["quiet"] {
    const { on, from, to } = (typeof given === "object" && given !== null ? given : {}) as Record<string, unknown>;
    const time = (value: unknown, otherwise: string): string => (typeof value === "string" && minutesOf(value) !== undefined ? value : otherwise);
    return { on: on === true, from: time(from, DEFAULTS.quiet.from), to: time(to, DEFAULTS.quiet.to) };
}

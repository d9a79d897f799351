/** How the page looks and speaks. Kept in localStorage too, which can be read before the first paint. */
import { direction, language, pickLanguage, setLanguage } from "../domain/i18n.ts";
import { DEFAULTS, type Preferences, readPreferences } from "../domain/preferences.ts";

const KEY = "hubbub-look";

export function loadLook(): Preferences {
    try {
        return readPreferences(JSON.parse(localStorage.getItem(KEY) ?? "{}"));
    } catch {
        return DEFAULTS; // storage is forbidden, or holds something else
    }
}

/** Applies the preferences to the page and remembers them. The style sheet looks at the attributes. */
export async function applyLook(look: Preferences): Promise<void> {
    const root = document.documentElement;
    const { dataset } = root;
    if (look.theme === "system") delete dataset.theme;
    else dataset.theme = look.theme;
    if (look.accent === "green") delete dataset.accent;
    else dataset.accent = look.accent;
    if (look.density === "compact") dataset.density = look.density;
    else delete dataset.density;
    try {
        localStorage.setItem(KEY, JSON.stringify(look));
    } catch {
        // It holds for this page then.
    }
    const wanted = navigator.languages ?? [];
    await setLanguage(look.language === "system" ? pickLanguage(wanted) : look.language, wanted).catch(() => undefined); // without the table it stays as it was
    root.lang = language.value;
    root.dir = direction(language.value);
}

/** Light, dark, or as the system says. Kept in localStorage, which can be read before the first paint. */

export type Theme = "system" | "light" | "dark";
export const THEMES: readonly Theme[] = ["system", "light", "dark"];

const KEY = "hubbub-theme";

export function loadTheme(): Theme {
    try {
        const stored = localStorage.getItem(KEY);
        return THEMES.find((theme) => theme === stored) ?? "system";
    } catch {
        return "system"; // storage is forbidden
    }
}

/** Applies the theme to the page and remembers it. The style sheet looks at the attribute. */
export function applyTheme(theme: Theme): void {
    const root = document.documentElement;
    if (theme === "system") delete root.dataset.theme;
    else root.dataset.theme = theme;
    try {
        if (theme === "system") localStorage.removeItem(KEY);
        else localStorage.setItem(KEY, theme);
    } catch {
        // It holds for this page then.
    }
}

/** What this device is called in the list of devices until its owner calls it something else: "hubbub web (Firefox, Linux)". */

const BROWSERS: readonly (readonly [RegExp, string])[] = [
    [/\bEdgA?\//, "Edge"],
    [/\bOPR\//, "Opera"],
    [/\bSamsungBrowser\//, "Samsung Internet"],
    [/\b(?:Firefox|FxiOS)\//, "Firefox"],
    [/\b(?:Chrome|CriOS|HeadlessChrome)\//, "Chrome"],
    [/\bSafari\//, "Safari"],
];

const SYSTEMS: readonly (readonly [RegExp, string])[] = [
    [/\bAndroid\b/, "Android"],
    [/\biPhone\b/, "iPhone"],
    [/\biPad\b/, "iPad"],
    [/\bCrOS\b/, "ChromeOS"],
    [/\bWindows\b/, "Windows"],
    [/\bMac OS X\b/, "Mac"],
    [/\bLinux\b/, "Linux"],
];

export function deviceName(userAgent: string): string {
    const [browser, system] = [BROWSERS, SYSTEMS].map((table) => table.find(([pattern]) => pattern.test(userAgent))?.[1]);
    const known = [browser, system].filter((name) => name !== undefined);
    return known.length === 0 ? "hubbub web" : `hubbub web (${known.join(", ")})`;
}

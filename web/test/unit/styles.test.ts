/** That the style sheets hold for languages that are written from right to left, too. */
import { readdirSync, readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { describe, expect, it } from "vitest";
import { ACCENTS } from "../../src/domain/preferences.ts";

const UI = resolve(import.meta.dirname, "../../src/ui");
const files = readdirSync(UI, { recursive: true, encoding: "utf8" });

/** What names a side of the screen where the beginning or the end of a line is meant. */
const PHYSICAL = [
    /^\s*(?:[\w-]+-)?(?:left|right)(?:-[\w-]+)?\s*:/, // left: …, margin-left: …, border-right-color: …
    /^\s*border-(?:top|bottom)-(?:left|right)-radius\s*:/,
    /^\s*(?:text-align|float|clear|justify-content|justify-items|justify-self)\s*:.*\b(?:left|right)\b/,
    /\btranslateX?\(\s*-?[1-9]/,
];
/** Shorthands of four values, which go around the box by the clock; they are the same both ways if right and left are. */
const AROUND = /^\s*(margin|padding|inset|border-(?:width|color|style|radius))\s*:\s*([^;]+);/;

/** What may name a side all the same, and why. */
const EXCEPTIONS: { file: string; line: RegExp; why: string }[] = [
    { file: "MessageMenu.tsx", line: /style\.inset = /, why: "the menu is put beside a bubble that was measured on the screen" },
];

/** Splits at spaces outside of brackets. */
const parts = (value: string): string[] => value.match(/(?:[^\s(]|\((?:[^()]|\([^()]*\))*\))+/g) ?? [];

function isPhysical(line: string): boolean {
    if (PHYSICAL.some((pattern) => pattern.test(line))) return true;
    const found = AROUND.exec(line);
    if (!found) return false;
    const [first, second, third, fourth] = parts(found[2]!);
    // Corners: first and second are the upper ones, third and fourth the lower ones from right to left.
    if (found[1] === "border-radius") return second !== undefined && (second !== first || (third !== undefined && fourth === undefined) || third !== fourth);
    return fourth !== undefined && fourth !== second;
}

const allowed = (file: string, line: string): boolean => EXCEPTIONS.some((exception) => file.endsWith(exception.file) && exception.line.test(line));

describe("style sheets", () => {
    it.each(files.filter((name) => name.endsWith(".css")))("%s names no side of the screen", (name) => {
        const lines = readFileSync(join(UI, name), "utf8").replace(/\/\*[\s\S]*?\*\//g, "").split("\n");
        expect(lines.filter((line) => isPhysical(line) && !allowed(name, line))).toEqual([]);
    });
    it.each(files.filter((name) => /\.tsx?$/.test(name)))("%s sets none", (name) => {
        const lines = readFileSync(join(UI, name), "utf8").split("\n");
        const sides = /\bstyle\.(?:left|right|inset|\w+(?:Left|Right))\b|\bscrollLeft\b/;
        expect(lines.filter((line) => sides.test(line) && !allowed(name, line))).toEqual([]);
    });
    it("are read rightly by this test", () => {
        for (const line of ["  left: 0;", "margin-right: 1px;", "border-left-color: red;", "border-top-left-radius: 1px;", "text-align: left;", "float: right;", "transform: translateX(4px);", "padding: 0 1px 0 2px;", "border-radius: 1px 1px 1px 0;", "border-radius: 1px 2px;", "border-radius: 1px 1px 2px;"]) {
            expect(isPhysical(line), line).toBe(true);
        }
        for (const line of ["margin-inline-start: 0;", "padding: 0 1px 0 1px;", "padding: 0 1px max(1px, env(safe-area-inset-left));", "border-radius: 1px 1px 0 0;", "border-radius: 50%;", "text-align: start;", "float: inline-end;", "transform: translateY(2px);", "inset: auto 0 0;"]) {
            expect(isPhysical(line), line).toBe(false);
        }
    });
});

describe("accents", () => {
    type Pair = readonly [light: string, dark: string];
    const css = (name: string): string => readFileSync(join(UI, "styles", name), "utf8");
    const pairs = (block: string): Record<string, Pair> => Object.fromEntries([...block.matchAll(/--([\w-]+): light-dark\((#\w{6}), (#\w{6})\)/g)].map(([, name, light, dark]) => [name!, [light!, dark!] as const]));
    const base = pairs(css("base.css"));
    const accents = [...css("accents.css").matchAll(/\[data-accent="(\w+)"\] \{([^}]*)\}/g)].map(([, name, block]) => [name!, { ...base, ...pairs(block!) }] as const);
    const channel = (hex: string): number => {
        const value = parseInt(hex, 16) / 255;
        return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
    };
    const luminance = (colour: string): number => 0.2126 * channel(colour.slice(1, 3)) + 0.7152 * channel(colour.slice(3, 5)) + 0.0722 * channel(colour.slice(5, 7));
    /** spec: WCAG 2.2 §1.4.3 */
    const contrast = (a: string, b: string): number => {
        const [light, dark] = [luminance(a), luminance(b)].sort((x, y) => y - x) as [number, number];
        return (light + 0.05) / (dark + 0.05);
    };
    it("are those that can be chosen", () => expect(accents.map(([name]) => name)).toEqual([...ACCENTS]));
    it.each(accents)("%s can be read, in light and dark", (_, colours) => {
        const seen = [["on-accent", "accent"], ["accent", "bg"], ["accent", "surface"], ["accent", "hover"], ["accent", "own"], ["ink", "own"], ["ink-soft", "own"], ["ink", "chosen"], ["ink-soft", "chosen"]] as const;
        for (const [front, back] of seen) {
            for (const mode of [0, 1] as const) expect(contrast(colours[front]![mode], colours[back]![mode]), `${front} on ${back}, ${mode ? "dark" : "light"}`).toBeGreaterThanOrEqual(4.5);
        }
    });
});

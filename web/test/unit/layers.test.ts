/** The order of the layers, kept by looking at the imports of every file. */
import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, relative, resolve } from "node:path";
import { describe, expect, it } from "vitest";

const SRC = resolve(import.meta.dirname, "../../src");

/** What each layer may import besides itself, and what it is for. `main.tsx` alone puts them together. */
const LAYERS: Record<string, { may: string[]; why: string }> = {
    protocol: { may: [], why: "it speaks docs/websocket.md and knows of nothing else" },
    store: { may: ["protocol"], why: "it keeps what must outlive the page" },
    domain: { may: ["protocol", "store"], why: "it runs without a page, so that it can be tested without one" },
    platform: { may: ["protocol", "store", "domain"], why: "it fills the interfaces of the layers below with a browser" },
    ui: { may: ["protocol", "store", "domain", "platform"], why: "it shows what the domain holds" },
    sw: { may: ["protocol", "store"], why: "it runs beside the page and shares no state with it" },
};
const PACKAGES: Record<string, RegExp> = {
    protocol: /^$/,
    store: /^$/,
    domain: /^(virtual:emojis\/emojis-\w+|@preact\/signals-core|matrix-js-sdk\/lib\/.+|lowlight|blurhash|highlight\.js\/lib\/languages\/.+)$/,
    platform: /^$/,
    ui: /^(preact|preact\/hooks|@preact\/signals)$/,
    sw: /^$/,
};
/** Names that exist only where there is a page. */
const PAGE = /\b(document|window|localStorage|sessionStorage|navigator|history|location)\./;

const files = readdirSync(SRC, { recursive: true, encoding: "utf8" }).filter((name) => /\.tsx?$/.test(name) && name.includes("/"));

function importsOf(text: string): string[] {
    const forms = /(?:^|\n)(?:import|export)\s[^;"']*?\sfrom\s*["']([^"']+)["']|(?:^|\n)import\s*["']([^"']+)["']|import\(\s*["']([^"']+)["']/g;
    return [...text.matchAll(forms)].map((match) => (match[1] ?? match[2] ?? match[3])!);
}

describe("layers", () => {
    it.each(files)("%s imports only what its layer may", (name) => {
        const layer = name.split("/")[0]!;
        const rule = LAYERS[layer];
        expect(rule, `src/${layer} is not a layer; see src/ in README.md`).toBeDefined();
        const text = readFileSync(join(SRC, name), "utf8");
        for (const imported of importsOf(text)) {
            if (!imported.startsWith(".")) {
                expect(PACKAGES[layer]!.test(imported), `${layer} may not import the package ${imported}: ${rule!.why}`).toBe(true);
                continue;
            }
            const other = relative(SRC, resolve(dirname(join(SRC, name)), imported)).split("/")[0]!;
            expect(other === layer || rule!.may.includes(other), `${layer} may not import ${other} (${imported}), because ${rule!.why}`).toBe(true);
        }
    });

    it.each(files.filter((name) => /^(protocol|store|domain|sw)\//.test(name)))("%s does without a page", (name) => {
        const code = readFileSync(join(SRC, name), "utf8").replace(/\/\*[\s\S]*?\*\/|\/\/.*/g, "");
        expect(code).not.toMatch(PAGE);
    });

    it.each(files.filter((name) => name.startsWith("ui/")))("%s puts no markup together and no style into it", (name) => {
        const code = readFileSync(join(SRC, name), "utf8");
        expect(code).not.toMatch(/dangerouslySetInnerHTML|innerHTML|outerHTML|insertAdjacentHTML|\sstyle=/);
    });

    it("sees every way to import", () => {
        expect(importsOf(`import a from "./a.ts";\nimport {\n b } from "b";\nexport * from "../c.ts";\nconst d = await import("./d.ts");\nimport "./e.css";`)).toEqual([
            "./a.ts", "b", "../c.ts", "./d.ts", "./e.css",
        ]); // prettier-ignore
    });
});

/** Code in colours: a tree of pieces, each with the name of what it is. No markup is made. */

export type Piece = string | { kind: string; children: Piece[] };

/** Larger blocks stay plain: to colour them would hold up the page. */
const MAX_CODE = 20_000;

interface Node {
    type: string;
    value?: string;
    children?: Node[];
    properties?: { className?: unknown };
}

/** The code in pieces; plain where the language is not known, or the library did not come. */
export async function highlight(code: string, language: string): Promise<Piece[]> {
    if (code.length > MAX_CODE) return [code];
    try {
        const { lowlight } = await import("./highlighter.ts");
        if (!lowlight.registered(language)) return [code];
        return piecesOf((lowlight.highlight(language, code) as Node).children ?? []);
    } catch {
        return [code];
    }
}

function piecesOf(nodes: readonly Node[]): Piece[] {
    return nodes.map((node) => {
        if (node.type === "text") return node.value ?? "";
        const name = Array.isArray(node.properties?.className) ? String(node.properties.className[0]) : "";
        return { kind: /^hljs-([a-z_-]+)$/.exec(name)?.[1] ?? "", children: piecesOf(node.children ?? []) };
    });
}

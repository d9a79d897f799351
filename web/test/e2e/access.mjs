/** Looks with axe whether a screen can be used by everybody (WCAG 2.2 A and AA). */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"];

export async function checkAccess({ page, name }, where) {
    await page.evaluate(axe); // through the debugger, which the page's policy does not bind
    const violations = await page.evaluate(async (tags) => (await globalThis.axe.run({ exclude: [".rich [style]"] /* colours that an author chose */ }, { runOnly: tags, rules: { "target-size": { enabled: true } } })).violations, TAGS);
    const found = violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => `${node.html.slice(0, 160)} ${node.failureSummary}`).join("\n    ")}`);
    assert.deepEqual(found, [], `${name}, ${where}: axe finds nothing`);
}

/** Preferences that follow a person to the other device, another language, and the app without a network. */
import assert from "node:assert/strict";
import { shoot } from "./timeline.mjs";

export async function preferAndGoOffline(ada, bob, second) {
    const { page } = ada;
    await page.getByRole("button", { name: /^Account/ }).click();
    await page.getByText("Dark", { exact: true }).click();
    await page.getByText("Compact", { exact: true }).click();
    await second.page.locator('html[data-theme="dark"][data-density="compact"]').waitFor({ state: "attached" });
    await page.getByText("Deutsch", { exact: true }).click();
    await page.getByRole("heading", { name: "Gespräche" }).waitFor();
    await second.page.getByRole("heading", { name: "Gespräche" }).waitFor();
    assert.equal(await page.evaluate(() => document.documentElement.lang), "de");
    await shoot([second], "german");
    await page.getByRole("button", { name: /^Konto/ }).click();
    await page.getByText("English", { exact: true }).click();
    await second.page.getByRole("heading", { name: "Conversations" }).waitFor();
    await page.getByRole("button", { name: /^Account/ }).click();
    await page.getByText("Comfortable", { exact: true }).click();
    await page.keyboard.press("Escape");

    const phone = bob.page;
    await phone.evaluate(async () => {
        await navigator.serviceWorker.ready;
        // Activated is not enough: the files for encryption come after.
        while (!(await caches.match("/"))) await new Promise((done) => setTimeout(done, 50));
        const wasm = performance.getEntriesByType("resource").map((entry) => entry.name).find((name) => name.endsWith(".wasm"));
        while (!(await caches.match(wasm))) await new Promise((done) => setTimeout(done, 50));
    });
    const manifest = await phone.evaluate(async () => (await fetch(document.querySelector("link[rel=manifest]").href)).json());
    assert.ok(manifest.icons.some((icon) => icon.sizes === "512x512"), "it can be installed");
    await bob.context.setOffline(true);
    await phone.reload();
    await phone.locator(".root").waitFor(); // from the kept files
    await bob.context.setOffline(false);
    await phone.reload();
    await phone.locator('[data-transport="socket"]').waitFor();
    await ada.say("there again");
    await bob.sees("there again");
}

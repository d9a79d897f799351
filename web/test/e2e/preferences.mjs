/** Preferences that follow a person to the other device, another language, and the app without a network. */
import assert from "node:assert/strict";
import { holds } from "./people.mjs";
import { shoot } from "./timeline.mjs";

export async function preferAndGoOffline(ada, bob, second) {
    const { page } = ada;
    await page.getByRole("button", { name: /^Account/ }).click();
    await page.getByText("Dark", { exact: true }).click();
    await page.getByText("Compact", { exact: true }).click();
    await page.getByRole("radio", { name: "Violet" }).check();
    await shoot([ada], "account");
    await second.page.locator('html[data-theme="dark"][data-density="compact"][data-accent="violet"]').waitFor({ state: "attached" });
    await page.getByLabel("Language").selectOption({ label: "Deutsch" });
    await page.getByRole("heading", { name: "Gespräche" }).waitFor();
    await second.page.getByRole("heading", { name: "Gespräche" }).waitFor();
    assert.equal(await page.evaluate(() => document.documentElement.lang), "de");
    await shoot([second], "german");
    await page.getByRole("button", { name: /^Konto/ }).click();
    await page.getByLabel("Sprache").selectOption({ label: "English" });
    await second.page.getByRole("heading", { name: "Conversations" }).waitFor();
    await page.getByRole("button", { name: /^Account/ }).click();
    await page.getByText("Comfortable", { exact: true }).click();
    await page.getByRole("radio", { name: "Green" }).check();
    await page.keyboard.press("Escape");
    await byKeys(ada, second);

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
    await offlineAndBack(ada, bob);
}

/** To a conversation and to the search, as long as one wants that. */
async function byKeys(ada, second) {
    const { page } = ada;
    const first = await page.evaluate(() => location.hash);
    const leave = () => page.evaluate(() => void (location.hash = "#/"));
    await page.keyboard.press("Control+k");
    assert.ok(await page.evaluate(() => document.activeElement.matches(".list-search input")), "the search has the focus");
    await leave();
    await page.getByText("Pick a conversation").waitFor();
    await page.keyboard.press("Alt+ArrowDown");
    await page.waitForFunction(() => location.hash.startsWith("#/room/"));
    await page.keyboard.press("Control+/");
    await page.getByRole("heading", { name: "Keyboard shortcuts" }).waitFor();
    await shoot([ada], "shortcuts");
    await page.getByText("Off", { exact: true }).click();
    await page.keyboard.press("Escape");
    await holds(page, () => document.querySelector("dialog[open]") === null);
    await leave();
    await page.getByText("Pick a conversation").waitFor();
    await page.keyboard.press("Alt+ArrowDown");
    await page.keyboard.press("Control+/"); // the way back is always there
    await page.getByRole("heading", { name: "Keyboard shortcuts" }).waitFor();
    assert.equal(await page.evaluate(() => location.hash), "#/", "the other keys do nothing");
    await page.keyboard.press("Escape");
    await second.page.keyboard.press("Control+/");
    await second.page.getByRole("radio", { name: "Off" }).and(second.page.locator(":checked")).waitFor({ state: "attached" });
    await second.page.getByText("On", { exact: true }).click();
    await second.page.keyboard.press("Escape");
    await page.evaluate((hash) => void (location.hash = hash), first);
    await page.locator(".composer").waitFor();
}

/** Without a network the app opens with what it has; what is written waits over a reload, and comes once. */
async function offlineAndBack(ada, bob) {
    const phone = bob.page;
    await ada.say("before the tunnel");
    await bob.sees("before the tunnel");
    // To hide the page is when it keeps what it has.
    await phone.evaluate(() => Object.defineProperty(document, "visibilityState", { configurable: true, value: "hidden" }) && document.dispatchEvent(new Event("visibilitychange")));
    await holds(phone, async () => {
        const { name } = (await indexedDB.databases()).find((db) => db.name.includes("hubbub-sync"));
        const db = await new Promise((done) => (indexedDB.open(name).onsuccess = (event) => done(event.target.result)));
        const all = await new Promise((done) => (db.transaction("sync").objectStore("sync").getAll().onsuccess = (event) => done(event.target.result)));
        db.close();
        return JSON.stringify(all[0]?.roomsData?.join ?? {}).includes("m.room.encrypted");
    });
    await bob.context.setOffline(true);
    await phone.reload();
    await bob.sees("before the tunnel"); // decrypted with the keys of the device
    await phone.getByText("You are offline.").filter({ visible: true }).first().waitFor();
    await phone.getByRole("button", { name: "All conversations" }).click();
    await phone.getByRole("link", { name: /Garden/ }).waitFor();
    await shoot([bob], "offline-list");
    await phone.getByRole("link", { name: /Garden/ }).click();
    await bob.say("written in the tunnel");
    await phone.locator(".is-waiting", { hasText: "written in the tunnel" }).waitFor();
    await bob.act("before the tunnel", "React with 👍");
    await bob.act("before the tunnel", "Reply");
    await bob.say("and an answer");
    await phone.getByLabel("Files to send").setInputFiles([{ name: "ticket.txt", mimeType: "text/plain", buffer: Buffer.from("one way") }]);
    await phone.getByRole("dialog").getByRole("button", { name: "Send", exact: true }).click();
    await phone.locator(".upload", { hasText: "ticket.txt" }).waitFor();
    await phone.reload();
    await phone.locator(".is-waiting", { hasText: "and an answer" }).waitFor();
    await phone.locator(".upload", { hasText: "ticket.txt" }).waitFor();
    await shoot([bob], "offline");
    await bob.context.setOffline(false);
    // A poll that was first to find the network goes on, for up to 30 s, before the socket takes over.
    await phone.locator('[data-transport="socket"], [data-transport="http"]').waitFor();
    for (const text of ["written in the tunnel", "and an answer", "ticket.txt"]) await ada.sees(text);
    await ada.page.getByRole("button", { name: "👍 1 by bob" }).waitFor();
    await phone.locator(".is-waiting, .is-sending, .upload").first().waitFor({ state: "detached" });
    await ada.say("there again");
    await bob.sees("there again");
    for (const text of ["written in the tunnel", "and an answer"]) assert.equal(await ada.page.locator(".bubble", { hasText: text }).count(), 1, `${text} came once`);
}

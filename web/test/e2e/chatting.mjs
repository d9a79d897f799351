/**
 * What one types and where one goes: completions, drafts that are kept, who is there, spaces, and the directory. Run by npm run e2e,
 * against the real server.
 */
import assert from "node:assert/strict";
import { DESKTOP, PHONE } from "./browser.mjs";
import { holds, Person, play } from "./people.mjs";
import { shoot } from "./timeline.mjs";

const click = (person, name, exact = true) => person.page.getByRole("button", { name, exact }).click();
const box = (person) => person.page.getByLabel(/^Message to/);
const newChat = (person) => person.page.getByRole("button", { name: "New conversation" }).first().click();

async function meet(ada, bob, origin) {
    await Promise.all([ada.signUp(origin), bob.signUp(origin)]);
    await newChat(ada);
    await ada.page.getByLabel("Person", { exact: true }).fill("bob");
    await click(ada, "Start talking");
    await click(bob, "Accept");
    await bob.page.getByRole("heading", { name: "ada", level: 2 }).waitFor();
    await ada.page.getByRole("log").getByText("bob joined").waitFor();
}

async function seePresence(ada, bob) {
    await ada.page.locator(".bar-sub", { hasText: "Online" }).waitFor();
    await ada.page.getByRole("link", { name: /bob/ }).getByRole("img", { name: "Online" }).waitFor();
    await box(bob).pressSequentially("thinking");
    await ada.page.getByText("bob is typing").waitFor();
    await shoot([ada], "presence");
    await box(bob).fill("");
}

async function complete(ada, bob) {
    const { page } = ada;
    await box(ada).pressSequentially("look, a :unic");
    const offers = page.getByRole("listbox", { name: "Completions" }).getByRole("option");
    await offers.first().getByText("unicorn").waitFor();
    await shoot([ada], "emoji");
    await page.keyboard.press("Enter");
    assert.equal(await box(ada).inputValue(), "look, a 🦄 ");
    await box(ada).pressSequentially("and :cat");
    await offers.nth(1).waitFor();
    await page.keyboard.press("ArrowDown");
    await page.locator('[role="option"][aria-selected="true"]').nth(0).waitFor();
    const second = (await offers.nth(1).locator(".completion-emoji").textContent()).trim();
    assert.equal(await offers.nth(1).getAttribute("aria-selected"), "true");
    await page.keyboard.press("Tab");
    assert.equal(await box(ada).inputValue(), `look, a 🦄 and ${second} `);
    await box(ada).pressSequentially("for @bo");
    await offers.getByText("@bob:localhost").waitFor();
    await page.keyboard.press("Escape");
    await offers.first().waitFor({ state: "detached" });
    await box(ada).pressSequentially("b");
    await offers.first().click();
    assert.equal(await box(ada).inputValue(), `look, a 🦄 and ${second} for @bob `);
    await page.keyboard.press("Enter");
    await bob.sees(`look, a 🦄 and ${second} for`);
    await box(ada).pressSequentially("it is 9:30 :)");
    assert.equal(await offers.count(), 0);
    await page.keyboard.press("Enter");
    await bob.sees("it is 9:30 :)");
}

async function keepDraft(ada) {
    await box(ada).fill("a thought that is not ready");
    await ada.page.evaluate(() => document.dispatchEvent(new Event("visibilitychange")));
    await holds(ada.page, async () => {
        const db = await new Promise((done) => (indexedDB.open("hubbub").onsuccess = (event) => done(event.target.result)));
        const values = await new Promise((done) => (db.transaction("values").objectStore("values").getAll().onsuccess = (event) => done(event.target.result)));
        db.close();
        return values.includes("a thought that is not ready");
    });
    await ada.page.reload();
    await ada.page.getByRole("heading", { name: "bob", level: 2 }).waitFor();
    assert.equal(await box(ada).inputValue(), "a thought that is not ready");
    await box(ada).fill("");
}

async function findAndSort(ada, bob) {
    const { page } = ada;
    await newChat(ada);
    await page.getByText("A space", { exact: true }).click();
    await page.getByLabel("Name of the space").fill("House");
    await page.getByLabel("People to invite").fill("");
    await shoot([ada], "new-space");
    await click(ada, "Create space");
    await click(ada, "House");
    await page.getByRole("link", { name: /bob/ }).waitFor({ state: "detached" });
    await click(ada, "All");
    await newChat(ada);
    await page.getByText("A group").click();
    await page.getByLabel("Name of the room").fill("Kitchen table");
    await click(ada, "Create room");
    await page.getByRole("heading", { name: "Kitchen table", level: 2 }).waitFor();
    await click(ada, "About this room");
    await page.getByLabel("In the space House").check();
    await page.getByLabel("Who may join").selectOption("public");
    await page.getByLabel("Shown among the public rooms").check();
    await page.locator("dialog input[type=checkbox]:checked").nth(1).waitFor();
    await shoot([ada], "room-in-space");
    await page.keyboard.press("Escape");
    await click(ada, "House");
    await page.getByRole("link", { name: /Kitchen/ }).waitFor();
    await click(ada, "About House");
    await page.getByText("About this space").waitFor();
    await shoot([ada], "space");
    await page.keyboard.press("Escape");

    await bob.back();
    await newChat(bob);
    await click(bob, "Find a public room");
    await bob.page.getByLabel("Name or topic").fill("no such room");
    await bob.page.getByText("No public room is called so.").waitFor();
    await bob.page.getByLabel("Name or topic").fill("kitch");
    await bob.page.getByRole("button", { name: "Join Kitchen table" }).waitFor();
    await shoot([bob], "directory");
    await click(bob, "Join Kitchen table");
    await bob.page.getByRole("heading", { name: "Kitchen table", level: 2 }).waitFor();
    await page.getByRole("log").getByText("bob joined").waitFor();
}

await play((error) => /401/.test(error), async ({ server, browser, people }) => {
    for (const [name, size] of [["ada", DESKTOP], ["bob", PHONE]]) people.push(await Person.open(browser, name, size));
    const [ada, bob] = people;
    await meet(ada, bob, server.origin);
    await seePresence(ada, bob);
    await complete(ada, bob);
    await keepDraft(ada);
    await findAndSort(ada, bob);
});
console.log("ok: completions, drafts, presence, spaces and the directory");

/**
 * Two people in two browsers, one at a desk and one with a phone, against the real server: npm run e2e.
 *
 * HUBBUB_BIN names the binary (default ../bin/hubbub), CHROMIUM the browser. With --fake it runs against the fake
 * server and the built app in dist, to find out whether a failure is the app's or the server's.
 */
import assert from "node:assert/strict";
import { DESKTOP, PHONE } from "./browser.mjs";
import { holds, Person, play } from "./people.mjs";
import { shareMedia } from "./media.mjs";
import { talkPrivately } from "./encryption.mjs";
import { preferAndGoOffline } from "./preferences.mjs";
import { keepHouse } from "./rooms.mjs";
import { talkRichly } from "./timeline.mjs";

async function converse(ada, bob, origin) {
    await Promise.all([ada.signUp(origin), bob.signUp(origin)]);

    await ada.page.getByRole("button", { name: "New conversation" }).first().click();
    await ada.page.locator("dialog input:focus").waitFor(); // a dialog opens where one types
    await ada.page.getByText("A group").click();
    await ada.page.getByLabel("Name of the room").fill("Garden & bicycles");
    await ada.page.getByLabel("People to invite").fill("bob");
    await ada.page.getByRole("button", { name: "Create room" }).click();
    await ada.page.getByRole("heading", { name: "Garden & bicycles" }).waitFor();

    await bob.page.getByText("ada invites you").waitFor();
    await bob.page.getByRole("button", { name: "Accept" }).click();
    await bob.page.getByRole("heading", { name: "Garden & bicycles" }).waitFor();
    await ada.page.getByRole("log").getByText("bob joined").waitFor();

    const said = [];
    for (let i = 1; i <= 4; i++) {
        for (const [from, to] of [[ada, bob], [bob, ada]]) {
            const text = `${from.name} says ${i} <b>&</b> ${"🌱".repeat(i)}`;
            said.push(text);
            await from.say(text);
            await to.sees(text);
        }
    }
    await ada.page.locator(".is-sending").waitFor({ state: "detached" });
    await bob.page.locator(".is-sending").waitFor({ state: "detached" });
    await ada.shows(said, "ada sees all, once, in order");
    await bob.shows(said, "bob sees all, once, in order");

    // A reload goes on with the session, and a phone goes back to the list.
    await bob.page.reload();
    await bob.page.getByRole("heading", { name: "Garden & bicycles" }).waitFor();
    await bob.page.locator('[data-transport="socket"]').waitFor();
    await bob.sees(said.at(-1));
    await bob.shows(said, "bob sees the same after a reload");
    await bob.page.getByRole("button", { name: "All conversations" }).click();
    await ada.say("one for the badge");
    await bob.page.getByLabel("1 unread").waitFor();
    await bob.page.getByRole("link", { name: /Garden/ }).click();
    await bob.sees("one for the badge");
}

function checkTransport(person) {
    const { name, http } = person;
    assert.equal(person.calls("/send/m.room.").length, name === "ada" ? 5 : 4, `${name}'s messages went over the socket`);
    assert.ok(person.received.some((m) => m.op === "sync"), `${name} was sent sync frames`);
    const polled = http.filter((call) => /\/(sync|send)(\/|$)/.test(call));
    assert.deepEqual(polled, [], `${name} sent and synced nothing over HTTP`);
}

async function signOut({ page }) {
    await page.getByRole("button", { name: /^Account/ }).click();
    await page.getByText("Connected", { exact: true }).waitFor();
    await page.getByText("Dark", { exact: true }).click();
    assert.equal(await page.evaluate(() => document.documentElement.dataset.theme), "dark");
    await page.getByRole("button", { name: "Sign out" }).click();
    await page.getByRole("button", { name: "Sign in" }).waitFor();
    // Nothing of the account is left, once the databases that were in use have let go.
    await holds(page, async () => (await indexedDB.databases()).every((db) => !db.name.includes("@")));
}

/** The fake server knows no encryption, and its policy does not let the module for it in. */
const isFake = (error) => process.argv.includes("--fake") && /WebAssembly|wasm/.test(error);

/** User-interactive authentication begins with a 401 (spec), which the browser itself reports, as it does pages that have no preview. */
const isExpected = (error) => error.includes("/preview_url") || (error.includes("401") && error.includes("/register")) || error.includes("ERR_INTERNET_DISCONNECTED");

await play((error) => isExpected(error) || isFake(error), async ({ server, browser, people }) => {
    const ada = await Person.open(browser, "ada", DESKTOP);
    const bob = await Person.open(browser, "bob", PHONE);
    people.push(ada, bob);
    await converse(ada, bob, server.origin);
    people.forEach(checkTransport);
    if (!process.argv.includes("--fake")) {
        await talkRichly(ada, bob);
        await shareMedia(ada, bob);
        await talkPrivately(browser, ada, bob, server.origin, people);
        await keepHouse(ada, bob);
        await preferAndGoOffline(ada, bob, people.at(-1));
    }
    await signOut(ada);
});
console.log("ok: two people signed up, met in a room, and talked over the WebSocket");

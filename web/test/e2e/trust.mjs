/**
 * Who is who: a second device is let in by the first, two people compare emoji, and all that can go wrong with it. Run by
 * npm run e2e, against the real server.
 */
import assert from "node:assert/strict";
import { DESKTOP, PHONE } from "./browser.mjs";
import { empty, Person, play } from "./people.mjs";
import { shoot } from "./timeline.mjs";

const emoji = (person) => person.page.locator(".sas li").allTextContents();
const prompt = (person, title) => person.page.locator(".prompt", { hasText: title });
const click = (person, name, exact = true) => person.page.getByRole("button", { name, exact }).click();

async function meet(ada, bob, origin) {
    await Promise.all([ada.signUp(origin), bob.signUp(origin)]);
    await ada.page.getByRole("button", { name: "New conversation" }).first().click();
    await ada.page.getByLabel("Person", { exact: true }).fill("bob");
    await click(ada, "Start talking");
    await click(bob, "Accept");
    await bob.page.getByRole("heading", { name: "ada", level: 2 }).waitFor();
    await ada.page.getByRole("log").getByText("bob joined").waitFor();
    await ada.say("said before the second device");
    await bob.sees("said before the second device");
}

/** Both see the same seven pictures. */
async function sameEmoji(one, other) {
    await Promise.all([one, other].map((person) => person.page.locator(".sas li").nth(6).waitFor()));
    const seen = await emoji(one);
    assert.deepEqual(await emoji(other), seen, "both see the same pictures");
    assert.equal(seen.length, 7);
}

async function letIn(ada, second, origin) {
    await second.signIn(origin, "ada");
    await prompt(ada, "New sign-in: hubbub web (Chrome, Linux)").waitFor();
    await shoot([ada], "new-device");
    await second.page.getByRole("link", { name: /bob/ }).click();
    await second.sees("This message cannot be read on this device");
    await second.back();
    await click(second, /^Unlock your messages/);
    await shoot([second], "unlock");
    await click(second, "Use another device");
    await second.page.getByText("Open hubbub on another device").waitFor();
    await shoot([second], "waiting");
    await prompt(ada, "Another device signed in").waitFor();
    await shoot([ada], "is-this-you");
    await click(ada, "Yes, compare");
    await sameEmoji(ada, second);
    await shoot([ada, second], "compare-own");
    await click(ada, "They are the same");
    await ada.page.getByText("Now confirm it on the other device").waitFor();
    await click(second, "They are the same");
    for (const person of [ada, second]) {
        await person.page.getByText("It is you.").waitFor();
        if (person === second) await shoot([second], "verified-own");
        await click(person, "Done");
    }
    await second.page.locator(".note").waitFor({ state: "detached" });
    await second.page.getByRole("link", { name: /bob/ }).click();
    await second.page.locator(".bubble", { hasText: "said before the second device" }).waitFor({ timeout: 60_000 }); // once the first device has put its keys into the backup
    await ada.page.locator(".prompt").waitFor({ state: "detached" });
}

/** A device that was let in makes a new recovery key; the old one opens nothing from then on, and the new one everything. */
async function changeKey(ada, second, third, origin) {
    const keyOn = async (person) => (await person.page.locator(".recovery-key").textContent()).trim();
    await click(ada, /^Keep your recovery key/);
    const old = await keyOn(ada);
    await click(ada, "I have kept it");
    await second.back();
    await click(second, /^Account/, false);
    await click(second, "New recovery key");
    await second.page.locator(".recovery-key").waitFor();
    const key = await keyOn(second);
    assert.notEqual(key, old);
    await click(second, "I have kept it");
    await second.page.keyboard.press("Escape");

    await third.signIn(origin, "ada");
    await third.page.getByRole("link", { name: /bob/ }).click();
    await third.sees("This message cannot be read on this device");
    await prompt(ada, "New sign-in").waitFor();
    await click(third, /^Unlock your messages/);
    await third.page.getByLabel("Recovery key").fill(old);
    await click(third, "Unlock");
    await third.page.getByText("This is not the recovery key of this account.").waitFor();
    await third.page.getByLabel("Recovery key").fill(key);
    await click(third, "Unlock");
    await third.page.locator(".bubble", { hasText: "said before the second device" }).waitFor({ timeout: 60_000 });
    await third.page.locator(".note").waitFor({ state: "detached" });
    for (const person of [ada, second]) await person.page.locator(".prompt").waitFor({ state: "detached" }); // it is known now
    await click(third, /^Account/, false);
    await click(third, "Sign out");
    await third.page.getByRole("button", { name: "Sign in" }).waitFor();
    await nothingLeft(third, "ada");
}

async function openProfile(ada, name) {
    await click(ada, "About this room");
    await ada.page.locator(".person-button", { hasText: name }).click();
}

async function verify(ada, bob) {
    await openProfile(ada, "bob");
    await shoot([ada], "profile");
    await click(ada, "Verify bob");
    await ada.page.getByText("bob has been asked.").waitFor();
    await prompt(bob, "ada wants to verify you").waitFor();
    await shoot([ada, bob], "asked-person");
    await click(bob, "Not now");
    await ada.page.getByText("bob does not want to do it now.").waitFor();

    await click(ada, "Try again");
    await click(bob, "Compare");
    await sameEmoji(ada, bob);
    await click(bob, "They differ");
    for (const person of [ada, bob]) await person.page.getByText("The pictures were not the same.").waitFor();
    await shoot([ada, bob], "mismatch");
    await bob.page.locator("dialog").getByRole("button", { name: "Close" }).last().click();

    await click(ada, "Try again");
    await click(bob, "Compare");
    await sameEmoji(ada, bob);
    await ada.page.keyboard.press("Escape");
    await bob.page.getByText("It was cancelled.").waitFor();
    await bob.page.locator("dialog").getByRole("button", { name: "Close" }).last().click();

    await ada.page.getByRole("button", { name: "Close" }).last().click(); // the room's dialog beneath
    await openProfile(ada, "bob");
    await click(ada, "Verify bob");
    await click(bob, "Compare");
    await sameEmoji(ada, bob);
    await shoot([ada, bob], "compare-person");
    await Promise.all([ada, bob].map((person) => click(person, "They are the same")));
    for (const person of [ada, bob]) {
        await person.page.getByText("Nobody stands between you and").waitFor();
        await click(person, "Done");
    }
    await ada.page.locator(".person-button", { hasText: "bob" }).getByRole("img", { name: "Verified" }).waitFor();
    await shoot([ada], "verified");
    await ada.page.keyboard.press("Escape");
}

/** Bob lost all he had. Who verified him is told; nobody else is. */
async function startOver(ada, bob, anew, origin) {
    await anew.signIn(origin, "bob");
    await click(anew, /^Unlock your messages/);
    await click(anew, "I have neither");
    await anew.page.getByLabel("Password").fill("not the password");
    await click(anew, "Make new keys");
    await anew.page.getByText("The password is not right.").waitFor();
    await shoot([anew], "start-over");
    await anew.page.getByLabel("Password").fill("bob-password-1");
    await click(anew, "Make new keys");
    await anew.page.getByText("Keep your recovery key").waitFor();
    await ada.page.getByText("The keys of bob have changed").waitFor();
    await shoot([ada], "changed");
    await click(ada, "Carry on unverified");
    await ada.page.getByText("The keys of bob have changed").waitFor({ state: "detached" });
    await ada.say("still here?");
    await anew.page.getByRole("link", { name: /ada/ }).click();
    await anew.sees("still here?");
}

async function manageDevices(ada, second) {
    await click(ada, /^Account/, false);
    await click(ada, "Your devices");
    const rows = ada.page.locator(".device");
    await rows.nth(1).waitFor();
    assert.equal(await rows.getByText("Verified", { exact: true }).count(), 2);
    await rows.nth(1).getByRole("button", { name: /^Rename/ }).click();
    await ada.page.getByLabel("Name of the device").fill("Phone in the kitchen");
    await click(ada, "Save");
    const phone = rows.filter({ hasText: "Phone in the kitchen" });
    await phone.getByText("Last used:").waitFor();
    await shoot([ada], "devices");
    await phone.getByRole("button", { name: "Sign out" }).click();
    await ada.page.getByLabel("Password").fill("not the password");
    await ada.page.locator("dialog").getByRole("button", { name: "Sign out" }).click();
    await ada.page.getByText("The password is not right.").waitFor();
    await shoot([ada], "sign-out-device");
    await ada.page.getByLabel("Password").fill("ada-password-1");
    await ada.page.locator("dialog").getByRole("button", { name: "Sign out" }).click();
    await phone.waitFor({ state: "detached" });
    await second.page.getByText("You were signed out.").waitFor();
    await nothingLeft(second, "ada");
    await ada.page.keyboard.press("Escape");
}

/** After a sign-out nothing of the account is on the device: no keys, no messages, no token. */
async function nothingLeft({ page }, name) {
    await empty(() =>
        page.evaluate(async (user) => {
            const databases = (await indexedDB.databases()).map((database) => database.name).filter((database) => database.includes("@"));
            const db = await new Promise((done) => (indexedDB.open("hubbub").onsuccess = (event) => done(event.target.result)));
            const store = db.transaction("values").objectStore("values");
            const all = (request) => new Promise((done) => (request.onsuccess = () => done(request.result)));
            const [keys, values] = await Promise.all([all(store.getAllKeys()), all(store.getAll())]);
            db.close();
            const kept = [...keys.map((key, i) => [key, values[i]]), ...Object.entries(localStorage), ...Object.entries(sessionStorage)];
            const telling = kept.map((entry) => JSON.stringify(entry)).filter((entry) => entry.includes(user) || entry.includes("accessToken"));
            return [...databases, ...telling];
        }, `@${name}:`).catch((error) => [error.message]), // it loads itself anew if something stayed open
    );
}

await play((error) => /40[13]/.test(error), async ({ server, browser, people }) => {
    const open = async (name, size) => {
        const person = await Person.open(browser, name, size);
        people.push(person);
        return person;
    };
    const [ada, bob, second, anew, third] = [await open("ada", DESKTOP), await open("bob", PHONE), await open("ada-phone", PHONE), await open("bob-anew", DESKTOP), await open("ada-third", DESKTOP)];
    await meet(ada, bob, server.origin);
    await letIn(ada, second, server.origin);
    await changeKey(ada, second, third, server.origin);
    await verify(ada, bob);
    await startOver(ada, bob, anew, server.origin);
    await manageDevices(ada, second);
});
console.log("ok: a device was let in by another, and two people verified each other");

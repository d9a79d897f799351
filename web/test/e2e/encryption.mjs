/** What is said in private is read by those in the room alone, and by their further devices with the recovery key. */
import assert from "node:assert/strict";
import { DESKTOP } from "./browser.mjs";
import { Person } from "./people.mjs";
import { shoot } from "./timeline.mjs";

export async function talkPrivately(browser, ada, bob, origin, people) {
    const secret = "the key is under the flowerpot";
    await bob.say(secret);
    await ada.sees(secret);
    const seen = await ada.serverSees();
    assert.ok(seen.includes("m.room.encrypted") && !seen.includes("flowerpot"), "the server has seen the text");

    await ada.page.getByRole("button", { name: /^Keep your recovery key/ }).click();
    const key = (await ada.page.locator(".recovery-key").textContent()).trim();
    assert.match(key, /^E[A-Za-z0-9]{3}( [A-Za-z0-9]{4}){11}$/);
    await shoot([ada], "recovery");
    await ada.page.getByRole("button", { name: "I have kept it" }).click();
    await ada.page.locator(".note").waitFor({ state: "detached" });

    const second = await Person.open(browser, "ada", DESKTOP);
    const { page } = second;
    people.push(second);
    second.name = "ada-second";
    await page.goto(`${origin}/#/signin`);
    await page.getByLabel("Name").fill("ada");
    await page.getByLabel("Password").fill("ada-password-1");
    await page.getByRole("button", { name: "Sign in" }).click();
    await page.getByRole("link", { name: /Garden/ }).click();
    await page.getByText("This message cannot be read on this device").first().waitFor();
    await shoot([second], "locked");
    await page.getByRole("button", { name: /^Unlock your messages/ }).click();
    await page.getByLabel("Recovery key").fill("EsTx not the key");
    await page.getByRole("button", { name: "Unlock", exact: true }).click();
    await page.getByText("This is not the recovery key of this account.").waitFor();
    await page.getByLabel("Recovery key").fill(key);
    await page.getByRole("button", { name: "Unlock", exact: true }).click();
    await second.sees(secret);
    await page.locator("dialog").waitFor({ state: "detached" });
    await second.say("read on the second device");
    await bob.sees("read on the second device");
    await shoot([second], "unlocked");
}

/** What people expect of a conversation: answers, changes, reactions, markup, files, receipts, and what is new. */
import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { checkAccess } from "./access.mjs";

const shots = process.env.SHOTS; // a folder for pictures, to look at
if (shots) mkdirSync(shots, { recursive: true });

/** Each screen that is worth a picture is looked at by axe, too. */
export async function shoot(people, name) {
    for (const person of people) await checkAccess(person, name);
    if (!shots) return;
    for (const { name: who, page } of people) {
        for (const colorScheme of ["light", "dark"]) {
            await page.emulateMedia({ colorScheme });
            await page.screenshot({ path: `${shots}/${name}-${who}-${colorScheme}.png` });
        }
        await page.emulateMedia({ colorScheme: "light" });
    }
}

async function answersAndChanges(ada, bob) {
    await ada.say("Who brings the **cake** on _Thursday_? See https://example.org/cake");
    await bob.page.locator(".bubble strong", { hasText: "cake" }).waitFor();
    await bob.page.locator(".bubble em", { hasText: "Thursday" }).waitFor();
    const link = bob.page.locator('.bubble a[href="https://example.org/cake"]');
    assert.equal(await link.getAttribute("rel"), "noopener noreferrer");

    // By touch: a long press opens the sheet.
    const bubble = await bob.page.locator(".bubble", { hasText: "Who brings" }).boundingBox();
    const at = { x: bubble.x + 20, y: bubble.y + bubble.height - 12 };
    const touch = await bob.context.newCDPSession(bob.page);
    await touch.send("Input.dispatchTouchEvent", { type: "touchStart", touchPoints: [at] });
    await bob.page.locator("dialog.menu").waitFor();
    await touch.send("Input.dispatchTouchEvent", { type: "touchEnd", touchPoints: [] });
    await shoot([bob], "menu");
    await bob.page.getByRole("button", { name: "React with 🎉" }).click();
    await ada.page.getByRole("button", { name: "🎉 1 by bob" }).waitFor();
    await ada.page.getByRole("button", { name: "🎉 1 by bob" }).click();
    await bob.page.getByRole("button", { name: /🎉 2 by .*ada/ }).waitFor();
    await bob.page.getByRole("button", { name: /🎉 2 by/ }).click();
    await ada.page.getByRole("button", { name: "🎉 1 by ada", exact: true }).waitFor();

    await bob.act("Who brings", "Reply");
    await bob.say("I do, @ada");
    await ada.page.locator(".bubble .quote", { hasText: "Who brings" }).waitFor();
    await ada.page.locator(".bubble .pill", { hasText: "@ada" }).waitFor();

    // By keyboard: up in an empty line changes the last message.
    await ada.page.getByLabel(/^Message to/).press("ArrowUp");
    await ada.page.getByText("Change your message").waitFor();
    await ada.say("Who brings the cake on Friday?");
    await bob.sees("on Friday?");
    await bob.page.locator(".stamp", { hasText: "edited" }).waitFor();
    await bob.page.locator(".bubble", { hasText: "Thursday" }).first().waitFor({ state: "detached" });

    // By mouse: the buttons beside a message.
    await ada.say("A slip of the tongue");
    await bob.sees("A slip of the tongue");
    const slip = ada.page.locator(".message", { hasText: "A slip of the tongue" });
    await slip.hover();
    await slip.getByRole("button", { name: "More" }).click();
    await ada.page.getByRole("button", { name: "Remove", exact: true }).click();
    await shoot([ada], "menu");
    await ada.page.getByRole("button", { name: "Remove for everybody" }).click();
    await bob.page.locator(".style-removed").waitFor();
    await bob.page.locator(".bubble", { hasText: "A slip" }).waitFor({ state: "detached" });
    await ada.page.getByLabel("Read by bob").waitFor();
}

async function files(ada, bob) {
    await ada.page.getByLabel("Files to send").setInputFiles([{ name: "notes.html", mimeType: "text/html", buffer: Buffer.from("<script>document.title = 'run'</script>") }]);
    await ada.page.getByRole("dialog").getByRole("button", { name: "Send", exact: true }).click();
    const [saved] = await Promise.all([bob.page.waitForEvent("download"), bob.page.locator(".file", { hasText: "notes.html" }).click()]);
    assert.equal(saved.suggestedFilename(), "notes.html");
}

async function hostile(ada, bob) {
    // Sent past the app, as somebody with bad intentions would.
    const html = `<img src=x onerror="window.hacked=1"><svg onload="window.hacked=1"></svg><a href="javascript:window.hacked=1">innocent</a><script>window.hacked=1</script><p style="position:fixed;inset:0">over all</p><span data-mx-color="#ff0000">red</span>`;
    const content = { msgtype: "m.text", body: "hostile", format: "org.matrix.custom.html", formatted_body: html };
    await ada.request("PUT", `/_matrix/client/v3/rooms/${encodeURIComponent(ada.roomId)}/send/m.room.message/hostile`, content);
    const bubble = bob.page.locator(".bubble", { hasText: "innocent" });
    await bubble.waitFor();
    assert.deepEqual(await bubble.evaluate((element) => [element.querySelectorAll("img, svg, script, a, [style*=position]").length, window.hacked]), [0, undefined]);
    assert.equal(await bubble.locator("span", { hasText: /^red$/ }).evaluate((span) => getComputedStyle(span).color), "rgb(255, 0, 0)");
}

async function whatIsNew(ada, bob) {
    await bob.page.getByRole("button", { name: "All conversations" }).click();
    for (let i = 1; i <= 35; i++) await ada.say(`new ${i}`);
    await bob.page.getByLabel("35 unread").waitFor();
    await bob.page.getByRole("link", { name: /Garden/ }).click();
    await bob.sees("new 35");
    await bob.page.getByRole("button", { name: "New messages" }).click();
    const line = bob.page.getByRole("heading", { name: "New messages" });
    await line.waitFor();
    assert.ok(await line.evaluate((element) => element.getBoundingClientRect().top > 0 && element.getBoundingClientRect().top < innerHeight), "the line is in sight");
    await shoot([bob], "unread");
    await bob.page.getByRole("button", { name: "Latest" }).click();
}

/** Reading back draws few messages, and what is read stays where it is while older ones come. */
async function readBack(bob) {
    const { page } = bob;
    const log = page.locator(".messages");
    for (let i = 1; i <= 300; i++) await bob.request("PUT", `/_matrix/client/v3/rooms/${encodeURIComponent(bob.longId)}/send/m.room.message/long${i}`, { msgtype: "m.text", body: `line ${i}${" and so on".repeat(i % 23)}` });
    await page.getByRole("button", { name: "All conversations" }).click();
    await page.getByRole("link", { name: /Diary/ }).click();
    await bob.sees("line 300");
    const first = () => log.evaluate((box) => [...box.querySelectorAll(".message")].map((row) => [row.dataset.key, row.getBoundingClientRect().top]).find(([, top]) => top > 120));
    for (let i = 0; i < 40 && !(await page.getByText("This is where it begins.").isVisible()); i++) {
        await log.evaluate((box) => (box.scrollTop = Math.min(box.scrollTop, 700))); // so that more comes, in its time
        await page.evaluate(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))));
        const [key, top] = await first();
        await log.evaluate((box) => box.dispatchEvent(new Event("scroll")));
        await page.waitForFunction(() => !document.querySelector(".beginning .spinner"));
        const after = await log.locator(`[data-key="${key}"]`).evaluate((row) => row.getBoundingClientRect().top);
        assert.ok(Math.abs(after - top) < 2, `the reader's place moved by ${after - top}`);
        assert.ok((await log.locator(".message").count()) <= 200, "no more is drawn than is near the screen");
        if ((await log.evaluate((box) => box.scrollTop)) < 100) break;
        await log.evaluate((box) => (box.scrollTop = 0));
    }
    await bob.sees("line 1 "); // as "line 1 and so on"
    await page.locator(".day button").first().click();
    await shoot([bob], "day");
    await page.getByLabel("Day", { exact: true }).fill(await page.evaluate(() => new Date().toLocaleDateString("sv")));
    await page.getByRole("button", { name: "Go there" }).click();
    await page.locator("dialog").waitFor({ state: "detached" });
    await page.getByRole("button", { name: "Latest" }).click();
    await bob.sees("line 300");
    await page.getByRole("button", { name: "All conversations" }).click();
    await page.getByRole("link", { name: /Garden/ }).click();
}

async function pollAndPin(ada, bob) {
    const { page } = ada;
    await page.getByRole("button", { name: "New poll" }).click();
    await page.getByLabel("Question").fill("Which day suits?");
    await page.getByLabel("Answer 1").fill("Thursday");
    await page.getByRole("button", { name: "Ask" }).click();
    await page.getByLabel("Answer 2").fill("Friday");
    await shoot([ada], "new-poll");
    await page.getByRole("button", { name: "Ask" }).click();
    const theirs = bob.page.getByRole("group", { name: "Poll: Which day suits?" });
    await theirs.getByRole("button", { name: "Friday" }).click();
    await theirs.getByRole("button", { name: "Thursday" }).click(); // another choice takes the place of the first
    const hers = page.getByRole("group", { name: "Poll: Which day suits?" });
    await hers.getByText("1 vote", { exact: true }).waitFor();
    await hers.getByRole("button", { name: "Thursday" }).click();
    await theirs.getByRole("button", { name: "Thursday 2 votes" }).waitFor();
    await theirs.getByRole("button", { name: "Friday 0 votes" }).waitFor();
    assert.equal(await theirs.getByRole("button", { name: "End the poll" }).count(), 0, "who did not ask does not end it");
    await shoot([bob], "poll");
    await hers.getByRole("button", { name: "End the poll" }).click();
    await theirs.getByText("The poll is over.").waitFor();
    assert.ok(await theirs.getByRole("button", { name: "Thursday" }).isDisabled());

    await ada.act("Which day suits?", "Pin");
    await bob.page.getByRole("button", { name: "1 pinned message" }).click();
    assert.equal(await bob.page.getByRole("button", { name: "Unpin" }).count(), 0, "who may not pin does not unpin");
    await shoot([bob], "pins");
    await bob.page.locator(".pin-text", { hasText: "Which day suits?" }).click();
    await bob.page.locator(".message:focus", { hasText: "Which day suits?" }).waitFor();
    await page.getByRole("button", { name: "1 pinned message" }).click();
    await page.getByRole("button", { name: "Unpin" }).click();
    await page.keyboard.press("Escape");
    await bob.page.getByRole("button", { name: "1 pinned message" }).waitFor({ state: "detached" });
}

async function talkAside(ada, bob) {
    const [hers, his] = [ada, bob].map(({ page }) => page.locator(".thread-pane"));
    const reply = async ({ page }, text) => {
        await page.getByLabel("Reply in the thread").fill(text);
        await page.locator(".thread-pane button.send").click();
    };
    await ada.say("Let us talk about the shed");
    await ada.act("Let us talk about the shed", "Reply in a thread");
    await reply(ada, "It leaks");
    const line = bob.page.getByRole("button", { name: /^1 reply/ });
    await line.waitFor();
    assert.equal(await bob.page.locator(".bubble", { hasText: "It leaks" }).count(), 0, "the reply stands in its thread alone");
    await line.click();
    await his.locator(".bubble", { hasText: "It leaks" }).waitFor();
    await reply(bob, "I have a tarpaulin");
    await hers.locator(".bubble", { hasText: "I have a tarpaulin" }).waitFor();
    await ada.page.getByRole("button", { name: /^2 replies/ }).waitFor();
    await shoot([ada, bob], "thread");
    await bob.page.reload(); // from the server, for those who have not loaded so far back
    await his.locator(".bubble", { hasText: "It leaks" }).waitFor();
    await his.locator(".bubble", { hasText: "Let us talk about the shed" }).waitFor();
    for (const { page } of [ada, bob]) {
        await page.getByLabel("Reply in the thread").focus();
        await page.keyboard.press("Escape");
        await page.locator(".thread-pane").waitFor({ state: "detached" });
    }
}

export async function talkRichly(ada, bob) {
    await answersAndChanges(ada, bob);
    await files(ada, bob);
    await hostile(ada, bob);
    await ada.say("A list:\n- one\n- two\n\n```js\nconst x = 1;\n```\n> and a quote");
    await bob.page.locator(".bubble pre .code-keyword", { hasText: "const" }).waitFor();
    await pollAndPin(ada, bob);
    await talkAside(ada, bob);
    await shoot([ada, bob], "rich");
    await whatIsNew(ada, bob);
    bob.longId = JSON.parse(await bob.request("POST", "/_matrix/client/v3/createRoom", { name: "Diary" })).room_id;
    await readBack(bob);
}

/**
 * That the app is for everybody: by keys alone, in every language, from right to left, in light and dark, with axe on
 * every screen; and that it asks nothing of other hosts. Part of npm run e2e; SHOTS=folder takes pictures.
 */
import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { checkAccess } from "./access.mjs";
import { DESKTOP, PHONE } from "./browser.mjs";
import { holds, Person, play } from "./people.mjs";

const shots = process.env.SHOTS;
if (shots) mkdirSync(shots, { recursive: true });
const MAX_TABS = 60;

/** Looks at what is on the screen with axe, in light and dark. */
async function check(person, where) {
    for (const colorScheme of ["light", "dark"]) {
        await person.page.emulateMedia({ colorScheme });
        await checkAccess(person, `${where}, ${colorScheme}`);
        if (shots) await person.page.screenshot({ path: `${shots}/${where.replaceAll(" ", "-")}-${person.name}-${colorScheme}.png` });
    }
    await person.page.emulateMedia({ colorScheme: "light" });
}

/** What has the focus, and whether that can be seen. */
function focused(page) {
    return page.evaluate(() => {
        const at = document.activeElement;
        const isDrawn = (element) => {
            const { outlineStyle, outlineWidth, boxShadow } = getComputedStyle(element);
            return (outlineStyle !== "none" && outlineWidth !== "0px") || boxShadow !== "none";
        };
        // A field's frame, a bubble in its row and the words of a choice show the focus of what is in or beside them.
        const around = [at, at.parentElement, at.parentElement?.parentElement, at.nextElementSibling, at.querySelector(".bubble")].filter(Boolean);
        const { width, height } = at.getBoundingClientRect();
        return { name: at.getAttribute("aria-label") ?? at.labels?.[0]?.textContent?.trim() ?? at.textContent.trim(), tag: at.tagName, shown: at === document.body || at.tagName === "DIALOG" || (width > 0 && height > 0 && around.some(isDrawn)) };
    });
}

/** Goes with the Tab key to what bears a name; every place on the way shows that it has the focus. */
async function tabTo(page, name, key = "Tab") {
    const passed = [];
    for (let i = 0; i < MAX_TABS; i++) {
        const at = await focused(page);
        if (at.tag !== "BODY") assert.ok(at.shown, `${at.tag} “${at.name}” has the focus and does not show it`);
        if (name.test(at.name)) return;
        passed.push(at.name);
        await page.keyboard.press(key);
    }
    assert.fail(`no way to ${name} by keys; passed ${passed.join(" | ")}`);
}

/** From nothing to a conversation without a mouse. */
async function byKeys(browser, origin) {
    const ada = await Person.open(browser, "ada", DESKTOP);
    const { page } = ada;
    const { keyboard } = page;
    await page.goto(`${origin}/#/signup`);
    await page.locator("input:focus").waitFor();
    await check(ada, "welcome");
    await keyboard.type("ada");
    await tabTo(page, /^Password/);
    await keyboard.type("ada-password-1");
    await keyboard.press("Enter");
    await page.getByText("No conversations yet.").waitFor();
    await page.locator('[data-transport="socket"]').waitFor();
    await check(ada, "empty");

    await tabTo(page, /^New conversation$/);
    await keyboard.press("Enter");
    await page.locator("dialog input:focus").waitFor();
    await check(ada, "new");
    await keyboard.press("Escape");
    await page.locator("dialog").waitFor({ state: "detached" });
    assert.match((await focused(page)).name, /^New conversation$/, "the focus is back where the dialog was opened");
    await keyboard.press("Enter");
    await page.locator("dialog input:focus").waitFor();
    await tabTo(page, /One person/, "Shift+Tab");
    await keyboard.press("ArrowRight");
    await tabTo(page, /^Name of the room/);
    await keyboard.type("Orchard");
    await keyboard.press("Enter");
    await page.getByRole("heading", { name: "Orchard" }).waitFor();
    await page.locator("textarea:focus").waitFor();
    await page.waitForFunction(() => document.title === "Orchard · hubbub"); // set once all is drawn

    await keyboard.type("said without a mouse");
    await keyboard.press("Enter");
    await page.locator(".message[data-event]", { hasText: "without a mouse" }).waitFor();
    await tabTo(page, /^Messages$/, "Shift+Tab");
    await keyboard.press("ArrowUp");
    await page.locator(".message:focus").waitFor();
    await keyboard.press("Enter");
    await page.locator("dialog.menu").waitFor();
    await check(ada, "menu");
    await tabTo(page, /^React with 🎉$/);
    await keyboard.press("Enter");
    await page.getByRole("button", { name: "🎉 1 by ada" }).waitFor();
    await page.locator(".message:focus").waitFor(); // the focus is back on the message
    await keyboard.press("Enter");
    await page.locator("dialog.menu").waitFor();
    await tabTo(page, /^Reply in a thread$/);
    await keyboard.press("Enter");
    await page.locator(".thread-pane textarea:focus").waitFor();
    await keyboard.type("beside it");
    await keyboard.press("Enter");
    await page.locator(".thread-pane .message", { hasText: "beside it" }).waitFor();
    await check(ada, "thread");
    await keyboard.press("Escape");
    await page.locator(".thread-pane").waitFor({ state: "detached" });
    await page.locator(".message:focus", { hasText: "without a mouse" }).waitFor(); // a thread that was closed gives the focus back

    await tabTo(page, /^About this room$/, "Shift+Tab");
    await keyboard.press("Enter");
    await page.locator("dialog[open]").waitFor();
    await check(ada, "room settings");
    await keyboard.press("Escape");
    await page.locator("dialog").waitFor({ state: "detached" });
    assert.match((await focused(page)).name, /^About this room$/);
    await tabTo(page, /^Account of/, "Shift+Tab");
    await keyboard.press("Enter");
    await page.locator("dialog[open]").waitFor();
    await check(ada, "account");
    await tabTo(page, /^Close$/);
    await keyboard.press("Enter");
    await page.locator("dialog").waitFor({ state: "detached" });
    assert.match((await focused(page)).name, /^Account of/);
    // The first stop leads past the list.
    await tabTo(page, /^Skip to the conversation$/, "Shift+Tab");
    await keyboard.press("Enter");
    await page.locator("main:focus").waitFor();
    return ada;
}

/** What others say is spoken, once; what one reads from before is not. */
async function isAnnounced(browser, origin, ada) {
    const bob = await Person.open(browser, "bob", PHONE);
    await bob.signUp(origin);
    await ada.page.getByRole("button", { name: "Invite people" }).click();
    await ada.page.getByLabel("People", { exact: true }).fill("bob");
    await ada.page.getByRole("button", { name: "Invite", exact: true }).click();
    await ada.page.locator("dialog").waitFor({ state: "detached" });
    await bob.page.getByRole("button", { name: "Accept" }).click();
    await bob.page.getByLabel(/^Message to/).waitFor();
    const spoken = ada.page.locator(".messages-frame > [role=status]");
    assert.equal(await spoken.textContent(), "");
    await bob.say("can you hear me");
    await ada.page.locator(".messages-frame > [role=status]", { hasText: "bob: can you hear me" }).waitFor();
    await ada.say("loud and clear");
    await bob.sees("loud and clear");
    assert.equal(await spoken.textContent(), "bob: can you hear me", "what one says is not told to oneself");
    await bob.say("متى نلتقي غدًا؟ see https://example.org");
    return bob;
}

const overflow = (page) => page.evaluate(() => document.documentElement.scrollWidth - innerWidth);

/** Every language, first by the browser's wish, then by one's own. */
async function inAllTongues(browser, origin, ada, bob) {
    for (const [locale, words] of [["de-AT", "Anmelden"], ["es-MX", "Iniciar sesión"], ["ar-EG", "تسجيل الدخول"], ["zh-CN", "登录"]]) {
        const context = await browser.newContext({ ...PHONE, locale });
        const guest = new Person(`guest ${locale}`, context, await context.newPage());
        await guest.page.goto(`${origin}/#/signin`);
        await guest.page.getByRole("button", { name: words }).waitFor();
        const page = await guest.page.evaluate(() => [document.documentElement.lang, document.documentElement.dir]);
        assert.deepEqual(page, [locale.slice(0, 2), locale === "ar-EG" ? "rtl" : "ltr"]);
        await check(guest, `welcome ${locale.slice(0, 2)}`);
        assert.equal(await overflow(guest.page), 0, `${locale}: nothing sticks out`);
        await guest.page.locator("select").selectOption({ label: "English" }); // by one's own wish, before there is an account
        await guest.page.getByRole("button", { name: "Sign in" }).waitFor();
        assert.equal(await guest.page.evaluate(() => document.documentElement.dir), "ltr");
        await context.close();
    }
    for (const [person, size] of [[ada, "desk"], [bob, "phone"]]) {
        const { page } = person;
        if (size === "phone") await page.getByRole("button", { name: "All conversations" }).click();
        await page.getByRole("button", { name: /^Account/ }).click();
        await page.getByLabel("Language").selectOption({ label: "العربية" });
        await page.locator('html[dir="rtl"][lang="ar"]').waitFor({ state: "attached" });
        await page.getByRole("heading", { name: "المحادثات" }).waitFor();
        await page.keyboard.press("Escape");
        await check(person, `list ar ${size}`);
        await page.getByRole("link", { name: /Orchard/ }).click();
        await page.locator(".bubble", { hasText: "متى نلتقي" }).waitFor();
        await check(person, `room ar ${size}`);
        assert.equal(await overflow(page), 0, "nothing sticks out");
        if (size === "desk") await readsFromTheRight(page);
        await page.getByRole("button", { name: size === "desk" ? "من هو \u2068bob\u2069؟" : "من هو \u2068ada\u2069؟" }).first().click();
        await page.locator("dialog[open]").waitFor();
        await check(person, `profile ar ${size}`);
        await page.keyboard.press("Escape");
        await page.locator("dialog").waitFor({ state: "detached" });
        await page.getByRole("button", { name: "إرفاق" }).click();
        await check(person, `attach ar ${size}`);
        await page.keyboard.press("Escape");
        await page.getByRole("button", { name: "عن هذه الغرفة" }).click();
        await check(person, `settings ar ${size}`);
        await page.keyboard.press("Escape");
        await page.locator("dialog").waitFor({ state: "detached" });
        await person.act("loud and clear", "رد");
        await page.locator("textarea:focus").waitFor();
        await page.keyboard.press("Escape");
        await page.locator(".message", { hasText: "loud and clear" }).press("Enter");
        await page.locator("dialog.menu").waitFor();
        await check(person, `menu ar ${size}`);
        if (size === "desk") assert.ok((await page.locator("dialog.menu").boundingBox()).x < 400, "the menu is beside its message");
        await page.keyboard.press("Escape");
        if (size === "phone") await page.getByRole("button", { name: "كل المحادثات" }).click();
        await page.getByRole("button", { name: /^حساب/ }).click();
        await check(person, `account ar ${size}`);
        await page.getByLabel("اللغة").selectOption({ label: "English" });
        await page.getByRole("heading", { name: "Conversations" }).waitFor();
        await page.keyboard.press("Escape");
    }
}

/** The list is at the right, one's own messages at the left, and what is English inside still reads from the left. */
async function readsFromTheRight(page) {
    const places = await page.evaluate(() => {
        const box = (selector, text) => [...document.querySelectorAll(selector)].find((element) => element.textContent.includes(text)).getBoundingClientRect();
        const own = box(".bubble", "without a mouse");
        const log = document.querySelector(".messages").getBoundingClientRect();
        return { list: document.querySelector(".list-pane").getBoundingClientRect().left, log: log.left, own: own.left - log.left < log.right - own.right, back: getComputedStyle([...document.querySelectorAll(".icon.pointing")].find((icon) => icon.getClientRects().length > 0)).transform, english: getComputedStyle([...document.querySelectorAll(".bubble")].find((bubble) => bubble.textContent.includes("can you hear"))).direction };
    });
    assert.ok(places.list > places.log, "the list is at the right");
    assert.ok(places.own, "what one says is at the left");
    assert.equal(places.english, "ltr", "English in it reads from the left");
    assert.equal(places.back, "matrix(-1, 0, 0, 1, 0, 0)", "what points is turned round");
}

/** Markup that would load, run or send something if it could. */
const HOSTILE = `<img src="https://evil.example/pixel.png" onerror="document.title='run'"><svg onload="document.title='run'"></svg><script>document.title='run'</script><style>@import url(https://evil.example/x.css)</style><a href="javascript:document.title='run'">a link</a><iframe src="https://evil.example/"></iframe><span data-mx-bg-color="url(https://evil.example/x)">a colour</span><form action="https://evil.example/"><input name="x"></form>still here`;

/** Nothing that others write runs, or makes the page ask anybody but its own server. */
async function isSafe(ada, bob) {
    await bob.request("PUT", `/_matrix/client/v3/rooms/${encodeURIComponent(bob.roomId)}/send/m.room.message/hostile`, { msgtype: "m.text", body: "still here", format: "org.matrix.custom.html", formatted_body: HOSTILE });
    await ada.sees("still here");
    const bubble = ada.page.locator(".bubble", { hasText: "still here" });
    assert.equal(await bubble.locator("img, svg, script, style, iframe, form, input, a").count(), 0, "nothing of it is there");
    await ada.page.waitForFunction(() => document.title === "Orchard · hubbub"); // also once it has been read
    // Text cannot become a script or markup, whoever tries: the policy stands in the way.
    const apart = await ada.context.newPage(); // the browser tells of each, which is no fault
    await apart.goto(new URL(ada.page.url()).origin);
    const refused = await apart.evaluate(async () => {
        const attempt = (action) => {
            try {
                action();
                return "let through";
            } catch (error) {
                return error.name;
            }
        };
        return [
            attempt(() => (document.createElement("div").innerHTML = "<b>x</b>")),
            attempt(() => (document.createElement("script").src = "https://evil.example/x.js")),
            await new Promise((done) => setTimeout(() => done(attempt(() => new Function("return 1"))))), // the debugger itself may
            attempt(() => trustedTypes.createPolicy("other", { createHTML: (text) => text })),
            attempt(() => trustedTypes.createPolicy("default", { createHTML: (text) => text })),
        ];
    });
    assert.deepEqual(refused, ["TypeError", "TypeError", "EvalError", "TypeError", "TypeError"]);
    await apart.close();
}

/** Who signs out leaves nothing of themselves on the device. */
async function leavesNothing(ada) {
    const { page } = ada;
    await page.getByLabel(/^Message to/).fill("begun and not sent");
    await page.getByRole("button", { name: /^Account/ }).click();
    await page.getByRole("button", { name: "Sign out", exact: true }).click();
    await page.getByRole("button", { name: "Sign in" }).waitFor();
    await holds(page, async () => (await indexedDB.databases()).every((db) => !db.name.includes("@")));
    const left = () =>
        page.evaluate(async () => {
            const db = await new Promise((done) => (indexedDB.open("hubbub").onsuccess = (event) => done(event.target.result)));
            const keys = await new Promise((done) => (db.transaction("values").objectStore("values").getAllKeys().onsuccess = (event) => done(event.target.result)));
            db.close();
            const cached = [];
            for (const name of await caches.keys()) for (const request of await (await caches.open(name)).keys()) cached.push(new URL(request.url).pathname);
            return { keys, local: Object.keys(localStorage), session: Object.keys(sessionStorage), cached: cached.filter((path) => path.startsWith("/_")), databases: (await indexedDB.databases()).map((each) => each.name), title: document.title };
        });
    await holds(page, async () => {
        const db = await new Promise((done) => (indexedDB.open("hubbub").onsuccess = (event) => done(event.target.result)));
        const count = await new Promise((done) => (db.transaction("values").objectStore("values").count().onsuccess = (event) => done(event.target.result)));
        db.close();
        return count === 0;
    }).catch(() => undefined); // what is left is told below
    assert.deepEqual(await left(), { keys: [], local: ["hubbub-look"], session: [], cached: [], databases: ["hubbub"], title: "hubbub" });
    await page.getByLabel("Name").fill("ada");
    await page.getByLabel("Password").fill("ada-password-1");
    await page.getByRole("button", { name: "Sign in" }).click();
    await page.getByRole("link", { name: /Orchard/ }).click();
    assert.equal(await page.getByLabel(/^Message to/).inputValue(), "");
}

/** Every request of every page and service worker. */
function watchRequests(context, asked) {
    context.on("request", (request) => asked.push(request.url()));
}

const asked = [];
/** User-interactive authentication begins with a 401 (spec), and pages without a preview are reported by the browser. */
const isExpected = (error) => (error.includes("401") && error.includes("/register")) || error.includes("/preview_url");

await play(isExpected, async ({ server, browser, people }) => {
    const ada = await byKeys(browser, server.origin);
    people.push(ada);
    watchRequests(ada.context, asked);
    const bob = await isAnnounced(browser, server.origin, ada);
    people.push(bob);
    watchRequests(bob.context, asked);
    await isSafe(ada, bob);
    await inAllTongues(browser, server.origin, ada, bob);
    await leavesNothing(ada);
    const elsewhere = asked.filter((url) => !url.startsWith(`${server.origin}/`) && !url.startsWith(`blob:${server.origin}/`) && !url.startsWith("data:"));
    assert.deepEqual(elsewhere, [], "nobody else is asked for anything");
    assert.ok(asked.some((url) => url.includes("/_matrix/")), "and requests were seen");
});
console.log("ok: by keys, in every language, from both sides, in light and dark");

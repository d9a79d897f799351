/**
 * Being told: what the server sends to a push service reaches the service worker of a browser, which shows it. The push
 * service is the test's own, for the browser's needs the network; from there on the browser's debugger delivers.
 */
import assert from "node:assert/strict";
import { cp, mkdtemp, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { DESKTOP, PHONE } from "./browser.mjs";
import { Person, play } from "./people.mjs";
import { PushService } from "./pushservice.mjs";
import { shoot } from "./timeline.mjs";

/** What stands in for the browser's own way to its push service. */
function subscribeWith(subscription) {
    let current = null;
    if (self.origin === "null") return;
    const made = { ...subscription, toJSON: () => subscription, unsubscribe: async () => ((current = null), true) };
    PushManager.prototype.subscribe = async (options) => {
        if (!options.userVisibleOnly || !options.applicationServerKey) throw new TypeError("a subscription without a key");
        return (current = made);
    };
    PushManager.prototype.getSubscription = async () => current ?? (localStorage.getItem("hubbub-test-subscribed") ? made : null);
}

class Told extends Person {
    static async open(browser, name, size, service) {
        const context = await browser.newContext({ ...size, permissions: ["notifications"] });
        await context.addInitScript(() => {
            // Nobody was asked yet, as in a real browser.
            if (self.origin === "null") return;
            let answer = localStorage.getItem("hubbub-test-subscribed") ? "granted" : "default";
            Object.defineProperty(Notification, "permission", { get: () => answer });
            Notification.requestPermission = async () => (answer = "granted");
        });
        await context.addInitScript(subscribeWith, service.subscribe());
        const person = new Told(name, context, await context.newPage());
        person.service = service;
        return person;
    }

    /** From the push service to the service worker. */
    async deliver(message) {
        assert.equal(message.error, undefined);
        this.cdp ??= await this.attach();
        this.delivered = message;
        await this.cdp.send("ServiceWorker.deliverPushMessage", { origin: this.origin, registrationId: await this.registration, data: JSON.stringify(message) });
        return message;
    }

    async attach() {
        const blank = await this.context.newPage(); // the debugger needs a page, which may be any
        await blank.goto(`${this.origin}/favicon.svg`);
        const cdp = await this.context.newCDPSession(blank);
        this.registration = new Promise((done) => cdp.on("ServiceWorker.workerRegistrationUpdated", ({ registrations }) => registrations.forEach((each) => done(each.registrationId))));
        await cdp.send("ServiceWorker.enable");
        await this.registration;
        await blank.goto("about:blank");
        return cdp;
    }

    get worker() {
        return this.context.serviceWorkers()[0];
    }

    /** What is on the screen: titles and texts. */
    shown() {
        return this.worker.evaluate(async () => (await self.registration.getNotifications()).map(({ title, body }) => `${title} | ${body}`));
    }

    async sawNotification(wanted) {
        for (let tries = 0; ; tries++) {
            const shown = await this.shown();
            if (JSON.stringify(shown) === JSON.stringify(wanted)) return;
            assert.ok(tries < 100, `notifications ${JSON.stringify(shown)}, want ${JSON.stringify(wanted)}, after ${JSON.stringify(this.delivered)} was pushed`);
            await new Promise((done) => setTimeout(done, 100));
        }
    }

    /** A press on the notification, or on one of its buttons. */
    press(action, reply) {
        return this.worker.evaluate(
            async ([which, text]) => {
                const [notification] = await self.registration.getNotifications();
                const event = new NotificationEvent("notificationclick", { notification, action: which });
                if (text !== undefined) Object.defineProperty(event, "reply", { value: text });
                self.dispatchEvent(event);
            },
            [action, reply],
        );
    }
}

async function beTold(browser, origin, people) {
    const service = await PushService.start();
    try {
        const dora = await Person.open(browser, "dora", DESKTOP);
        const emil = await Told.open(browser, "emil", PHONE, service);
        emil.origin = origin;
        people.push(dora, emil);
        await Promise.all([dora.signUp(origin), emil.signUp(origin)]);
        await meet(dora, emil);
        await turnOn(emil, service);
        await beNotified(dora, emil, service, origin);
        await chooseForRoom(dora, emil, service);
        await turnOff(emil);
    } finally {
        await service.stop();
    }
}

async function meet(dora, emil) {
    await dora.page.getByRole("button", { name: "New conversation" }).first().click();
    await dora.page.getByText("A group").click();
    await dora.page.getByLabel("Name of the room").fill("Night shift");
    await dora.page.getByLabel("People to invite").fill("emil");
    await dora.page.getByRole("button", { name: "Create room" }).click();
    await emil.page.getByRole("button", { name: "Accept" }).click();
    await emil.page.getByRole("heading", { name: "Night shift" }).waitFor();
    await dora.say("who is awake?");
    await emil.sees("who is awake?");
}

/** The question comes after something was said, and what the server sends then makes the subscription active. */
async function turnOn(emil, service) {
    const { page } = emil;
    const question = page.getByText("Shall we tell you when somebody answers?");
    assert.equal(await question.count(), 0, "nobody is asked before they said anything");
    await emil.say("me");
    await page.getByRole("button", { name: "All conversations" }).click();
    await question.waitFor();
    await shoot([emil], "ask-notifications");
    await page.getByRole("button", { name: "Turn on" }).click();
    await page.getByRole("button", { name: /^Account/ }).click();
    await page.getByText("Waiting for the first sign").waitFor();
    await emil.deliver(await service.next());
    await page.getByText("Also when hubbub is closed. What is said").waitFor();
    assert.ok(await page.getByRole("switch", { name: "On this device" }).isChecked());
    await page.getByRole("switch", { name: "Quiet hours" }).check();
    await page.getByLabel("From").fill("00:00");
    await page.getByLabel("To").fill("23:59");
    await shoot([emil], "notification-settings");
    await page.keyboard.press("Escape");
    await page.evaluate(() => localStorage.setItem("hubbub-test-subscribed", "yes"));
    await page.evaluate(async () => {
        const db = await new Promise((done) => (indexedDB.open("hubbub").onsuccess = (event) => done(event.target.result)));
        for (let notes; notes?.quiet?.to !== "23:59"; await new Promise((done) => setTimeout(done, 50))) {
            notes = await new Promise((done) => (db.transaction("values").objectStore("values").get("push:notes").onsuccess = (event) => done(event.target.result)));
        }
        db.close(); // the worker knows it from now on
    });
}

async function beNotified(dora, emil, service, origin) {
    const { page } = emil;
    // A page that is open, and not looked at, says what it is.
    const roomId = dora.roomId;
    await page.evaluate(() => Object.defineProperty(document, "hasFocus", { value: () => false }));
    await emil.worker.evaluate(() => {
        const all = self.clients.matchAll.bind(self.clients);
        self.clients.matchAll = async (options) => (await all(options)).filter(({ url }) => url.startsWith(self.origin)).map((client) => Object.defineProperty(client, "focused", { value: false }));
    });
    await dora.say("the moon is up");
    const pushed = await emil.deliver(await service.next());
    assert.deepEqual(Object.keys(pushed).sort(), ["event_id", "prio", "room_id", "unread"]);
    assert.equal(pushed.room_id, roomId);
    await emil.sawNotification(["Night shift | dora: the moon is up"]);
    assert.equal(await emil.worker.evaluate(async () => (await self.registration.getNotifications())[0].silent), true, "quiet hours");
    await page.waitForFunction(() => document.title === "(1) hubbub");
    assert.equal(await page.locator("link[rel=icon]").getAttribute("href"), "/favicon-unread.svg");

    // Read on the page, it goes.
    await emil.press("");
    await page.getByRole("heading", { name: "Night shift" }).waitFor();
    await emil.sees("the moon is up");
    await page.waitForFunction(() => document.title === "Night shift · hubbub");
    await emil.sawNotification([]);
    await emil.deliver(await service.next()); // nothing is unread

    // Without a page nothing is known but where it was said.
    await page.goto("about:blank");
    await dora.say("and so is the baby");
    await emil.deliver(await service.next());
    await emil.sawNotification(["Night shift | New message in Night shift"]);
    await emil.press("read");
    assert.deepEqual(await service.next(), { unread: 0 });
    await dora.say("can you take over?");
    await emil.deliver(await service.next());
    await emil.sawNotification(["Night shift | New message in Night shift"]);
    await emil.press("reply", "on my way");
    await page.goto(`${origin}/#/room/${encodeURIComponent(roomId)}`);
    await dora.sees("on my way");
    await emil.sees("can you take over?");
    await page.locator(".is-sending, .is-waiting").waitFor({ state: "detached" });
}

/** Mentions alone: the next that is pushed is what was said when all is told again. */
async function chooseForRoom(dora, emil, service) {
    const { page } = emil;
    const choose = async (what) => {
        await page.getByRole("button", { name: "About this room" }).click();
        await page.getByText(what, { exact: true }).click();
        await page.getByRole("radio", { name: what }).and(page.locator(":checked")).waitFor({ state: "attached" });
        await page.getByRole("button", { name: "Close" }).click();
    };
    const toEvent = async () => {
        for (;;) {
            const message = await service.next();
            if (message.event_id !== undefined) return message.event_id;
        }
    };
    await page.getByRole("button", { name: "About this room" }).click();
    await shoot([emil], "room-notifications");
    await page.getByRole("button", { name: "Close" }).click();
    await choose("Mentions");
    await page.getByRole("button", { name: "All conversations" }).click();
    await dora.say("whispered");
    await page.getByText("dora: whispered").waitFor();
    assert.equal(await page.getByLabel("1 unread").count(), 0);
    await page.getByRole("link", { name: /Night shift/ }).click();
    await choose("All");
    await page.getByRole("button", { name: "All conversations" }).click();
    await dora.say("said aloud");
    const loud = await toEvent();
    await page.getByRole("link", { name: /Night shift/ }).click();
    await page.locator(`[data-event="${loud}"]`, { hasText: "said aloud" }).waitFor();
    await page.getByRole("button", { name: "All conversations" }).click();
}

async function turnOff(emil) {
    const { page } = emil;
    const pushers = async () => JSON.parse(await emil.request("GET", "/_matrix/client/v3/pushers")).pushers;
    const [pusher, ...others] = await pushers();
    assert.deepEqual(others, []);
    assert.equal(pusher.data.activated, true);
    assert.equal(pusher.data.auth, undefined);
    await page.evaluate(() => localStorage.removeItem("hubbub-test-subscribed"));
    await page.getByRole("button", { name: /^Account/ }).click();
    await page.getByRole("switch", { name: "On this device" }).uncheck();
    await page.getByText("You see what is new when you open hubbub.").waitFor();
    for (let tries = 0; (await pushers()).length > 0; tries++) assert.ok(tries < 100, "the pusher stays");
    await page.getByRole("switch", { name: "Quiet hours" }).uncheck();
    await page.keyboard.press("Escape");
}

/** A newer build waits until the person says so; a page that is of that build already is not asked. */
async function beUpdated(browser) {
    const { FakeServer } = await import("../fake/server.mjs");
    const dist = await mkdtemp(join(tmpdir(), "hubbub-dist-"));
    await cp(fileURLToPath(new URL("../../dist", import.meta.url)), dist, { recursive: true });
    const server = new FakeServer({ dist, name: "localhost" });
    const origin = await server.listen();
    const page = await (await browser.newContext(DESKTOP)).newPage();
    const script = () => page.locator("script[type=module]").getAttribute("src");
    try {
        await page.goto(origin);
        await page.evaluate(() => navigator.serviceWorker.ready);
        await page.waitForFunction(() => navigator.serviceWorker.controller !== null);
        server.register({ username: "ada", password: "secret", auth: { type: "m.login.dummy" } });
        await page.goto(`${origin}/#/signin`);
        await page.getByLabel("Name").fill("ada");
        await page.getByLabel("Password").fill("secret");
        await page.getByRole("button", { name: "Sign in" }).click();
        await page.getByRole("heading", { name: "Conversations" }).waitFor();
        const old = (await script()).split("/").at(-1);
        const next = old.replace(/\.js$/, "-next.js");
        assert.ok((await readdir(join(dist, "assets"))).includes(old));
        await rename(join(dist, "assets", old), join(dist, "assets", next));
        for (const name of await readdir(join(dist, "assets"))) if (name.endsWith(".js")) await replaceIn(join(dist, "assets", name), old, next);
        for (const name of ["index.html", "sw.js"]) await replaceIn(join(dist, name), old, next);
        await page.evaluate(async () => (await navigator.serviceWorker.ready).update());
        await page.getByText("A new version is here").waitFor();
        await shoot([{ name: "ada", page }], "update");
        await page.getByRole("button", { name: "Load it now" }).click();
        await page.waitForFunction((name) => document.querySelector("script[type=module]")?.getAttribute("src")?.endsWith(name), next);
        await page.getByRole("heading", { name: "Conversations" }).waitFor();
        assert.equal(await page.getByText("A new version is here").count(), 0);
    } finally {
        await page.context().close();
        await server.close();
        await rm(dist, { recursive: true, force: true });
    }
}

async function replaceIn(path, from, to) {
    const text = await readFile(path, "utf8");
    if (text.includes(from)) await writeFile(path, text.replaceAll(from, to));
}

await play(
    (error) => error.includes("401") && error.includes("/register"),
    async ({ server, browser, people }) => {
        await beTold(browser, server.origin, people);
        await beUpdated(browser);
    },
);
console.log("ok: told of messages, and of a newer build");

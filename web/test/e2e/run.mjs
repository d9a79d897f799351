/**
 * Two people in two browsers, one at a desk and one with a phone, against the real server: npm run e2e.
 *
 * HUBBUB_BIN names the binary (default ../bin/hubbub), CHROMIUM the browser. With --fake it runs against the fake
 * server and the built app in dist, to find out whether a failure is the app's or the server's.
 */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { DESKTOP, launch, PHONE, watchErrors } from "./browser.mjs";

const here = fileURLToPath(new URL(".", import.meta.url));
const START_MS = 20_000;
const STEP_MS = 15_000;

async function freePort() {
    const server = createServer();
    await new Promise((done) => server.listen(0, "127.0.0.1", done));
    const { port } = server.address();
    await new Promise((done) => server.close(done));
    return port;
}

/** Starts the server and gives its origin and the way to end it. */
async function startServer() {
    if (process.argv.includes("--fake")) {
        const { FakeServer } = await import("../fake/server.mjs");
        const server = new FakeServer({ dist: resolve(here, "../../dist"), name: "localhost" });
        return { origin: await server.listen(), stop: () => server.close() };
    }
    const binary = resolve(process.env.HUBBUB_BIN || process.env.HUBBUB_TEST_BINARY || join(here, "../../../bin/hubbub"));
    const data = await mkdtemp(join(tmpdir(), "hubbub-e2e-"));
    const port = await freePort();
    // The server takes HUBBUB_… for its configuration and refuses what it does not know, as the names of this test.
    const env = Object.fromEntries(Object.entries(process.env).filter(([key]) => !key.startsWith("HUBBUB_")));
    const child = spawn(binary, ["serve", "--test-mode", "--listen", `127.0.0.1:${port}`, "--metrics-listen=", "--data", data], { env, stdio: ["ignore", "pipe", "pipe"] });
    let log = "";
    child.stdout.on("data", (chunk) => (log += chunk));
    child.stderr.on("data", (chunk) => (log += chunk));
    const ended = new Promise((done) => {
        child.once("exit", (code) => done(`exit code ${code}`));
        child.once("error", (error) => done(error.message));
    });
    const stop = async () => {
        child.kill("SIGTERM");
        await ended;
        await rm(data, { recursive: true, force: true });
    };
    const origin = `http://127.0.0.1:${port}`;
    const deadline = Date.now() + START_MS;
    let gone;
    void ended.then((why) => (gone = why));
    for (;;) {
        const up = await fetch(`${origin}/_matrix/client/versions`).then((r) => r.ok, () => false);
        if (up) return { origin, stop, log: () => log };
        if (gone !== undefined || Date.now() > deadline) {
            await stop();
            throw new Error(`the server did not start (${gone ?? "no answer"}):\n${log}`);
        }
        await new Promise((done) => setTimeout(done, 50));
    }
}

/** One person with a browser of their own, and a record of what went over which way. */
class Person {
    constructor(name, context, page) {
        Object.assign(this, { name, context, page, http: [], sent: [], received: [] });
        this.errors = watchErrors(page, name);
        page.setDefaultTimeout(STEP_MS);
        page.on("request", (request) => {
            const { pathname } = new URL(request.url());
            if (pathname.startsWith("/_")) this.http.push(`${request.method()} ${pathname}`);
        });
        page.on("websocket", (socket) => {
            socket.on("framesent", ({ payload }) => this.sent.push(JSON.parse(payload)));
            socket.on("framereceived", ({ payload }) => this.received.push(JSON.parse(payload)));
        });
    }

    static async open(browser, name, size) {
        const context = await browser.newContext(size);
        return new Person(name, context, await context.newPage());
    }

    async signUp(origin) {
        const { page } = this;
        await page.goto(`${origin}/#/signup`);
        await page.getByText("Test mode.").waitFor();
        await page.getByLabel("Name").fill(this.name);
        await page.getByLabel("Password").fill(`${this.name}-password-1`);
        await page.getByRole("button", { name: "Create account" }).click();
        await page.getByRole("heading", { name: "Conversations" }).waitFor();
        await page.locator('[data-transport="socket"]').waitFor();
        await page.getByText("No conversations yet.").waitFor();
    }

    async say(text) {
        await this.page.getByLabel(/^Message to/).fill(text);
        await this.page.getByRole("button", { name: "Send" }).click();
    }

    async sees(text) {
        await this.page.locator(".bubble", { hasText: text }).waitFor();
    }

    /** What stands in the timeline, without the times. */
    async messages() {
        return this.page.locator(".bubble").evaluateAll((bubbles) => bubbles.map((b) => [...b.childNodes].filter((n) => n.nodeType === Node.TEXT_NODE).map((n) => n.data).join("")));
    }

    calls(part) {
        return this.sent.filter((m) => m.op === "req" && m.path.includes(part));
    }
}

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
    assert.deepEqual(await ada.messages(), said, "ada sees all, once, in order");
    assert.deepEqual(await bob.messages(), said, "bob sees all, once, in order");

    // A reload goes on with the session, and a phone goes back to the list.
    await bob.page.reload();
    await bob.page.getByRole("heading", { name: "Garden & bicycles" }).waitFor();
    await bob.page.locator('[data-transport="socket"]').waitFor();
    await bob.sees(said.at(-1));
    assert.deepEqual(await bob.messages(), said, "bob sees the same after a reload");
    await bob.page.getByRole("button", { name: "All conversations" }).click();
    await ada.say("one for the badge");
    await bob.page.getByLabel("1 unread").waitFor();
    await bob.page.getByRole("link", { name: /Garden/ }).click();
    await bob.sees("one for the badge");
}

function checkTransport(person) {
    const { name, http } = person;
    assert.equal(person.calls("/send/m.room.message/").length, name === "ada" ? 5 : 4, `${name}'s messages went over the socket`);
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
    assert.equal(await page.evaluate(async () => (await indexedDB.databases()).filter((db) => db.name.includes("@")).length), 0, "nothing of the account is left");
}

/** User-interactive authentication begins with a 401 (spec), which the browser itself reports. */
const isExpected = (error) => error.includes("401") && error.includes("/register");

const server = await startServer();
const browser = await launch();
const people = [];
try {
    const ada = await Person.open(browser, "ada", DESKTOP);
    const bob = await Person.open(browser, "bob", PHONE);
    people.push(ada, bob);
    await converse(ada, bob, server.origin);
    people.forEach(checkTransport);
    await signOut(ada);
    const errors = people.flatMap((p) => p.errors).filter((e) => !isExpected(e));
    assert.deepEqual(errors, [], "no errors in the consoles");
    console.log("ok: two people signed up, met in a room, and talked over the WebSocket");
} catch (error) {
    for (const { name, page, errors } of people) {
        console.error(`--- ${name}: ${page.url()}\n${errors.join("\n")}\n${await page.locator("body").ariaSnapshot().catch(() => "")}`);
    }
    console.error(server.log?.().slice(-4000) ?? "");
    throw error;
} finally {
    await browser.close();
    await server.stop();
}

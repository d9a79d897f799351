/** The real server, and people with browsers, for the browser tests. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { isDeepStrictEqual } from "node:util";
import { launch, watchErrors } from "./browser.mjs";

const here = fileURLToPath(new URL(".", import.meta.url));
const START_MS = 20_000;
const STEP_MS = 15_000;

/** Looks until it sees what it should; `fail` throws, of what is seen at the end of the time. */
async function until(look, isRight, fail) {
    for (const deadline = Date.now() + STEP_MS; ; await new Promise((done) => setTimeout(done, 50))) {
        const seen = await look();
        if (isRight(seen)) return;
        if (Date.now() > deadline) fail(seen);
    }
}

/** Waits until something holds in the page. Unlike waitForFunction, to which every promise is true, it waits for what is promised. */
export function holds(page, check, argument) {
    return until(() => page.evaluate(check, argument), Boolean, () => assert.fail(`does not come to hold: ${check}`));
}

/** Waits until a list is empty, and says otherwise what is in it. */
export function empty(list) {
    return until(list, (left) => left.length === 0, (left) => assert.fail(`there are still:\n${left.join("\n")}`));
}

async function freePort() {
    const server = createServer();
    await new Promise((done) => server.listen(0, "127.0.0.1", done));
    const { port } = server.address();
    await new Promise((done) => server.close(done));
    return port;
}

/** Starts the server and gives its origin and the way to end it. */
export async function startServer() {
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

/**
 * A test with a server and a browser of its own: act is given both, and puts the people into the list as they come.
 * At its end no page may have complained of anything that isExpected does not know; where it fails, it is told what everybody saw.
 */
export async function play(isExpected, act) {
    const server = await startServer();
    const browser = await launch();
    const people = [];
    try {
        await act({ server, browser, people });
        assert.deepEqual(people.flatMap(({ errors }) => errors).filter((error) => !isExpected(error)), [], "no errors in the consoles");
    } catch (error) {
        for (const { name, page, errors } of people) {
            if (process.env.SHOTS) await page.screenshot({ path: join(process.env.SHOTS, `failed-${name}.png`) }).catch(() => undefined);
            console.error(`--- ${name}: ${page.url()}\n${errors.join("\n")}\n${await page.locator("body").ariaSnapshot().catch(() => "")}`);
        }
        console.error(server.log?.().slice(-4000) ?? "");
        throw error;
    } finally {
        await browser.close();
        await server.stop();
    }
}

/** One person with a browser of their own, and a record of what went over which way. */
export class Person {
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

    /** On another device of somebody who has an account. */
    async signIn(origin, user) {
        const { page } = this;
        await page.goto(`${origin}/#/signin`);
        await page.getByLabel("Name").fill(user);
        await page.getByLabel("Password").fill(`${user}-password-1`);
        await page.getByRole("button", { name: "Sign in" }).click();
        await page.getByRole("heading", { name: "Conversations" }).waitFor();
    }

    /** To the list, on a phone. */
    async back() {
        await this.page.getByRole("button", { name: "All conversations" }).click();
    }

    async say(text) {
        await this.page.getByLabel(/^Message to/).fill(text);
        await this.page.locator("button.send").click();
    }

    async sees(text) {
        await this.page.locator(".bubble", { hasText: text }).last().waitFor();
    }

    /** Waits until the open room shows these messages and no other, once all are decrypted. */
    async shows(messages, why) {
        const inTheRoom = () => this.page.locator(".bubble").evaluateAll((bubbles) => bubbles.map((b) => [...b.childNodes].filter((n) => n.nodeType === Node.TEXT_NODE).map((n) => n.data).join("")));
        await until(inTheRoom, (shown) => isDeepStrictEqual(shown, messages), (shown) => assert.deepEqual(shown, messages, why));
    }

    calls(part) {
        return this.sent.filter((m) => m.op === "req" && m.path.includes(part));
    }

    /** What the server has of the open room, and whatever else with this person's token. */
    async request(method, path, body) {
        return this.page.evaluate(
            async ([verb, address, json]) => {
                const db = await new Promise((done) => (indexedDB.open("hubbub").onsuccess = (event) => done(event.target.result)));
                const session = await new Promise((done) => (db.transaction("values").objectStore("values").get("session").onsuccess = (event) => done(event.target.result)));
                db.close();
                const answer = await fetch(address, { method: verb, headers: { Authorization: `Bearer ${session.accessToken}` }, ...(json ? { body: JSON.stringify(json) } : {}) });
                return answer.text();
            },
            [method, path, body],
        );
    }

    get roomId() {
        return decodeURIComponent(new URL(this.page.url()).hash.split("/").pop());
    }

    async serverSees() {
        return this.request("GET", `/_matrix/client/v3/rooms/${encodeURIComponent(this.roomId)}/messages?dir=b&limit=30`);
    }

    async act(text, action) {
        const bubble = this.page.locator(".message[data-event]", { hasText: text }).last(); // the server has it
        await bubble.focus();
        await bubble.press("Enter");
        await this.page.locator("dialog.menu").getByRole("button", { name: action, exact: true }).click(); // the message has one of that name, too
    }
}

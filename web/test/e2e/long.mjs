/**
 * A room of 10,000 messages, read from its end to its beginning, without a task of more than 50 ms: node test/e2e/long.mjs.
 * Takes a minute or two. MESSAGES names another number, PROFILE a file for what
 * the page's time went into.
 */
import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { DESKTOP, launch } from "./browser.mjs";
import { Person, startServer } from "./people.mjs";

const COUNT = Number(process.env.MESSAGES ?? 10_000);
const AT_ONCE = 16;

async function fill(origin) {
    const call = async (method, path, token, body) => {
        const answer = await fetch(`${origin}/_matrix/client/v3${path}`, { method, headers: token ? { Authorization: `Bearer ${token}` } : {}, body: JSON.stringify(body) });
        const json = await answer.json();
        assert.ok(answer.ok || json.session, JSON.stringify(json));
        return json;
    };
    const sign = async (username) => {
        const form = { username, password: "ada-password-1" };
        const { session } = await call("POST", "/register", undefined, form);
        return (await call("POST", "/register", undefined, { ...form, auth: { type: "m.login.dummy", session } })).access_token;
    };
    const [ada, bob] = [await sign("ada"), await sign("bob")];
    const { room_id: room } = await call("POST", "/createRoom", ada, { name: "Chronicle", invite: ["@bob:localhost"] });
    await call("POST", `/join/${encodeURIComponent(room)}`, bob, {});
    let next = 0;
    const work = async () => {
        while (next < COUNT) {
            const n = next++;
            const body = n % 11 === 0 ? { msgtype: "m.text", body: `${n}`, format: "org.matrix.custom.html", formatted_body: `<p>number <b>${n}</b> with <code>code</code> and <a href="https://example.org/${n}">a link</a></p>` } : { msgtype: "m.text", body: `number ${n} ${"with words ".repeat(n % 13)}` };
            await call("PUT", `/rooms/${encodeURIComponent(room)}/send/m.room.message/n${n}`, n % 5 < 3 ? ada : bob, body);
        }
    };
    await Promise.all(Array.from({ length: AT_ONCE }, work));
}

const server = await startServer();
const browser = await launch();
try {
    await fill(server.origin);
    const { page } = await Person.open(browser, "ada", DESKTOP);
    await page.goto(`${server.origin}/#/signin`);
    await page.getByLabel("Name").fill("ada");
    await page.getByLabel("Password").fill("ada-password-1");
    await page.getByRole("button", { name: "Sign in" }).click();
    await page.getByRole("link", { name: /Chronicle/ }).click();
    await page.locator(".bubble").first().waitFor();
    await page.getByRole("button", { name: /^Keep your recovery key/ }).waitFor(); // the account's keys are made, which is work of another kind
    const cdp = await page.context().newCDPSession(page);
    if (process.env.PROFILE) {
        await cdp.send("Profiler.enable");
        await cdp.send("Profiler.start");
    }
    const result = await page.evaluate(async () => {
        const tasks = [];
        let seen = 0;
        new PerformanceObserver((list) => tasks.push(...list.getEntries().map((task) => ({ at: seen, ms: Math.round(task.duration) })))).observe({ type: "longtask" });
        const box = document.querySelector(".messages");
        const keys = new Set();
        let most = 0;
        for (let still = 0; still < 600; ) {
            const before = keys.size;
            const rows = box.querySelectorAll(".message");
            most = Math.max(most, rows.length);
            for (const row of rows) keys.add(row.dataset.key);
            seen = keys.size;
            still = keys.size === before ? still + 1 : 0;
            if (document.querySelector(".messages p.beginning") && box.scrollTop === 0) break;
            box.scrollTop -= 400;
            await new Promise((done) => requestAnimationFrame(done));
        }
        return { seen, most, tasks };
    });
    if (process.env.PROFILE) writeFileSync(process.env.PROFILE, JSON.stringify((await cdp.send("Profiler.stop")).profile));
    console.log(`${result.seen} messages seen, ${result.most} drawn at most, ${result.tasks.length} long tasks: ${JSON.stringify(result.tasks.slice(0, 40))}`);
    assert.equal(result.seen, COUNT, "every message was to be seen");
    assert.ok(result.most <= 240, "few are drawn");
    assert.deepEqual(result.tasks, [], "no task is longer than 50 ms");
} finally {
    await browser.close();
    await server.stop();
}

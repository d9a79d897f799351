/**
 * A room that is read from its end to its beginning: node test/e2e/long.mjs, part of npm run e2e with 1,000 messages.
 * MESSAGES=10000 STRICT=1 is the proof that no task of the page takes more than 50 ms; it takes two minutes.
 *
 * What does not depend on the machine is asserted: that every message is seen once drawn, how many are drawn, how many
 * nodes the page has, and how often it is laid out for a step. How long tasks take is told: by the clock, which on a
 * busy machine counts the work of others, and by the thread's own time, which STRICT=1 asserts. PROFILE=file keeps what the time
 * went into.
 */
import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { DESKTOP, launch } from "./browser.mjs";
import { Person, startServer } from "./people.mjs";

const COUNT = Number(process.env.MESSAGES ?? 1_000);
const AT_ONCE = 16;
const LONG_MS = 50;
/** Rows that may be drawn: DRAWN in window.ts, and a step and a group more. */
const MAX_ROWS = 240;
/** Some nine nodes for a row, and those of the rest of the page. */
const MAX_NODES = 4_500;
/** A step scrolls, which is one layout; what comes in moves what is seen, which is another, and is measured again. */
const MAX_LAYOUTS = 2;

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

/** Scrolls up, a screen's half in each frame, until there is no more. */
async function readUpwards() {
    const box = document.querySelector(".messages");
    const keys = new Set();
    let [rows, nodes, steps] = [0, 0, 0];
    for (let still = 0; still < 600; steps++) {
        const before = keys.size;
        const drawn = box.querySelectorAll(".message");
        rows = Math.max(rows, drawn.length);
        for (const row of drawn) keys.add(row.dataset.key);
        if (steps % 10 === 0) nodes = Math.max(nodes, document.querySelectorAll("*").length);
        still = keys.size === before ? still + 1 : 0;
        if (document.querySelector(".messages p.beginning") && box.scrollTop === 0) break;
        box.scrollTop -= 400;
        await new Promise((done) => requestAnimationFrame(done));
    }
    return { seen: keys.size, rows, nodes, steps };
}

/** The tasks of the page's own thread, in ms by the clock and by the thread. */
function tasksIn(trace) {
    const { traceEvents } = JSON.parse(trace.toString("utf8"));
    const main = new Set(traceEvents.filter((event) => event.name === "thread_name" && event.args.name === "CrRendererMain").map((event) => `${event.pid}/${event.tid}`));
    const tasks = traceEvents.filter((event) => event.name === "ThreadControllerImpl::RunTask" && event.tdur !== undefined && main.has(`${event.pid}/${event.tid}`));
    return tasks.map((event) => ({ clock: event.dur / 1000, thread: event.tdur / 1000 }));
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
    await cdp.send("Performance.enable");
    const layouts = async () => (await cdp.send("Performance.getMetrics")).metrics.find((metric) => metric.name === "LayoutCount").value;
    if (process.env.PROFILE) {
        await cdp.send("Profiler.enable");
        await cdp.send("Profiler.start");
    }
    await browser.startTracing(page, { categories: ["toplevel", "__metadata"] });
    const before = await layouts();
    const { seen, rows, nodes, steps } = await page.evaluate(readUpwards);
    const perStep = (await layouts()) - before;
    const tasks = tasksIn(await browser.stopTracing());
    if (process.env.PROFILE) writeFileSync(process.env.PROFILE, JSON.stringify((await cdp.send("Profiler.stop")).profile));

    const longest = (by) => Math.max(...tasks.map((task) => task[by])).toFixed(1);
    const long = (by) => tasks.filter((task) => task[by] > LONG_MS).length;
    console.log(`${seen} messages seen in ${steps} steps; at most ${rows} rows and ${nodes} nodes; ${(perStep / steps).toFixed(2)} layouts for a step`);
    console.log(`${tasks.length} tasks; the longest took ${longest("thread")} ms of the thread and ${longest("clock")} ms by the clock; over ${LONG_MS} ms: ${long("thread")} and ${long("clock")}`);
    assert.equal(seen, COUNT, "every message is to be seen");
    assert.ok(rows <= MAX_ROWS, "few are drawn");
    assert.ok(nodes <= MAX_NODES, "the page stays small");
    assert.ok(perStep <= steps * MAX_LAYOUTS, "it is not laid out again and again");
    assert.ok(tasks.length > 0, "tasks were traced");
    if (process.env.STRICT) assert.equal(long("thread"), 0, `no task is longer than ${LONG_MS} ms`);
} finally {
    await browser.close();
    await server.stop();
}

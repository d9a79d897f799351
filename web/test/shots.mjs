/**
 * Takes pictures of the screens, for people to look at: node test/shots.mjs [folder]. Uses the built app (npm run
 * build) and the fake server, so that the pictures hold what is hard to bring about otherwise.
 */
import { mkdirSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { DESKTOP, launch, PHONE, watchErrors } from "./e2e/browser.mjs";
import { FakeServer } from "./fake/server.mjs";

const folder = process.argv[2] ?? fileURLToPath(new URL("./shots", import.meta.url));
const dist = fileURLToPath(new URL("../dist", import.meta.url));
mkdirSync(folder, { recursive: true });

const NAMES = ["ada", "bob", "carol", "dave", "eve"];
const TALK = [
    ["bob", "Morning! Did the new bicycle stand arrive?"],
    ["bob", "The old one is full again."],
    ["ada", "It did. Twelve places, and it even has a roof."],
    ["carol", "Finally 🎉"],
    ["ada", "Pictures are at https://example.org/stand?size=large, and the plan is at www.example.org/plan (second page)."],
    ["dave", "A long one, so that you see how it wraps: the ground there is softer than we thought, which means that the legs have to go down some thirty centimetres more, and somebody would have to come with the big drill on Thursday."],
    ["ada", "I can do Thursday."],
    ["bob", "Two lines\nare fine, too."],
    ["bob", "averyveryverylongwordwithoutanyspacesthatwouldpushthepagewideifnobodyhadthoughtofitaveryveryverylongword"],
];

const server = new FakeServer({ dist });
await server.listen();
const sessions = Object.fromEntries(NAMES.map((name) => [name, { ...server.register({ username: name, password: "secret", auth: { type: "m.login.dummy" } }), txns: new Map() }]));
const id = (name) => `@${name}:example.org`;
let clock = Date.now() - 26 * 3_600_000;
server.clock = () => (clock += 70_000);
let txn = 0;
const say = (who, room, body, msgtype = "m.text") => server.send(id(who), room, "m.room.message", `s${txn++}`, { msgtype, body }, sessions[who]);

const garden = server.createRoom(id("ada"), { name: "Garden & bicycles", invite: ["bob", "carol", "dave"].map(id) }).room_id;
for (const name of ["bob", "carol", "dave"]) server.member(id(name), garden, id(name), "join");
for (let i = 0; i < 40; i++) say(["ada", "bob", "carol"][i % 3], garden, `Older message number ${i + 1}`);
clock = Date.now() - 3_600_000;
for (const [who, body] of TALK) say(who, garden, body);
say("carol", garden, "waters the plants", "m.emote");
const direct = server.createRoom(id("bob"), { is_direct: true, invite: [id("ada")] }).room_id;
server.member(id("ada"), direct, id("ada"), "join");
server.setAccountData(id("ada"), "m.direct", { [id("bob")]: [direct] });
for (const body of ["Are you coming tonight?", "We start at eight", "Bring the maps"]) say("bob", direct, body);
for (const name of ["Reading circle", "House meeting with a name that is too long for the list", "Trips"]) {
    const room = server.createRoom(id("carol"), { name, invite: [id("ada")] }).room_id;
    server.member(id("ada"), room, id("ada"), "join");
    say("carol", room, "The next date is in the calendar");
    say("ada", room, "Thanks!");
}
server.createRoom(id("eve"), { name: "Chess on Sundays", invite: [id("ada")] });

const browser = await launch();
const problems = [];
for (const [device, size] of Object.entries({ desktop: DESKTOP, phone: PHONE })) {
    for (const colorScheme of ["light", "dark"]) {
        const context = await browser.newContext({ ...size, colorScheme });
        const page = await context.newPage();
        const errors = watchErrors(page, `${device} ${colorScheme}`);
        const shot = (name) => page.screenshot({ path: `${folder}/${name}-${device}-${colorScheme}.png` });
        await page.goto(`${server.origin}/#/signup?token=abc`);
        await page.getByLabel("Registration token").waitFor();
        await shot("signup");
        await page.goto(`${server.origin}/#/signin`);
        await page.getByLabel("Name").fill("ada");
        await page.getByLabel("Password").fill("wrong");
        await page.getByRole("button", { name: "Sign in" }).click();
        await page.getByText("The name or the password is not right.").waitFor();
        await shot("signin");
        errors.length = 0; // the browser itself reports the 401 and 403 that were provoked
        await page.getByLabel("Password").fill("secret");
        await page.getByRole("button", { name: "Sign in" }).click();
        await page.getByText("Garden & bicycles").first().waitFor();
        await shot("list");
        await page.getByRole("button", { name: "New conversation" }).first().click();
        await shot("new");
        await page.keyboard.press("Escape");
        await page.getByRole("button", { name: /^Account/ }).click();
        await shot("account");
        await page.keyboard.press("Escape");
        await page.getByRole("link", { name: /Garden/ }).click();
        await page.getByText("I can do Thursday.").first().waitFor();
        server.setTyping(id("bob"), garden, true);
        await page.getByText("bob is typing").waitFor();
        server.failSends = true;
        await page.getByLabel("Message to Garden").fill("This one does not get through");
        await page.getByRole("button", { name: "Send" }).click();
        await page.getByText("Not sent.").waitFor();
        await shot("timeline");
        server.failSends = false;
        server.setTyping(id("bob"), garden, false);
        await page.locator(".messages").evaluate((box) => (box.scrollTop = 0));
        await page.getByText("This is where it begins.").waitFor();
        await page.locator(".messages").evaluate((box) => (box.scrollTop = 0));
        await shot("beginning");
        await context.setOffline(true);
        server.dropSockets(1001);
        if (device === "phone") await page.getByRole("button", { name: "All conversations" }).click();
        await page.getByText("You are offline.").filter({ visible: true }).first().waitFor({ timeout: 20_000 });
        await shot("offline");
        await context.close();
        problems.push(...errors.filter((e) => !/ERR_INTERNET_DISCONNECTED|WebAssembly|wasm/.test(e)));
    }
}
await browser.close();
await server.close();
if (problems.length > 0) {
    console.error(problems.join("\n"));
    process.exitCode = 1;
}

/**
 * Rooms and people: pictures, roles, removing and banning, ignoring and reporting, rooms that were replaced, who may come in or asks to, and the way out for good. Run by
 * npm run e2e, against the real server.
 */
import assert from "node:assert/strict";
import { DESKTOP, PHONE } from "./browser.mjs";
import { Person, play } from "./people.mjs";
import { make } from "./media.mjs";
import { shoot } from "./timeline.mjs";

const click = (person, name, exact = true) => person.page.getByRole("button", { name, exact }).click();
const row = (person, name) => person.page.locator("dialog .person", { hasText: name });

async function meet(ada, others, origin) {
    await Promise.all([ada, ...others].map((person) => person.signUp(origin)));
    await ada.page.getByRole("button", { name: "New conversation" }).first().click();
    await ada.page.getByText("A group").click();
    await ada.page.getByLabel("Name of the room").fill("Garden");
    await ada.page.getByLabel("People to invite").fill("bob, carol");
    await click(ada, "Create room");
    for (const other of others) {
        await click(other, "Accept");
        await other.page.getByRole("heading", { name: "Garden", level: 2 }).waitFor();
    }
    await ada.page.getByRole("log").getByText("carol joined").or(ada.page.getByRole("log").getByText(/bob.*carol|carol.*bob/)).first().waitFor();
}

async function showPictures(ada, bob) {
    const { page } = ada;
    await click(ada, /^Account/, false);
    await click(ada, "Your profile");
    await page.getByLabel("Picture", { exact: true }).setInputFiles({ name: "me.png", mimeType: "text/plain", buffer: Buffer.from("no picture") });
    await page.getByText("This file is no picture that can be shown.").waitFor();
    await page.getByLabel("Picture", { exact: true }).setInputFiles({ name: "me.jpg", mimeType: "image/jpeg", buffer: await make(page, "picture", 400, 300) });
    await page.locator(".picture-field img.avatar").waitFor();
    await page.getByLabel("Name that others see").fill("Ada L.");
    await shoot([ada], "own-profile");
    await click(ada, "Save");
    await page.locator(".list-pane .bar img.avatar").waitFor();
    await click(ada, "About this room");
    await page.getByLabel("Picture", { exact: true }).setInputFiles({ name: "garden.jpg", mimeType: "image/jpeg", buffer: await make(page, "picture", 300, 500) });
    await page.locator("dialog .picture-field img.avatar").waitFor();
    await shoot([ada], "room-settings");
    await page.keyboard.press("Escape");
    await ada.say("do I look well?");
    await bob.sees("do I look well?");
    await bob.page.locator(".group img.avatar").waitFor();
    await bob.page.locator(".room-pane .bar img.avatar").waitFor();
    await bob.page.locator(".sender", { hasText: "Ada L." }).waitFor();
    await shoot([bob], "pictures");
}

async function moderate(ada, bob, carol) {
    const { page } = ada;
    await click(ada, "About this room");
    await page.getByLabel("Role of bob").selectOption("moderator");
    await page.locator(".person-button", { hasText: "carol" }).click();
    await page.getByLabel("In this room").getByText("Role").waitFor();
    await shoot([ada], "profile-in-room");
    await click(ada, "Remove from the room");
    await page.getByLabel("Reason").fill("a short rest");
    await shoot([ada], "remove");
    await page.locator("dialog").getByRole("button", { name: "Remove from the room" }).click();
    await carol.page.getByText("You are not in this room").waitFor();
    await row(ada, "carol").waitFor({ state: "detached" });
    await page.keyboard.press("Escape");

    // Bob, a moderator now, bans; he has no power over the owner.
    await click(ada, "Invite people");
    await page.getByLabel("People", { exact: true }).fill("carol");
    await click(ada, "Invite");
    await click(carol, "Accept");
    await carol.page.getByRole("heading", { name: "Garden", level: 2 }).waitFor();
    await click(bob, "About this room");
    await bob.page.locator(".person-button", { hasText: "Ada L." }).click();
    await bob.page.getByLabel("In this room").getByText("Owner").waitFor();
    assert.equal(await bob.page.getByRole("button", { name: "Ban" }).count(), 0);
    await bob.page.keyboard.press("Escape");
    await bob.page.locator(".person-button", { hasText: "carol" }).click();
    await click(bob, "Ban");
    await bob.page.getByLabel("Reason").fill("dug up the roses");
    await bob.page.locator("dialog").getByRole("button", { name: "Ban", exact: true }).last().click();
    const banned = bob.page.getByLabel("Banned");
    await banned.getByText("dug up the roses").waitFor();
    await shoot([bob], "banned");
    await carol.page.getByText("You are not in this room").waitFor();
    await banned.getByRole("button", { name: "Lift the ban" }).click();
    await banned.waitFor({ state: "detached" });
    await bob.page.keyboard.press("Escape");
    await bob.page.getByRole("log").getByText("bob lifted the ban of carol").waitFor();
}

async function ignore(ada, bob) {
    await ada.say("something that bob would not read");
    await bob.sees("something that bob would not read");
    await bob.page.getByRole("button", { name: "Who is Ada L.?" }).last().click();
    await shoot([bob], "profile");
    await click(bob, "Ignore");
    await bob.page.getByText("You ignore Ada L.").waitFor();
    await bob.page.keyboard.press("Escape");
    await bob.page.locator(".bubble", { hasText: "something that bob" }).waitFor({ state: "detached" });
    await bob.back();
    await click(bob, /^Account/, false);
    await click(bob, "Ignored people");
    await bob.page.locator(".person", { hasText: "Ada L." }).waitFor();
    await shoot([bob], "ignored");
    await click(bob, "Stop ignoring");
    await bob.page.getByText("You ignore nobody.").waitFor();
    await bob.page.keyboard.press("Escape");
    await bob.page.getByRole("link", { name: /Garden/ }).click();
    await bob.sees("something that bob would not read");
}

async function noInvitations(ada, bob) {
    const allow = bob.page.getByRole("switch", { name: "Allow invitations" });
    const says = async (allowed) => {
        await bob.back();
        await click(bob, /^Account/, false);
        await allow.setChecked(allowed);
        await bob.page.keyboard.press("Escape");
        await click(bob, /^Account/, false);
        await expectSoon(async () => (await allow.isChecked()) === allowed); // now as the server told
        await shoot([bob], `invitations-${allowed ? "on" : "off"}`);
        await bob.page.keyboard.press("Escape");
        await bob.page.getByRole("link", { name: /Garden/ }).click();
    };
    await says(false);
    await ada.page.getByRole("button", { name: "New conversation" }).first().click();
    await ada.page.getByLabel("Person", { exact: true }).fill("bob");
    await click(ada, "Start talking");
    await ada.page.getByText("Somebody you want to invite accepts no invitations.").waitFor();
    await ada.page.keyboard.press("Escape");
    await says(true);
}

async function report(ada, bob) {
    const sent = async (person) => {
        await person.page.getByLabel("What is wrong with it?").fill("it is not true");
        const dialog = person.page.getByRole("dialog", { name: /^Report this/ });
        await dialog.getByRole("button", { name: "Report", exact: true }).click();
        await dialog.getByText("Thank you.").waitFor();
        await dialog.getByRole("button", { name: "Close" }).last().click();
    };
    await bob.act("something that bob would not read", "Report");
    await shoot([bob], "report");
    await sent(bob);
    await click(bob, "About this room");
    await bob.page.locator("dialog").getByRole("button", { name: "Report", exact: true }).click();
    await sent(bob);
    await bob.page.locator(".person-button", { hasText: "Ada L." }).click();
    await bob.page.getByRole("dialog", { name: "Profile" }).getByRole("button", { name: "Report", exact: true }).click();
    await sent(bob);
    for (const name of ["Profile", "About this room"]) await bob.page.getByRole("dialog", { name }).getByRole("button", { name: "Close" }).click();
    const paths = bob.calls("/report").map((call) => call.path.replace(/[!$@%][^/]*/g, "*").replace(/^.*\/v3/, ""));
    assert.deepEqual(paths, ["/rooms/*/report/*", "/rooms/*/report", "/users/*/report"]);
}

/** A room for everybody, and out of it for good. */
async function openAndLeave(ada, bob, carol) {
    const { page } = ada;
    await click(ada, "About this room");
    await page.getByLabel("Who may join").selectOption("public");
    await page.getByLabel("What newcomers see").selectOption("joined");
    const state = async (type) => JSON.parse(await ada.request("GET", `/_matrix/client/v3/rooms/${encodeURIComponent(ada.roomId)}/state/${type}/`));
    await page.waitForFunction(() => [...document.querySelectorAll("dialog select")].some((select) => select.value === "joined"));
    await expectSoon(async () => (await state("m.room.join_rules")).join_rule === "public" && (await state("m.room.history_visibility")).history_visibility === "joined");
    await page.keyboard.press("Escape");
    const joined = JSON.parse(await carol.request("POST", `/_matrix/client/v3/rooms/${encodeURIComponent(ada.roomId)}/join`, {}));
    assert.equal(joined.room_id, ada.roomId, "everybody may come in");

    const room = bob.roomId;
    await click(bob, "About this room");
    await click(bob, "Leave the room");
    await bob.page.getByText("The room goes out of your list").waitFor();
    await shoot([bob], "leave");
    await click(bob, "Leave for good");
    await bob.page.getByText("No conversations yet.").waitFor();
    const gone = JSON.parse(await bob.request("GET", `/_matrix/client/v3/rooms/${encodeURIComponent(room)}/messages?dir=b`));
    assert.equal(gone.errcode, "M_FORBIDDEN", "it was forgotten, too");
}

/** To a room by its address. */
async function visit({ page }, roomId, name) {
    await page.goto(`${page.url().split("#")[0]}#/room/${encodeURIComponent(roomId)}`);
    await page.getByRole("heading", { name, level: 2 }).waitFor();
}

/** A room in which only some may speak, and one that was replaced, have no line to write in; the second has a way to the other. */
async function moveHouse(ada, bob) {
    const { page } = bob;
    const rooms = "/_matrix/client/v3/rooms/";
    const garden = bob.roomId;
    const made = JSON.parse(await ada.request("POST", "/_matrix/client/v3/createRoom", { name: "Shed", preset: "public_chat" })).room_id;
    const shed = encodeURIComponent(made);
    await bob.request("POST", `${rooms}${shed}/join`, {});
    await visit(bob, made, "Shed");
    await page.getByLabel("Message to Shed").waitFor();
    await ada.request("PUT", `${rooms}${shed}/state/m.room.power_levels/`, { events_default: 50, events: { "m.room.tombstone": 150 } });
    await page.getByText("Here you can read, but not write.").waitFor();
    assert.equal(await page.getByLabel("Message to Shed").count(), 0);
    await ada.request("POST", `${rooms}${shed}/upgrade`, { new_version: "12" });
    await page.getByText("This room goes on in another one.").waitFor();
    await shoot([bob], "replaced");
    await click(bob, "Go there");
    await page.getByRole("heading", { name: "Shed", level: 2 }).waitFor();
    await page.getByText("This room goes on in another one.").waitFor({ state: "detached" });
    assert.notEqual(bob.roomId, made);
    for (const left of [made, bob.roomId]) await bob.request("POST", `${rooms}${encodeURIComponent(left)}/leave`, {});
    await visit(bob, garden, "Garden");
}

/** Who may not simply come in asks, and those inside let them in. */
async function letIn(ada, bob) {
    const garden = bob.roomId;
    const made = JSON.parse(await ada.request("POST", "/_matrix/client/v3/createRoom", { name: "Attic", preset: "private_chat" })).room_id;
    await visit(ada, made, "Attic");
    await ada.page.getByLabel("Message to Attic").waitFor();
    await click(ada, "About this room");
    await ada.page.getByLabel("Who may join").selectOption("knock");
    const listed = ada.page.getByLabel("Shown among the public rooms");
    await listed.setChecked(true);
    await expectSoon(async () => (await listed.isChecked()) && JSON.parse(await bob.request("GET", `/_matrix/client/v3/directory/list/room/${encodeURIComponent(made)}`)).visibility === "public");
    await ada.page.keyboard.press("Escape");

    await bob.back();
    await click(bob, "New conversation");
    await click(bob, "Find a public room");
    await bob.page.getByLabel("Name or topic").fill("Attic");
    await click(bob, "Ask to join Attic");
    await bob.page.getByText("You asked to join").waitFor();
    await shoot([bob], "asked");
    await bob.page.keyboard.press("Escape");

    await ada.page.getByRole("log").getByText("bob asks to join").waitFor();
    await click(ada, "About this room");
    const asking = ada.page.getByRole("region", { name: "Asking to join" });
    await asking.getByText("@bob:").waitFor();
    await shoot([ada], "asking");
    await click(ada, "Let in bob");
    await asking.waitFor({ state: "detached" });
    await ada.page.keyboard.press("Escape");
    await click(bob, "Accept");
    await bob.page.getByRole("heading", { name: "Attic", level: 2 }).waitFor();
    for (const person of [ada, bob]) {
        await person.request("POST", `/_matrix/client/v3/rooms/${encodeURIComponent(made)}/leave`, {});
        await visit(person, garden, "Garden");
    }
}

async function expectSoon(holds) {
    for (let i = 0; i < 100 && !(await holds()); i++) await new Promise((done) => setTimeout(done, 50));
    assert.ok(await holds());
}

await play((error) => /40[13]/.test(error), async ({ server, browser, people }) => {
    for (const [name, size] of [["ada", DESKTOP], ["bob", PHONE], ["carol", DESKTOP]]) people.push(await Person.open(browser, name, size));
    const [ada, bob, carol] = people;
    await meet(ada, [bob, carol], server.origin);
    await showPictures(ada, bob);
    await moderate(ada, bob, carol);
    await ignore(ada, bob);
    await noInvitations(ada, bob);
    await report(ada, bob);
    await moveHouse(ada, bob);
    await letIn(ada, bob);
    await openAndLeave(ada, bob, carol);
});
console.log("ok: pictures, roles, bans, ignoring, invitations, reports, replaced rooms, who asks to come in, and the way out");

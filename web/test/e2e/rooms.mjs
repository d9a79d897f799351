/** Rooms from the inside: settings, roles, favourites, spaces, search, and the way out. */
import assert from "node:assert/strict";
import { createServer } from "node:http";
import { shoot } from "./timeline.mjs";

export async function keepHouse(ada, bob) {
    const { page } = ada;
    await page.getByRole("button", { name: "About this room" }).click();
    await page.getByLabel("Name", { exact: true }).fill("Garden & more");
    await page.getByLabel("Topic").fill("Who waters what");
    await page.getByRole("button", { name: "Save the changes" }).click();
    await bob.page.getByRole("heading", { name: "Garden & more" }).waitFor();
    await page.getByLabel("Role of bob").selectOption("moderator");
    await shoot([ada], "settings");
    await page.getByRole("button", { name: "Make it a favourite" }).click();
    await page.getByRole("button", { name: "No favourite any more" }).waitFor();
    await page.keyboard.press("Escape");
    await page.getByRole("img", { name: "Favourite" }).waitFor();

    // Bob, a moderator now, may name the room, and sees who is what.
    await bob.page.getByRole("button", { name: "About this room" }).click();
    await bob.page.locator(".person", { hasText: "ada" }).getByText("Owner").waitFor();
    await bob.page.getByRole("button", { name: "Save the changes" }).waitFor();
    await shoot([bob], "settings");
    await bob.page.keyboard.press("Escape");

    // An open room that the server can search, in a space.
    const roomId = JSON.parse(await ada.request("POST", "/_matrix/client/v3/createRoom", { name: "Announcements", preset: "public_chat" })).room_id;
    const space = JSON.parse(await ada.request("POST", "/_matrix/client/v3/createRoom", { name: "House", creation_content: { type: "m.space" } })).room_id;
    await ada.request("PUT", `/_matrix/client/v3/rooms/${encodeURIComponent(space)}/state/m.space.child/${encodeURIComponent(roomId)}`, { via: ["localhost"] });
    await ada.request("PUT", `/_matrix/client/v3/rooms/${encodeURIComponent(roomId)}/send/m.room.message/1`, { msgtype: "m.text", body: "The wheelbarrow is repaired" });
    await page.getByRole("button", { name: "House" }).click();
    await page.getByRole("link", { name: /Announcements/ }).waitFor();
    await page.getByRole("link", { name: /Garden/ }).waitFor({ state: "detached" });
    await page.getByRole("button", { name: "All", exact: true }).click();
    const search = page.getByLabel("Search conversations and messages");
    await search.fill("wheelbarrow");
    await page.locator(".found-message", { hasText: "wheelbarrow" }).waitFor();
    await search.fill("flowerpot");
    await page.locator(".found-message", { hasText: "flowerpot" }).waitFor(); // encrypted: found on the device
    await shoot([ada], "search");
    await page.locator(".found-message").click();
    await page.locator(".message:focus", { hasText: "flowerpot" }).waitFor();
    await search.fill("announ");
    await page.getByRole("link", { name: /Announcements/ }).click();
    await ada.sees("The wheelbarrow is repaired");
    await search.fill("");
    await followLinks(ada);

    await page.getByRole("button", { name: "About this room" }).click();
    await page.getByRole("button", { name: "Leave the room" }).click();
    await page.getByRole("button", { name: "Leave for good" }).click();
    await page.getByText("Pick a conversation").waitFor();
    await page.getByRole("link", { name: /Announcements/ }).waitFor({ state: "detached" });
    await page.getByRole("link", { name: /Garden/ }).click();
}

/** What a link leads to is shown in open rooms; in encrypted ones the server is not told of it, unless one wants that. */
async function followLinks(ada) {
    const { page } = ada;
    const asked = [];
    const site = createServer((request, response) => {
        asked.push(request.url);
        response.writeHead(200, { "Content-Type": "text/html" }).end("<title>How to mend a wheelbarrow</title><meta property='og:description' content='With a nail'>");
    });
    await new Promise((done) => site.listen(0, "127.0.0.1", done));
    const link = `http://127.0.0.1:${site.address().port}`;
    try {
        await ada.say(`It is told at ${link}/open`);
        await page.locator(".link-preview", { hasText: "How to mend a wheelbarrow" }).waitFor();
        await shoot([ada], "link");
        await page.getByRole("link", { name: /Garden/ }).click();
        await ada.say(`Between us: ${link}/secret`);
        await page.locator(".is-sending").waitFor({ state: "detached" });
        await ada.sees(`${link}/secret`);
        assert.equal(await page.getByRole("button", { name: "Latest" }).count(), 0, "who writes is at the end");
        assert.equal(await page.locator(".link-place").count(), 0);
        assert.ok(asked.includes("/open") && !asked.includes("/secret"), "the server was not told of the link");
        await page.getByRole("button", { name: /^Account/ }).click();
        await page.getByText("Everywhere", { exact: true }).click();
        await page.getByText("The server learns the links").waitFor();
        await shoot([ada], "account");
        await page.keyboard.press("Escape");
        const latest = page.getByRole("button", { name: "Latest" }); // axe scrolls what it looks at, and only what is seen is asked for
        if (await latest.isVisible()) await latest.click();
        await page.locator(".link-preview", { hasText: "How to mend a wheelbarrow" }).waitFor();
        await page.getByRole("button", { name: /^Account/ }).click();
        await page.getByText("Open rooms", { exact: true }).click();
        await page.keyboard.press("Escape");
        await page.locator(".link-preview").waitFor({ state: "detached" });
        await page.getByRole("link", { name: /Announcements/ }).click();
        await page.getByRole("heading", { name: "Announcements", level: 2 }).waitFor();
    } finally {
        site.close();
        site.closeAllConnections();
    }
}

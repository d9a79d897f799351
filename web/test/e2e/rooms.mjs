/** Rooms from the inside: settings, roles, favourites, spaces, search, and the way out. */
import assert from "node:assert/strict";
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

    await page.getByRole("button", { name: "About this room" }).click();
    await page.getByRole("button", { name: "Leave the room" }).click();
    await page.getByRole("button", { name: /^Leave: / }).click();
    await page.getByText("Pick a conversation").waitFor();
    assert.equal(await page.getByRole("link", { name: /Announcements/ }).count(), 0);
    await page.getByRole("link", { name: /Garden/ }).click();
}

/**
 * Clients of matrix-js-sdk that sync by its SlidingSync, with its Rust crypto, talk through the real server: a list of
 * rooms, an invitation, messages both ways in plain and in an encrypted room: npm run sdk.
 *
 * HUBBUB_TEST_BINARY names the server (default ../bin/hubbub).
 */
import assert from "node:assert/strict";
import { resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { startServer } from "./server.mjs";

const here = fileURLToPath(new URL(".", import.meta.url));
const STEP_MS = 60_000;

// The SDK is made for Node 22.
Promise.withResolvers ??= function () {
    let resolve, reject;
    const promise = new this((done, fail) => ([resolve, reject] = [done, fail]));
    return { promise, resolve, reject };
};

const said = [];
for (const kind of ["error", "warn"]) console[kind] = (...words) => said.push(`${kind}: ${words.map(String).join(" ")}`);
for (const kind of ["debug", "info", "log", "trace"]) console[kind] = () => {};

const sdk = await import("matrix-js-sdk");
const { SlidingSync } = await import("matrix-js-sdk/lib/sliding-sync.js");

/** Waits until a condition holds, looking again and again: keys arrive in more ways than there are events. */
async function until(what, holds) {
    for (const deadline = Date.now() + STEP_MS; ; ) {
        const found = await holds();
        if (found) return found;
        if (Date.now() > deadline) throw new Error(`never: ${what}`);
        await new Promise((done) => setTimeout(done, 25));
    }
}

async function person(origin, name) {
    const guest = sdk.createClient({ baseUrl: origin });
    const account = await guest.registerRequest({ username: name, password: "correct horse battery", auth: { type: "m.login.dummy" } });
    const client = sdk.createClient({ baseUrl: origin, userId: account.user_id, accessToken: account.access_token, deviceId: account.device_id });
    await client.initRustCrypto({ useIndexedDB: false });
    const required_state = [["*", "*"], ["m.room.member", "$LAZY"], ["m.room.member", "$ME"]];
    const lists = new Map([["all", { ranges: [[0, 19]], timeline_limit: 10, required_state }]]);
    const slidingSync = new SlidingSync(origin, lists, { timeline_limit: 50, required_state }, client, 10_000);
    await client.startClient({ slidingSync });
    client.list = () => slidingSync.getListData("all")?.joinedCount;
    return client;
}

const read = (client, room) =>
    (client.getRoom(room)?.getLiveTimeline().getEvents() ?? []).map((event) => event.getContent().body).filter(Boolean);
const hears = (client, room, body) => until(`${client.getUserId()} reads "${body}"`, () => read(client, room).includes(body));

async function talk(alice, bob, options) {
    const { room_id: room } = await alice.createRoom({ preset: "private_chat", invite: [bob.getUserId()], ...options });
    await until("the invitation", () => bob.getRoom(room)?.getMyMembership() === "invite");
    await bob.joinRoom(room);
    await until("the room", () => bob.getRoom(room)?.getMyMembership() === "join" && bob.getRoom(room).name === options.name);
    await until("bob's join", () => alice.getRoom(room)?.getMember(bob.getUserId())?.membership === "join");
    await alice.sendTextMessage(room, "Hello Bob");
    await hears(bob, room, "Hello Bob");
    await bob.sendTextMessage(room, "Hello Alice");
    await hears(alice, room, "Hello Alice");
    await bob.sendTyping(room, true, 10_000);
    await until("typing", () => alice.getRoom(room).getMember(bob.getUserId()).typing);
    return room;
}

const server = await startServer(resolve(process.env.HUBBUB_TEST_BINARY || resolve(here, "../../../bin/hubbub")));
let alice, bob, failure;
try {
    [alice, bob] = await Promise.all([person(server.origin, "alice"), person(server.origin, "bob")]);
    await talk(alice, bob, { name: "In the open" });
    const encryption = { type: "m.room.encryption", state_key: "", content: { algorithm: "m.megolm.v1.aes-sha2" } };
    const secret = await talk(alice, bob, { name: "In secret", initial_state: [encryption] });
    assert.ok(alice.getRoom(secret).hasEncryptionStateEvent());
    const heard = bob.getRoom(secret).getLiveTimeline().getEvents().find((event) => event.getContent().body === "Hello Bob");
    assert.ok(heard.isEncrypted() && !heard.isDecryptionFailure(), "the message was encrypted");
    await until("two rooms in the list", () => bob.list() === 2);
    await bob.leave(secret);
    await until("the end", () => bob.getRoom(secret)?.getMyMembership() !== "join" && bob.list() === 1);
} catch (error) {
    failure = error;
} finally {
    alice?.stopClient();
    bob?.stopClient();
    await server.stop();
}
if (failure) {
    process.stderr.write(`${failure.stack ?? failure}\n${said.slice(-40).join("\n")}\nserver:\n${server.log()}\n`);
    process.exit(1);
}
process.stdout.write("sdk: lists of rooms, invitations and encrypted messages work over sliding sync between clients of matrix-js-sdk\n");
process.exit(0);

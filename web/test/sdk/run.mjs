/**
 * Two clients of matrix-js-sdk, as it is published, chat through the real server: npm run sdk.
 *
 * HUBBUB_TEST_BINARY names the server (default ../bin/hubbub). The test fails on any error or warning that the SDK
 * prints: it prints one where a server answers what no specification says.
 */
import assert from "node:assert/strict";
import { resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { startServer } from "./server.mjs";

const here = fileURLToPath(new URL(".", import.meta.url));
const STEP_MS = 30_000;

// The SDK is made for Node 22.
Promise.withResolvers ??= function () {
    let resolve, reject;
    const promise = new this((done, fail) => ([resolve, reject] = [done, fail]));
    return { promise, resolve, reject };
};

// It adds push rules under unstable names by itself where a server has none, and says so.
// An edit of a thread's root it finds out of place in the thread that it belongs to, by its own account.
const expected = [/Adding default global \w+ push rule \.org\.matrix\.msc/, /Ignoring event=\S+\(belongs to thread=/];

const complaints = [];
for (const kind of ["error", "warn"]) {
    console[kind] = (...words) => {
        const line = `${kind}: ${words.map(String).join(" ")}`;
        if (!expected.some((pattern) => pattern.test(line))) complaints.push(line);
    };
}
for (const kind of ["debug", "info", "trace"]) console[kind] = () => {};

const sdk = await import("matrix-js-sdk");
const { logger } = await import("matrix-js-sdk/lib/logger.js");
logger.setLevel?.("warn", false);

/** Waits until a condition holds, looking whenever the client says anything. */
function until(client, what, holds) {
    return new Promise((done, fail) => {
        const events = [
            sdk.ClientEvent.Sync, sdk.ClientEvent.Room, sdk.ClientEvent.AccountData, sdk.RoomEvent.Timeline, sdk.RoomEvent.Receipt,
            sdk.RoomEvent.MyMembership, sdk.RoomEvent.Redaction, sdk.RoomEvent.LocalEchoUpdated, sdk.RoomEvent.Tags,
            sdk.RoomMemberEvent.Typing, sdk.RoomMemberEvent.Membership, sdk.RoomMemberEvent.Name, sdk.RoomStateEvent.Events,
            sdk.RoomEvent.UnreadNotifications, sdk.ThreadEvent.New, sdk.ThreadEvent.Update, sdk.ThreadEvent.NewReply,
            sdk.MatrixEventEvent.Replaced,
        ];
        const end = (finish) => {
            clearTimeout(timer);
            for (const name of events) client.off(name, look);
            finish();
        };
        const look = () => {
            const found = holds();
            if (found) end(() => done(found));
        };
        const timer = setTimeout(() => end(() => fail(new Error(`${client.getUserId()} never saw ${what}`))), STEP_MS);
        for (const name of events) client.on(name, look);
        look();
    });
}

async function person(origin, name) {
    const guest = sdk.createClient({ baseUrl: origin });
    const account = await guest.registerRequest({
        username: name, password: "correct horse battery", initial_device_display_name: "test", auth: { type: "m.login.dummy" },
    });
    const client = sdk.createClient({
        baseUrl: origin, userId: account.user_id, accessToken: account.access_token, deviceId: account.device_id, timelineSupport: true,
    });
    return client;
}

async function start(client) {
    await client.startClient({ initialSyncLimit: 10, lazyLoadMembers: true, threadSupport: true });
    await until(client, "the first sync", () => client.isInitialSyncComplete());
}

const messages = (client, room) =>
    client.getRoom(room).getLiveTimeline().getEvents().filter((event) => event.getType() === "m.room.message");
const find = (client, room, body) => messages(client, room).find((event) => event.getContent().body === body && !event.status);

async function chat(alice, bob) {
    const { room_id: room } = await alice.createRoom({ preset: "private_chat", name: "A talk", invite: [bob.getUserId()] });
    await until(bob, "the invitation", () => bob.getRoom(room)?.getMyMembership() === "invite");
    assert.equal(bob.getRoom(room).name, "A talk");
    await bob.joinRoom(room);
    await until(bob, "the room", () => bob.getRoom(room)?.getMyMembership() === "join");
    await until(alice, "bob's join", () => alice.getRoom(room)?.getMember(bob.getUserId())?.membership === "join");
    await until(alice, "two members", () => alice.getRoom(room).getJoinedMemberCount() === 2);

    const { event_id: first } = await alice.sendTextMessage(room, "Hello Bob");
    const heard = await until(bob, "the message", () => find(bob, room, "Hello Bob"));
    assert.equal(heard.getId(), first);
    await until(bob, "the count", () => bob.getRoom(room).getUnreadNotificationCount("total") === 1);
    await bob.sendTextMessage(room, "Hello Alice");
    await until(alice, "the answer", () => find(alice, room, "Hello Alice"));
    await until(alice, "the echo in place of the local one", () => messages(alice, room).every((event) => event.status === null));
    assert.equal(messages(alice, room).filter((event) => event.getContent().body === "Hello Bob").length, 1);

    await bob.sendReadReceipt(find(bob, room, "Hello Bob"));
    await until(alice, "the receipt", () => alice.getRoom(room).hasUserReadEvent(bob.getUserId(), first));
    await until(bob, "no count", () => bob.getRoom(room).getUnreadNotificationCount("total") === 0);

    await bob.sendTyping(room, true, 10_000);
    await until(alice, "typing", () => alice.getRoom(room).getMember(bob.getUserId()).typing);
    await bob.sendTyping(room, false, 0);
    await until(alice, "the end of typing", () => !alice.getRoom(room).getMember(bob.getUserId()).typing);
    return room;
}

async function more(alice, bob, room) {
    const { event_id: mistake } = await alice.sendTextMessage(room, "A mistake");
    await until(bob, "the mistake", () => find(bob, room, "A mistake"));
    await alice.redactEvent(room, mistake);
    await until(bob, "the redaction", () => messages(bob, room).find((event) => event.getId() === mistake)?.isRedacted());

    await bob.setDisplayName("Robert");
    await until(alice, "the new name", () => alice.getRoom(room).getMember(bob.getUserId()).name === "Robert");
    await alice.setRoomName(room, "A long talk");
    await until(bob, "the new name of the room", () => bob.getRoom(room).name === "A long talk");
    await alice.setRoomTag(room, "m.favourite", { order: 0.5 });
    await until(alice, "the tag", () => alice.getRoom(room).tags["m.favourite"]);
    await alice.setAccountData("org.example.test", { value: 1 });
    await until(alice, "account data", () => alice.getAccountData("org.example.test")?.getContent().value === 1);
}

let sent = 0;

/** Sends an event without a local echo, which the SDK puts into the wrong timeline if it is a reply in a thread. */
async function send(client, room, type, content) {
    const path = `/rooms/${encodeURIComponent(room)}/send/${type}/quiet${sent++}`;
    return (await client.http.authedRequest("PUT", path, undefined, content)).event_id;
}

/** A thread with its own count and receipt, an edit, a reaction, a list of threads. */
async function threads(alice, bob, room) {
    const { event_id: root } = await alice.sendTextMessage(room, "Who wants tea?");
    await until(bob, "the root", () => find(bob, room, "Who wants tea?"));
    const inThread = { rel_type: "m.thread", event_id: root };
    const reply = await send(bob, room, "m.room.message", { msgtype: "m.text", body: "I do", "m.relates_to": inThread });
    const thread = await until(alice, "the thread", () => alice.getRoom(room).getThread(root));
    await until(alice, "the reply", () => thread.length === 1 && thread.replyToEvent?.getId() === reply);
    const unread = () => alice.getRoom(room).getThreadUnreadNotificationCount(root, "total");
    await until(alice, "the count of the thread", () => unread() === 1);
    assert.equal(alice.getRoom(room).getRoomUnreadNotificationCount("total"), 0);
    await until(alice, "the reply in the thread", () => thread.findEventById(reply));
    await alice.sendReadReceipt(thread.findEventById(reply));
    await until(alice, "no count of the thread", () => unread() === 0);
    const read = () => bob.getRoom(room).getThread(root)?.getReadReceiptForUserId(alice.getUserId(), true)?.eventId;
    await until(bob, "the receipt", () => read() === reply);

    const edit = { msgtype: "m.text", body: "Who wants coffee?" };
    await send(alice, room, "m.room.message", {
        ...edit, body: `* ${edit.body}`, "m.new_content": edit, "m.relates_to": { rel_type: "m.replace", event_id: root },
    });
    await until(bob, "the edit", () => bob.getRoom(room).findEventById(root)?.getContent().body === edit.body);
    const relation = { rel_type: "m.annotation", event_id: root, key: "👍" };
    await send(bob, room, "m.reaction", { "m.relates_to": relation });
    const reactions = () => alice.getRoom(room).relations.getChildEventsForEvent(root, "m.annotation", "m.reaction")?.getRelations();
    await until(alice, "the reaction", () => reactions()?.length === 1);
    const again = send(bob, room, "m.reaction", { "m.relates_to": relation });
    await assert.rejects(again, (error) => error.errcode === "M_DUPLICATE_ANNOTATION");

    // Who comes later has it all from the aggregations and the lists.
    const related = await alice.relations(room, root, null, null, { recurse: true });
    assert.equal(related.events.length, 3);
    const late = sdk.createClient({
        baseUrl: alice.getHomeserverUrl(), userId: alice.getUserId(), accessToken: alice.getAccessToken(), deviceId: alice.getDeviceId(),
        timelineSupport: true,
    });
    await start(late);
    await late.getRoom(room).createThreadsTimelineSets();
    await late.getRoom(room).fetchRoomThreads();
    const listed = late.getRoom(room).getThread(root);
    assert.equal(listed.length, 1);
    assert.equal(listed.rootEvent.getContent().body, edit.body);
    late.stopClient();
}

/** Bob is away for longer than his first sync looks back, and reads on from where it begins. */
async function history(alice, bob, room) {
    bob.stopClient();
    const count = 45;
    for (let i = 0; i < count; i++) await alice.sendTextMessage(room, `number ${i}`);
    const again = sdk.createClient({
        baseUrl: bob.getHomeserverUrl(), userId: bob.getUserId(), accessToken: bob.getAccessToken(), deviceId: bob.getDeviceId(), timelineSupport: true,
    });
    await start(again);
    await until(again, "the last message", () => find(again, room, `number ${count - 1}`));
    assert.equal(find(again, room, "number 0"), undefined);
    while (!find(again, room, "number 0")) await again.scrollback(again.getRoom(room), 20);
    const bodies = messages(again, room).map((event) => event.getContent().body).filter((body) => body?.startsWith("number"));
    assert.deepEqual(bodies, Array.from({ length: count }, (_, i) => `number ${i}`));
    return again;
}

async function part(alice, bob, room) {
    await alice.kick(room, bob.getUserId(), "the end");
    await until(bob, "the kick", () => bob.getRoom(room).getMyMembership() === "leave");
    await assert.rejects(bob.sendTextMessage(room, "wait"), (error) => error.errcode === "M_FORBIDDEN");
    for (const client of [alice, bob]) {
        client.stopClient();
        await client.logout();
        await assert.rejects(client.whoami(), (error) => error.httpStatus === 401);
    }
}

const server = await startServer(resolve(process.env.HUBBUB_TEST_BINARY || resolve(here, "../../../bin/hubbub")));
let failure;
try {
    const alice = await person(server.origin, "alice");
    let bob = await person(server.origin, "bob");
    await Promise.all([start(alice), start(bob)]);
    const room = await chat(alice, bob);
    // Before anything is redacted: paging back, the SDK meets a redaction before its target and warns.
    bob = await history(alice, bob, room);
    await threads(alice, bob, room);
    await more(alice, bob, room);
    assert.deepEqual(complaints, [], "the SDK complained");
    await part(alice, bob, room);
} catch (error) {
    failure = error;
} finally {
    await server.stop();
}
if (failure) {
    process.stderr.write(`${failure.stack ?? failure}\n${complaints.join("\n")}\nserver:\n${server.log()}\n`);
    process.exit(1);
}
process.stdout.write("sdk: two clients of matrix-js-sdk chatted\n");
process.exit(0);

/**
 * Clients of matrix-js-sdk with its Rust crypto, as both are published, talk through the real server: encrypted rooms
 * both ways, cross-signing, verification by emoji, key backup and its restore on a new device: npm run sdk.
 *
 * HUBBUB_TEST_BINARY names the server (default ../bin/hubbub). The keys are in memory: each client is one device.
 */
import assert from "node:assert/strict";
import { resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { startServer } from "./server.mjs";

const here = fileURLToPath(new URL(".", import.meta.url));
const STEP_MS = 60_000;
const PASSWORD = "correct horse battery";

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
const { VerificationPhase, VerificationRequestEvent, VerifierEvent, CryptoEvent, decodeRecoveryKey } = await import("matrix-js-sdk/lib/crypto-api/index.js");

/** Waits until a condition holds, looking again and again: keys arrive in more ways than there are events. */
async function until(what, holds) {
    for (const deadline = Date.now() + STEP_MS; ; ) {
        const found = await holds();
        if (found) return found;
        if (Date.now() > deadline) throw new Error(`never: ${what}`);
        await new Promise((done) => setTimeout(done, 25));
    }
}

/** A client of a new account, or of a further device of one. */
async function person(origin, name, again = false) {
    const guest = sdk.createClient({ baseUrl: origin });
    const account = again
        ? await guest.loginRequest({ type: "m.login.password", identifier: { type: "m.id.user", user: name }, password: PASSWORD })
        : await guest.registerRequest({ username: name, password: PASSWORD, auth: { type: "m.login.dummy" } });
    const secrets = new Map();
    const client = sdk.createClient({
        baseUrl: origin, userId: account.user_id, accessToken: account.access_token, deviceId: account.device_id,
        cryptoCallbacks: {
            getSecretStorageKey: async ({ keys }) => {
                const id = Object.keys(keys).find((key) => secrets.has(key)) ?? Object.keys(keys)[0];
                return [id, secrets.get(id) ?? secrets.get("")];
            },
            cacheSecretStorageKey: (id, _, key) => secrets.set(id, key),
        },
    });
    client.secrets = secrets;
    await client.initRustCrypto({ useIndexedDB: false });
    await client.startClient({ initialSyncLimit: 20 });
    await until(`${name}'s first sync`, () => client.isInitialSyncComplete());
    return client;
}

const password = (client) => async (request) => {
    try {
        return await request(null);
    } catch (error) {
        if (!error.data?.flows) throw error;
        const identifier = { type: "m.id.user", user: client.getUserId() };
        return await request({ type: "m.login.password", identifier, password: PASSWORD, session: error.data.session });
    }
};

const read = (client, room) =>
    (client.getRoom(room)?.getLiveTimeline().getEvents() ?? []).map((event) => event.getContent().body).filter(Boolean);

const hears = (client, room, body) => until(`${client.getUserId()} ${client.getDeviceId()} reads "${body}"`, () => read(client, room).includes(body));

async function encryptedRoom(alice, bob) {
    const { room_id: room } = await alice.createRoom({
        preset: "private_chat", invite: [bob.getUserId()],
        initial_state: [{ type: "m.room.encryption", state_key: "", content: { algorithm: "m.megolm.v1.aes-sha2" } }],
    });
    await until("the invitation", () => bob.getRoom(room)?.getMyMembership() === "invite");
    await bob.joinRoom(room);
    for (const client of [alice, bob]) {
        await until("both in the room", () => client.getRoom(room)?.getJoinedMembers().length === 2);
        await until("the room encrypted", () => client.getRoom(room)?.hasEncryptionStateEvent());
    }
    await alice.sendTextMessage(room, "Hello Bob");
    await hears(bob, room, "Hello Bob");
    await bob.sendTextMessage(room, "Hello Alice");
    await hears(alice, room, "Hello Alice");
    const wire = await alice.http.authedRequest("GET", `/rooms/${encodeURIComponent(room)}/messages`, { dir: "b", limit: "50" });
    assert.ok(!JSON.stringify(wire).includes("Hello"), "the server has seen the text");
    assert.ok(wire.chunk.filter((event) => event.type === "m.room.encrypted").length >= 2);
    return room;
}

/** A device that comes later reads what is said from then on, without anybody doing anything. */
async function laterDevice(alice, bob, room) {
    const phone = await person(bob.getHomeserverUrl(), bob.getUserId(), true);
    await until("alice knows the new device", async () => {
        const devices = await alice.getCrypto().getUserDeviceInfo([bob.getUserId()]);
        return devices.get(bob.getUserId())?.has(phone.getDeviceId());
    });
    await alice.sendTextMessage(room, "Hello phone");
    await hears(phone, room, "Hello phone");
    await hears(bob, room, "Hello phone");
    await phone.sendTextMessage(room, "Hello from the phone");
    await hears(alice, room, "Hello from the phone");
    return phone;
}

async function bootstrap(client) {
    const crypto = client.getCrypto();
    await crypto.bootstrapCrossSigning({ authUploadDeviceSigningKeys: password(client) });
    const key = await crypto.createRecoveryKeyFromPassphrase();
    client.secrets.set("", key.privateKey);
    await crypto.bootstrapSecretStorage({ createSecretStorageKey: async () => key, setupNewSecretStorage: true, setupNewKeyBackup: true });
    assert.ok(await crypto.isCrossSigningReady(), "cross-signing is ready");
    assert.ok(await crypto.isSecretStorageReady(), "secret storage is ready");
    await crypto.checkKeyBackupAndEnable();
    return key.encodedPrivateKey;
}

/** Two users compare emoji; then each trusts the other's identity. */
async function verify(alice, bob, room) {
    const asked = new Promise((done) => bob.once(CryptoEvent.VerificationRequestReceived, done));
    const mine = await alice.getCrypto().requestVerificationDM(bob.getUserId(), room);
    const theirs = await asked;
    await theirs.accept();
    await until("the request is accepted", () => mine.phase === VerificationPhase.Ready);
    const started = new Promise((done) => theirs.on(VerificationRequestEvent.Change, () => theirs.verifier && done(theirs.verifier)));
    const verifier = await mine.startVerification("m.sas.v1");
    const other = await started;
    const shown = [];
    const ends = [verifier, other].map((side) => {
        side.on(VerifierEvent.ShowSas, (sas) => {
            shown.push(sas);
            if (shown.length === 2) {
                assert.deepEqual(shown[0].sas.emoji, shown[1].sas.emoji);
                for (const each of shown) void each.confirm();
            }
        });
        return side.verify();
    });
    await Promise.all(ends);
    for (const [a, b] of [[alice, bob], [bob, alice]]) {
        await until("verified", async () => (await a.getCrypto().getUserVerificationStatus(b.getUserId())).isCrossSigningVerified());
    }
}

/** A new device with nothing but the recovery key reads what was said before it came. */
async function restore(alice, room, recovery) {
    // The SDK remembers what the backup was like when it was made: ask the server.
    await until("all keys are backed up", async () => (await alice.http.authedRequest("GET", "/room_keys/version")).count >= 2);
    const fresh = await person(alice.getHomeserverUrl(), alice.getUserId(), true);
    fresh.secrets.set("", decodeRecoveryKey(recovery));
    await until("the room", () => fresh.getRoom(room));
    const crypto = fresh.getCrypto();
    await crypto.bootstrapCrossSigning({});
    assert.ok(await crypto.isCrossSigningReady(), "cross-signing from secret storage");
    await crypto.loadSessionBackupPrivateKeyFromSecretStorage();
    const { imported } = await crypto.restoreKeyBackup();
    assert.ok(imported >= 2, `${imported} keys restored`);
    for (const text of ["Hello Bob", "Hello Alice"]) await hears(fresh, room, text);
    return fresh;
}

/** Who logs out disappears from the devices of others, who leaves is not written to any more. */
async function leave(alice, bob, phone, room) {
    const device = phone.getDeviceId();
    phone.stopClient();
    await phone.logout(true);
    await until("the phone is gone", async () => {
        const devices = await alice.getCrypto().getUserDeviceInfo([bob.getUserId()]);
        return !devices.get(bob.getUserId())?.has(device);
    });
    await bob.leave(room);
    await until("bob's leave", () => alice.getRoom(room).getJoinedMembers().length === 1);
    await alice.sendTextMessage(room, "Only us");
    await hears(alice, room, "Only us");
}

const server = await startServer(resolve(process.env.HUBBUB_TEST_BINARY || resolve(here, "../../../bin/hubbub")));
const clients = [];
let failure;
try {
    const alice = await person(server.origin, "alice");
    const bob = await person(server.origin, "bob");
    clients.push(alice, bob);
    const room = await encryptedRoom(alice, bob);
    const phone = await laterDevice(alice, bob, room);
    clients.push(phone);
    const recovery = await bootstrap(alice);
    await bootstrap(bob);
    await verify(alice, bob, room);
    clients.push(await restore(alice, room, recovery));
    await leave(alice, bob, phone, room);
} catch (error) {
    failure = error;
} finally {
    for (const client of clients) client.stopClient();
    await server.stop();
}
if (failure) {
    process.stderr.write(`${failure.stack ?? failure}\n${said.slice(-40).join("\n")}\nserver:\n${server.log()}\n`);
    process.exit(1);
}
process.stdout.write("sdk: encrypted rooms, cross-signing, verification and key backup work between clients of matrix-js-sdk\n");
process.exit(0);

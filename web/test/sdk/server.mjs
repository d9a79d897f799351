/** Starts the real server for a test: on a free port of 127.0.0.1, in test mode, on data that goes with it. */
import { spawn } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";

const START_MS = 60_000;

async function freePort() {
    const probe = createServer();
    await new Promise((done) => probe.listen(0, "127.0.0.1", done));
    const { port } = probe.address();
    await new Promise((done) => probe.close(done));
    return port;
}

/** The origin of a server of the given binary, what it has logged, and the way to end it. */
export async function startServer(binary) {
    const data = await mkdtemp(join(tmpdir(), "hubbub-sdk-"));
    const port = await freePort();
    // The server reads its configuration from HUBBUB_…, and the names of tests are none of it.
    const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith("HUBBUB_")));
    const args = ["serve", "--test-mode", "--listen", `127.0.0.1:${port}`, "--metrics-listen=", "--data", data, "--log.level=warn"];
    const child = spawn(binary, args, { env, stdio: ["ignore", "pipe", "pipe"] });
    let log = "";
    for (const stream of [child.stdout, child.stderr]) stream.on("data", (chunk) => (log += chunk));
    let ended = false;
    const gone = new Promise((done) => {
        child.once("error", done);
        child.once("exit", done);
    }).then(() => (ended = true));
    const origin = `http://127.0.0.1:${port}`;
    const stop = async () => {
        child.kill("SIGTERM");
        await gone;
        await rm(data, { recursive: true, force: true });
    };
    for (const deadline = Date.now() + START_MS; ; ) {
        if (await fetch(`${origin}/_matrix/client/versions`).then((answer) => answer.ok, () => false)) return { origin, stop, log: () => log };
        if (ended || Date.now() > deadline) {
            await stop();
            throw new Error(`the server did not start:\n${log}`);
        }
        await new Promise((done) => setTimeout(done, 20));
    }
}

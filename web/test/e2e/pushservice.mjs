/** A push service, and the keys of a browser that is subscribed there: what the server sends is checked and decrypted. */
import assert from "node:assert/strict";
import { createDecipheriv, createECDH, createPublicKey, hkdfSync, randomBytes, verify } from "node:crypto";
import { createServer } from "node:http";

export class PushService {
    #messages = [];
    #waiting = [];
    #subscriptions = new Map();

    static async start() {
        const service = new PushService();
        service.server = createServer((request, response) => void service.#take(request, response));
        await new Promise((done) => service.server.listen(0, "127.0.0.1", done));
        service.origin = `http://127.0.0.1:${service.server.address().port}`;
        return service;
    }

    stop() {
        this.server.closeAllConnections();
        return new Promise((done) => this.server.close(done));
    }

    /** A subscription as a browser gives it. */
    subscribe() {
        const ecdh = createECDH("prime256v1");
        ecdh.generateKeys();
        const auth = randomBytes(16);
        const path = `/push/${randomBytes(12).toString("base64url")}`;
        this.#subscriptions.set(path, { ecdh, auth });
        return { endpoint: this.origin + path, keys: { p256dh: ecdh.getPublicKey("base64url"), auth: auth.toString("base64url") } };
    }

    /** The next message that the server sends. */
    next() {
        const message = this.#messages.shift();
        if (message) return Promise.resolve(message);
        return new Promise((resolve, reject) => {
            const timer = setTimeout(() => reject(new Error("nothing was pushed")), 15_000);
            this.#waiting.push((value) => (clearTimeout(timer), resolve(value)));
        });
    }

    async #take(request, response) {
        const chunks = [];
        for await (const chunk of request) chunks.push(chunk);
        const subscription = this.#subscriptions.get(request.url);
        if (!subscription) return response.writeHead(410).end();
        let message;
        try {
            checkSender(request.headers.authorization, this.origin);
            assert.equal(request.headers["content-encoding"], "aes128gcm");
            message = JSON.parse(decrypt(Buffer.concat(chunks), subscription));
        } catch (error) {
            message = { error: String(error) };
        }
        response.writeHead(201).end();
        const taker = this.#waiting.shift();
        if (taker) taker(message);
        else this.#messages.push(message);
    }
}

/** spec: RFC 8292 */
function checkSender(header, origin) {
    const [, head, claims, signature, key] = /^vapid t=([^.]+)\.([^.]+)\.([^,]+), k=(.+)$/.exec(header ?? "") ?? [];
    const raw = Buffer.from(key ?? "", "base64url");
    const publicKey = createPublicKey({ key: { kty: "EC", crv: "P-256", x: raw.subarray(1, 33).toString("base64url"), y: raw.subarray(33).toString("base64url") }, format: "jwk" });
    assert.ok(verify("sha256", Buffer.from(`${head}.${claims}`), { key: publicKey, dsaEncoding: "ieee-p1363" }, Buffer.from(signature, "base64url")), "signed by the key");
    const { aud, exp, sub } = JSON.parse(Buffer.from(claims, "base64url"));
    assert.equal(aud, origin);
    assert.ok(exp > Date.now() / 1000 && exp <= Date.now() / 1000 + 86_400);
    assert.match(sub, /^(mailto:|https:)/);
}

/** spec: RFC 8291, RFC 8188 */
function decrypt(body, { ecdh, auth }) {
    const [salt, id] = [body.subarray(0, 16), body.subarray(21, 21 + body[20])];
    const sealed = body.subarray(21 + body[20]);
    const info = Buffer.concat([Buffer.from("WebPush: info\0"), ecdh.getPublicKey(), id]);
    const ikm = Buffer.from(hkdfSync("sha256", ecdh.computeSecret(id), auth, info, 32));
    const derive = (label, length) => Buffer.from(hkdfSync("sha256", ikm, salt, `Content-Encoding: ${label}\0`, length));
    const cipher = createDecipheriv("aes-128-gcm", derive("aes128gcm", 16), derive("nonce", 12));
    cipher.setAuthTag(sealed.subarray(-16));
    const plain = Buffer.concat([cipher.update(sealed.subarray(0, -16)), cipher.final()]);
    return plain.subarray(0, plain.lastIndexOf(2));
}

/**
 * A chat server in a few hundred lines, for tests that need two clients and for pictures: enough of the
 * Client-Server API, and the WebSocket of docs/websocket.md, to see the app work against something that is not the
 * app. It keeps nothing, checks little, and can be told to misbehave.
 */
import { createReadStream, existsSync } from "node:fs";
import { createServer } from "node:http";
import { extname, join, normalize } from "node:path";
import { WebSocketServer } from "ws";

const LIMIT = 30;
const TYPES = { ".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml", ".wasm": "application/wasm" };

export class FakeServer {
    users = new Map();
    tokens = new Map();
    rooms = new Map();
    now = 0;
    nextId = 1;
    sockets = new Set();
    polls = new Set();
    /** Paths that were asked for over HTTP, and over the socket. */
    overHttp = [];
    overSocket = [];
    /** Refuse WebSockets, as a proxy may. */
    blockSockets = false;
    /** Let nothing through at all, as a train in a tunnel. */
    down = false;
    /** What the next sends are answered with: "fail", or nothing. */
    failSends = false;
    /** A token that registration asks for. */
    registrationToken;
    clock = () => Date.now();

    constructor(options = {}) {
        Object.assign(this, { name: "example.org", dist: undefined, testMode: true, ...options });
        this.http = createServer((req, res) => void this.handle(req, res));
        this.ws = new WebSocketServer({ noServer: true, handleProtocols: (offered) => (offered.has("hubbub.v1") ? "hubbub.v1" : false) });
        this.http.on("upgrade", (req, socket, head) => {
            if (this.down) return socket.destroy();
            if (this.blockSockets || req.url !== "/_hubbub/v1/ws") return socket.end("HTTP/1.1 403 Forbidden\r\nConnection: close\r\n\r\n");
            this.ws.handleUpgrade(req, socket, head, (ws) => this.accept(ws));
        });
    }

    async listen(port = 0) {
        await new Promise((resolve) => this.http.listen(port, "127.0.0.1", resolve));
        this.origin = `http://127.0.0.1:${this.http.address().port}`;
        return this.origin;
    }

    async close() {
        this.dropSockets(1001);
        for (const poll of this.polls) poll();
        this.http.closeAllConnections();
        await new Promise((resolve) => this.http.close(resolve));
    }

    offline() {
        this.down = true;
        for (const conn of this.sockets) conn.ws.terminate();
        this.http.closeAllConnections();
    }

    online() {
        this.down = false;
    }

    dropSockets(code = 4500) {
        for (const conn of this.sockets) conn.ws.close(code);
    }

    // HTTP

    async handle(req, res) {
        if (this.down) return req.socket.destroy();
        const url = new URL(req.url, "http://x");
        if (!/^\/_(matrix|hubbub)\//.test(url.pathname)) return this.serveFile(url.pathname, res);
        this.overHttp.push(`${req.method} ${url.pathname}`);
        let text = "";
        for await (const chunk of req) text += chunk;
        const token = /^Bearer (.+)$/.exec(req.headers.authorization ?? "")?.[1];
        const [status, body] = await this.answer(req.method, url, text === "" ? {} : JSON.parse(text), token, true);
        res.writeHead(status, { "Content-Type": "application/json", "Cache-Control": "no-store" }).end(JSON.stringify(body));
    }

    serveFile(pathname, res) {
        const path = join(this.dist ?? "/nonexistent", normalize(pathname));
        const file = extname(path) !== "" && existsSync(path) ? path : join(this.dist ?? "/nonexistent", "index.html");
        if (!existsSync(file)) return res.writeHead(404).end();
        const csp = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; require-trusted-types-for 'script'";
        res.writeHead(200, { "Content-Type": TYPES[extname(file)] ?? "application/octet-stream", "Content-Security-Policy": csp });
        createReadStream(file).pipe(res);
    }

    async answer(method, url, body, token, http) {
        const session = this.tokens.get(token);
        for (const [route, open, act] of this.routes()) {
            const [m, pattern] = route.split(" ");
            const match = m === method && new RegExp(`^${pattern}$`).exec(url.pathname);
            if (!match) continue;
            if (!open && !session) return [401, { errcode: "M_UNKNOWN_TOKEN", error: "Unknown token" }];
            try {
                return [200, (await act(session?.user, body, ...match.slice(1).map(decodeURIComponent), url, session, token)) ?? {}];
            } catch (error) {
                if (error.status) return [error.status, error.body];
                throw error;
            }
        }
        return [404, { errcode: "M_UNRECOGNIZED", error: `${http ? "HTTP" : "socket"}: no such endpoint` }];
    }

    routes() {
        const c = "/_matrix/client/v3";
        const seg = "([^/]+)";
        return [
            ["GET /_hubbub/v1/info", true, () => ({ server_name: this.name, version: "fake", registration: this.registrationToken ? "token" : "open", test_mode: this.testMode })],
            ["GET /_matrix/client/versions", true, () => ({ versions: ["v1.1", "v1.11"], unstable_features: {} })],
            [`POST ${c}/register`, true, (_u, body) => this.register(body)],
            [`POST ${c}/login`, true, (_u, body) => this.login(body)],
            [`POST ${c}/logout`, false, (_u, _b, _url, _s, token) => this.logout(token)],
            [`GET ${c}/pushrules/`, false, () => PUSH_RULES],
            [`GET ${c}/capabilities`, false, () => ({ capabilities: {} })],
            [`POST ${c}/user/${seg}/filter`, false, () => ({ filter_id: "1" })],
            [`PUT ${c}/user/${seg}/account_data/${seg}`, false, (user, body, _id, type) => this.setAccountData(user, type, body)],
            [`POST ${c}/createRoom`, false, (user, body) => this.createRoom(user, body)],
            [`POST ${c}/rooms/${seg}/invite`, false, (user, body, room) => this.member(user, room, body.user_id, "invite")],
            [`POST ${c}/join/${seg}`, false, (user, _b, room) => this.member(user, room, user, "join", { room_id: room })],
            [`POST ${c}/rooms/${seg}/leave`, false, (user, _b, room) => this.member(user, room, user, "leave")],
            [`PUT ${c}/rooms/${seg}/send/${seg}/${seg}`, false, (user, body, room, type, txn, _url, session) => this.send(user, room, type, txn, body, session)],
            [`PUT ${c}/rooms/${seg}/typing/${seg}`, false, (user, body, room) => this.setTyping(user, room, body.typing)],
            [`POST ${c}/rooms/${seg}/receipt/m.read/${seg}`, false, (user, _b, room, event) => this.receipt(user, room, event)],
            [`GET ${c}/rooms/${seg}/messages`, false, (_u, _b, room, url) => this.messages(room, url.searchParams)],
            [`GET ${c}/rooms/${seg}/members`, false, (_u, _b, room) => ({ chunk: this.stateOf(this.room(room)).filter((e) => e.type === "m.room.member") })],
            [`GET ${c}/sync`, false, (user, _b, url) => this.poll(user, url.searchParams)],
        ];
    }

    // Accounts

    fail(status, errcode, error, more = {}) {
        throw Object.assign(new Error(error), { status, body: { errcode, error, ...more } });
    }

    register(body) {
        const stage = this.registrationToken ? "m.login.registration_token" : "m.login.dummy";
        const question = { session: "S", flows: [{ stages: [stage] }], params: {} };
        const user = `@${body.username}:${this.name}`;
        if (body.username && this.users.has(user)) this.fail(400, "M_USER_IN_USE", "User ID already taken");
        if (body.password && body.password.length < 4) this.fail(400, "M_WEAK_PASSWORD", "Too weak");
        if (body.auth?.type !== stage) throw Object.assign(new Error(), { status: 401, body: question });
        if (this.registrationToken && body.auth.token !== this.registrationToken) {
            throw Object.assign(new Error(), { status: 401, body: { ...question, completed: [], errcode: "M_UNAUTHORIZED", error: "Invalid token" } });
        }
        this.users.set(user, { password: body.password, accountData: new Map() });
        return this.newSession(user);
    }

    login(body) {
        const user = body.identifier.user.startsWith("@") ? body.identifier.user : `@${body.identifier.user}:${this.name}`;
        if (this.users.get(user)?.password !== body.password) this.fail(403, "M_FORBIDDEN", "Invalid username or password");
        return this.newSession(user);
    }

    newSession(user) {
        const access_token = `T${this.nextId++}`;
        const device_id = `D${this.nextId++}`;
        this.tokens.set(access_token, { user, device_id, txns: new Map() });
        return { user_id: user, device_id, access_token };
    }

    logout(token) {
        this.tokens.delete(token);
        for (const conn of this.sockets) if (conn.token === token) conn.ws.close(4401);
    }

    setAccountData(user, type, content) {
        this.users.get(user).accountData.set(type, { content, n: ++this.now });
        this.push();
    }

    // Rooms

    room(id) {
        return this.rooms.get(id) ?? this.fail(404, "M_NOT_FOUND", "No such room");
    }

    createRoom(user, body) {
        for (const invited of body.invite ?? []) this.mustAllowInvites(invited);
        const id = `!room${this.nextId++}:${this.name}`;
        this.rooms.set(id, { id, events: [], typing: new Map(), receipts: new Map() });
        this.event(id, user, "m.room.create", { room_version: "10" }, "");
        this.event(id, user, "m.room.member", { membership: "join", displayname: user.slice(1).split(":")[0] }, user);
        this.event(id, user, "m.room.power_levels", { users: { [user]: 100 } }, "");
        this.event(id, user, "m.room.join_rules", { join_rule: "invite" }, "");
        if (body.name) this.event(id, user, "m.room.name", { name: body.name }, "");
        for (const invited of body.invite ?? []) this.member(user, id, invited, "invite", {}, body.is_direct);
        this.push();
        return { room_id: id };
    }

    mustAllowInvites(user) {
        const said = this.users.get(user)?.accountData.get("m.invite_permission_config")?.content;
        if (said?.default_action === "block") this.fail(403, "M_INVITE_BLOCKED", `${user} does not accept invites`);
    }

    member(by, roomId, user, membership, answer = {}, direct = false) {
        if (membership === "invite" && !this.users.has(user)) this.fail(404, "M_NOT_FOUND", "There is no such user");
        if (membership === "invite") this.mustAllowInvites(user);
        const content = { membership, displayname: user.slice(1).split(":")[0], ...(direct ? { is_direct: true } : {}) };
        this.event(roomId, by, "m.room.member", content, user);
        this.push();
        return answer;
    }

    send(user, roomId, type, txn, content, session) {
        if (this.failSends) this.fail(403, "M_FORBIDDEN", "You may not write here");
        const known = session.txns.get(txn);
        if (known) return { event_id: known };
        const event = this.event(roomId, user, type, content);
        session.txns.set(txn, event.event_id);
        setImmediate(() => this.push());
        return { event_id: event.event_id };
    }

    event(roomId, sender, type, content, state_key) {
        const room = this.room(roomId);
        const before = state_key === undefined ? undefined : this.stateOf(room).find((e) => e.type === type && e.state_key === state_key);
        const event = { n: ++this.now, type, sender, content, event_id: `$e${this.nextId++}`, room_id: roomId, origin_server_ts: this.clock(), unsigned: {} };
        if (state_key !== undefined) event.state_key = state_key;
        if (before) event.unsigned.prev_content = before.content;
        room.events.push(event);
        return event;
    }

    stateOf(room, upTo = Infinity) {
        const state = new Map();
        for (const e of room.events) if (e.state_key !== undefined && e.n <= upTo) state.set(`${e.type}|${e.state_key}`, e);
        return [...state.values()];
    }

    memberOf(room, user) {
        return this.stateOf(room).find((e) => e.type === "m.room.member" && e.state_key === user);
    }

    setState(user, roomId, type, content) {
        this.event(roomId, user, type, content, "");
        this.push();
    }

    setTyping(user, roomId, typing) {
        const room = this.room(roomId);
        if (typing) room.typing.set(user, true);
        else room.typing.delete(user);
        const part = { ephemeral: { events: [{ type: "m.typing", content: { user_ids: [...room.typing.keys()] } }] } };
        for (const conn of this.sockets) if (conn.sync && this.memberOf(room, conn.user)?.content.membership === "join") conn.tell({ op: "sync", rooms: { join: { [roomId]: part } } });
    }

    receipt(user, roomId, event) {
        this.room(roomId).receipts.set(user, { event, n: ++this.now });
        this.push();
    }

    messages(roomId, query) {
        const { events } = this.room(roomId);
        const from = Number((query.get("from") ?? "p0").slice(1));
        const chunk = events.filter((e) => e.n < from).slice(-Number(query.get("limit") ?? 10));
        const more = events.some((e) => e.n < (chunk[0]?.n ?? 0));
        return { start: `p${from}`, ...(more ? { end: `p${chunk[0].n}` } : {}), chunk: chunk.reverse().map(bare) };
    }

    // Sync

    position(token) {
        const [base, ...marks] = (token ?? "s0").split("~");
        if (!/^s\d+$/.test(base)) this.fail(400, "M_UNKNOWN_POS", "Unknown position");
        return Math.max(Number(base.slice(1)), ...marks.map((mark) => Number(mark.split(".")[1])));
    }

    async poll(user, query) {
        const since = this.position(query.get("since"));
        if (since > 0 && since >= this.now && Number(query.get("timeout")) > 0) {
            await new Promise((resolve) => {
                const done = () => (clearTimeout(timer), this.polls.delete(done), resolve());
                const timer = setTimeout(done, Number(query.get("timeout")));
                this.polls.add(done);
            });
        }
        return this.compute(user, since);
    }

    compute(user, since) {
        const out = { next_batch: `s${this.now}`, account_data: { events: [] }, rooms: { join: {}, invite: {}, leave: {} }, device_one_time_keys_count: {} };
        for (const [type, { content, n }] of this.users.get(user)?.accountData ?? []) if (n > since) out.account_data.events.push({ type, content });
        for (const room of this.rooms.values()) {
            const own = this.memberOf(room, user);
            const membership = own?.content.membership;
            if (membership === "invite" && own.n > since) {
                const shown = this.stateOf(room).filter((e) => ["m.room.name", "m.room.create", "m.room.join_rules"].includes(e.type) || e === own);
                out.rooms.invite[room.id] = { invite_state: { events: shown.map(({ type, content, sender, state_key }) => ({ type, content, sender, state_key })) } };
            } else if (membership === "leave" && own.n > since && since > 0) {
                out.rooms.leave[room.id] = { timeline: { events: [bare(own)] } };
            } else if (membership === "join") {
                const part = this.joined(room, user, since, own);
                if (part) out.rooms.join[room.id] = part;
            }
        }
        return out;
    }

    joined(room, user, since, own) {
        const fresh = since === 0 || own.n > since;
        const all = fresh ? room.events : room.events.filter((e) => e.n > since);
        const receipts = [...room.receipts].filter(([, r]) => r.n > since);
        if (all.length === 0 && receipts.length === 0) return undefined;
        const events = all.slice(-LIMIT);
        const limited = events.length < all.length || (fresh && events.length < room.events.length);
        const joined = this.stateOf(room).filter((e) => e.type === "m.room.member" && ["join", "invite"].includes(e.content.membership));
        const state = fresh || limited ? this.stateOf(room, (events[0]?.n ?? 1) - 1).filter((e) => fresh || e.n > since) : [];
        return {
            state: { events: state.map(bare) },
            timeline: { events: events.map(bare), limited, prev_batch: `p${events[0]?.n ?? this.now + 1}` },
            ephemeral: { events: receipts.length ? [{ type: "m.receipt", content: Object.assign({}, ...receipts.map(([u, r]) => ({ [r.event]: { "m.read": { [u]: { ts: this.clock() } } } }))) }] : [] },
            summary: {
                "m.heroes": joined.map((e) => e.state_key).filter((id) => id !== user).slice(0, 5),
                "m.joined_member_count": joined.filter((e) => e.content.membership === "join").length,
                "m.invited_member_count": joined.filter((e) => e.content.membership === "invite").length,
            },
            unread_notifications: { notification_count: this.unread(room, user), highlight_count: 0 },
        };
    }

    unread(room, user) {
        const read = room.events.findLastIndex((e) => e.sender === user || e.event_id === room.receipts.get(user)?.event);
        return room.events.slice(read + 1).filter((e) => e.type === "m.room.message").length;
    }

    // The socket

    accept(ws) {
        const conn = { ws, sync: false, at: 0, tell: (message) => ws.send(JSON.stringify(message)) };
        this.sockets.add(conn);
        ws.on("close", () => this.sockets.delete(conn));
        ws.on("message", (data) => void this.receive(conn, JSON.parse(data)));
    }

    async receive(conn, message) {
        if (message.op === "hello") return this.hello(conn, message);
        if (message.op === "ping") return conn.tell({ op: "pong" });
        if (message.op !== "req") return;
        const url = new URL(message.path, "http://x");
        this.overSocket.push(`${message.method} ${url.pathname}`);
        const [status, body] = await this.answer(message.method, url, message.body ?? {}, conn.token, false);
        if (conn.ws.readyState === 1) conn.tell({ op: "res", id: message.id, status, body });
    }

    hello(conn, message) {
        const session = this.tokens.get(message.access_token);
        if (!session) return conn.ws.close(4401);
        Object.assign(conn, { user: session.user, token: message.access_token });
        conn.tell({ op: "hello", user_id: session.user, device_id: session.device_id, heartbeat_ms: 30000, max_message_bytes: 131072 });
        if (!message.sync) return;
        try {
            conn.at = Math.max(this.position(message.since), ...Object.values(message.marks ?? {}).map(Number));
        } catch {
            return conn.ws.close(4409);
        }
        conn.sync = true;
        conn.tell({ op: "sync", ...this.compute(conn.user, conn.at) });
        conn.at = this.now;
    }

    push() {
        for (const poll of [...this.polls]) poll();
        for (const conn of this.sockets) {
            if (!conn.sync || conn.at >= this.now) continue;
            const news = this.compute(conn.user, conn.at);
            const marks = this.onlyMessages(news, conn.at);
            conn.at = this.now;
            if (!marks) conn.tell({ op: "sync", ...news });
            else for (const e of marks) conn.tell({ op: "sync", mark: ["0", String(e.n)], rooms: { join: { [e.room_id]: { timeline: { events: [bare(e)] } } } } });
        }
    }

    /** The new events, if nothing but messages is new. */
    onlyMessages(news, since) {
        if (news.account_data.events.length || Object.keys(news.rooms.invite).length || Object.keys(news.rooms.leave).length) return undefined;
        const parts = Object.entries(news.rooms.join);
        const plain = parts.every(([, p]) => !p.timeline.limited && !p.ephemeral.events.length && !p.state.events.length && p.timeline.events.every((e) => e.state_key === undefined));
        if (!plain) return undefined;
        return parts.flatMap(([id]) => this.room(id).events.filter((e) => e.n > since)).sort((a, b) => a.n - b.n);
    }
}

/** Copied, because a client may write into what it is given. */
function bare({ n: _n, ...event }) {
    return structuredClone(event);
}

const PUSH_RULES = {
    global: {
        override: [],
        underride: [
            { rule_id: ".m.rule.message", default: true, enabled: true, conditions: [{ kind: "event_match", key: "type", pattern: "m.room.message" }], actions: ["notify"] },
        ],
        content: [],
        room: [],
        sender: [],
    },
};

/**
 * Getting an account and a session: registration through user-interactive authentication, and login by password.
 * Works on plain `fetch`, so that the first screen does not wait for the SDK.
 * spec: client-server §User-Interactive Authentication, §Account registration, §Login
 */
import type { Session } from "../store/session.ts";
import { ServerError } from "./errors.ts";
import { t } from "./i18n.ts";

export const DEVICE_NAME = "hubbub web";

export interface ServerInfo {
    serverName: string;
    version: string;
    registration: "open" | "token" | "closed";
    testMode: boolean;
}

/** What the form for a new account has to ask. */
export type SignUpForm = { kind: "closed"; reason: string | undefined } | { kind: "open"; needsToken: boolean; offersToken: boolean };

export interface SignUp {
    username: string;
    password: string;
    token: string;
}

type Json = Record<string, unknown>;

const DUMMY = "m.login.dummy";
const TOKEN = "m.login.registration_token";

export class Auth {
    constructor(
        private readonly fetch: typeof globalThis.fetch,
        private readonly origin: string,
        private readonly deviceName = DEVICE_NAME,
    ) {}

    /** What the server says of itself. */
    async info(): Promise<ServerInfo> {
        const { body } = await this.request("GET", "/_hubbub/v1/info");
        const registration = body.registration === "open" || body.registration === "closed" ? body.registration : "token";
        return {
            serverName: typeof body.server_name === "string" ? body.server_name : "",
            version: typeof body.version === "string" ? body.version : "",
            registration,
            testMode: body.test_mode === true,
        };
    }

    /** Asks the server, without making anything, which proofs it wants for a new account. */
    async signUpForm(): Promise<SignUpForm> {
        const { status, body } = await this.request("POST", "/_matrix/client/v3/register", {}, [401, 403]);
        if (status === 403) return { kind: "closed", reason: typeof body.error === "string" ? body.error : undefined };
        const flows = flowsOf(body).filter(isSupported);
        if (flows.length === 0) return { kind: "closed", reason: t("This server asks for proofs of new accounts that this app does not know.") };
        return { kind: "open", needsToken: flows.every((f) => f.includes(TOKEN)), offersToken: flows.some((f) => f.includes(TOKEN)) };
    }

    /** Makes the account, going through the stages of the flow that fits what was filled in. */
    async signUp(form: SignUp): Promise<Session> {
        const account = { username: form.username, password: form.password, initial_device_display_name: this.deviceName };
        let { status, body } = await this.request("POST", "/_matrix/client/v3/register", account, [401]);
        const done = new Set<string>();
        while (status === 401) {
            refuseIfFailed(body, done);
            const stage = nextStage(body, done, form.token !== "");
            if (stage === undefined) throw new ServerError(401, { errcode: "M_UNRECOGNIZED", error: t("This server asks for a registration token") });
            done.add(stage);
            const auth = { type: stage, session: body.session, ...(stage === TOKEN ? { token: form.token } : {}) };
            ({ status, body } = await this.request("POST", "/_matrix/client/v3/register", { ...account, auth }, [401]));
        }
        return sessionOf(body);
    }

    async signIn(user: string, password: string): Promise<Session> {
        const { body } = await this.request("POST", "/_matrix/client/v3/login", {
            type: "m.login.password",
            identifier: { type: "m.id.user", user },
            password,
            initial_device_display_name: this.deviceName,
        });
        return sessionOf(body);
    }

    async signOut(accessToken: string): Promise<void> {
        await this.request("POST", "/_matrix/client/v3/logout", {}, [401], accessToken);
    }

    /** Sends and reads JSON. Throws ServerError for a status that is neither 2xx nor expected. */
    private async request(method: string, path: string, body?: Json, expected: number[] = [], accessToken?: string): Promise<{ status: number; body: Json }> {
        const response = await this.fetch.call(undefined, this.origin + path, {
            method,
            headers: {
                ...(body ? { "Content-Type": "application/json" } : {}),
                ...(accessToken ? { Authorization: `Bearer ${accessToken}` } : {}),
            },
            credentials: "omit",
            cache: "no-store",
            ...(body ? { body: JSON.stringify(body) } : {}),
        });
        const answer: unknown = await response.json().catch(() => undefined);
        const json: Json = typeof answer === "object" && answer !== null ? (answer as Json) : {};
        if (!response.ok && !expected.includes(response.status)) throw new ServerError(response.status, json);
        return { status: response.status, body: json };
    }
}

function flowsOf(body: Json): string[][] {
    if (!Array.isArray(body.flows)) return [];
    return (body.flows as { stages?: unknown }[]).map((f) => (Array.isArray(f?.stages) ? f.stages.filter((s) => typeof s === "string") : []));
}

function isSupported(stages: string[]): boolean {
    return stages.every((stage) => stage === DUMMY || stage === TOKEN);
}

/** A 401 that carries an error and does not count our last stage as completed is a refusal, not a question. */
function refuseIfFailed(body: Json, done: Set<string>): void {
    const completed = Array.isArray(body.completed) ? body.completed : [];
    if (done.size === 0 || [...done].every((stage) => completed.includes(stage))) return;
    if (done.has(TOKEN)) throw new ServerError(401, { errcode: "M_UNAUTHORIZED", error: t("This registration token is not valid, or was used up") });
    throw new ServerError(401, body);
}

function nextStage(body: Json, done: Set<string>, haveToken: boolean): string | undefined {
    const possible = flowsOf(body)
        .filter((stages) => isSupported(stages) && (haveToken || !stages.includes(TOKEN)))
        // With a token in hand, prefer the flow that takes it: it may be the one that makes an administrator.
        .sort((a, b) => Number(b.includes(TOKEN)) - Number(a.includes(TOKEN)));
    return possible[0]?.find((stage) => !done.has(stage));
}

function sessionOf(body: Json): Session {
    const { user_id: userId, device_id: deviceId, access_token: accessToken } = body;
    if (typeof userId !== "string" || typeof deviceId !== "string" || typeof accessToken !== "string") {
        throw new ServerError(502, { error: t("The server's answer is not complete") });
    }
    return { userId, deviceId, accessToken };
}

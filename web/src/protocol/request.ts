/** Between `fetch` and the socket: which requests can become calls, and how answers become responses. */

export interface ApiRequest {
    url: URL;
    method: string;
    /** The bearer token, if any. */
    token: string | undefined;
    /** The parsed JSON body, `undefined` for none. */
    body: unknown;
    signal: AbortSignal | null | undefined;
}

/** The server has these on HTTP only: they stream, or are the socket itself. */
const STREAMS = [/^\/_matrix\/media\//, /^\/_matrix\/client\/(v1|unstable)\/([^/]+\/)?media\//, /^\/_hubbub\/v1\/ws$/];
/** These end the session, and with it the socket on which the answer would come. */
const ENDS_SESSION = /^\/_matrix\/client\/[^/]+\/(logout|refresh|account\/deactivate|account\/password)(\/|$)/;

/** What may go over the socket, or `undefined` for what may not. Never throws for what `fetch` would accept. */
export function readRequest(origin: string, input: RequestInfo | URL, init: RequestInit | undefined): ApiRequest | undefined {
    if (typeof input !== "string" && !(input instanceof URL)) return undefined;
    const url = new URL(input, origin);
    if (url.origin !== origin || !/^\/(_matrix\/client|_hubbub)\//.test(url.pathname)) return undefined;
    if (ENDS_SESSION.test(url.pathname) || STREAMS.some((pattern) => pattern.test(url.pathname))) return undefined;
    const token = /^Bearer (.+)$/.exec(new Headers(init?.headers).get("Authorization") ?? "")?.[1];
    const request = { url, method: (init?.method ?? "GET").toUpperCase(), token, signal: init?.signal };
    if (init?.body === undefined || init.body === null) return { ...request, body: undefined };
    if (typeof init.body !== "string") return undefined;
    try {
        return { ...request, body: JSON.parse(init.body) as unknown };
    } catch {
        return undefined; // let the server say what is wrong with it
    }
}

/** In Matrix a PUT is safe to repeat, by its transaction ID or by its nature. */
export function isIdempotent(request: ApiRequest): boolean {
    return request.method !== "POST";
}

export function isSync(request: ApiRequest): boolean {
    return request.method === "GET" && /^\/_matrix\/client\/(v3|r0)\/sync$/.test(request.url.pathname);
}

/** The transaction ID of a request that makes an event, as `send` and `redact`. */
export function transactionOf(request: ApiRequest): string | undefined {
    if (request.method !== "PUT") return undefined;
    const match = /^\/_matrix\/client\/[^/]+\/rooms\/[^/]+\/(?:send|redact)\/[^/]+\/([^/]+)$/.exec(request.url.pathname);
    return match ? decodeURIComponent(match[1]!) : undefined;
}

/**
 * A response as `fetch` would give it. `json()` hands out the value itself, since it was parsed once already; the
 * bytes are made only if somebody asks for them.
 */
export function respond(status: number, value: unknown): Response {
    if (!Number.isInteger(status) || status < 200 || status > 599) throw new TypeError(`The server answered with status ${status}.`);
    const headers = { "Content-Type": "application/json" };
    if (status === 204 || status === 205 || status === 304) return new Response(null, { status });
    const json = value === undefined ? {} : value;
    const bytes = new ReadableStream<Uint8Array>(
        {
            pull(controller) {
                controller.enqueue(new TextEncoder().encode(JSON.stringify(json)));
                controller.close();
            },
        },
        { highWaterMark: 0 },
    );
    const response = new Response(bytes, { status, headers });
    Object.defineProperty(response, "json", { value: () => Promise.resolve(json) });
    return response;
}

/**
 * The one place where the Matrix SDK's client is made. Its encryption is started here, between making the client and
 * starting it; the module for it is loaded then, apart from the rest.
 */
import { ClientEvent, MatrixClient, PendingEventOrdering } from "matrix-js-sdk/lib/client";
import { Filter } from "matrix-js-sdk/lib/filter";
import { logger, type Logger } from "matrix-js-sdk/lib/logger";
import { IndexedDBStore } from "matrix-js-sdk/lib/store/indexeddb";
import { MemoryStore } from "matrix-js-sdk/lib/store/memory";
import type { Transport } from "../protocol/transport.ts";
import type { KeyValue } from "../store/keyvalue.ts";
import type { Session } from "../store/session.ts";
import { keysPrefix, syncDatabase } from "./databases.ts";
import { serverOf } from "./ids.ts";
import { SecretKeys } from "./encryption.ts";
import { Known } from "./known.ts";

export { ClientEvent, MatrixClient };

/** Messages of each room in the first sync, and after a gap. One screen of a phone, twice. */
const TIMELINE_LIMIT = 30;

/** What is synced, over the socket and over HTTP alike. Members come as they are needed. */
const FILTER = { room: { timeline: { limit: TIMELINE_LIMIT }, state: { lazy_load_members: true } } };

export interface ClientOptions {
    session: Session;
    origin: string;
    transport: Transport;
    kv: KeyValue;
    /** Absent where the browser forbids storage; then nothing is kept beyond the page. */
    indexedDB?: IDBFactory;
    /** Whether to encrypt; without it, nothing of it is loaded. */
    encryption?: boolean;
}

export interface RunningClient {
    client: MatrixClient;
    secrets: SecretKeys;
    /** Stops and, if asked, removes everything the client kept on this device. */
    stop(forget: boolean): Promise<void>;
}

/** Makes the client, restores what it stored, opens the socket, and starts to sync. */
export async function startClient(options: ClientOptions): Promise<RunningClient> {
    const { session, origin, transport } = options;
    quieten(logger as unknown as SdkLogger);
    const secrets = new SecretKeys();
    const known = await Known.load(options.kv, session.userId);
    let begun = false;
    const client = new MatrixClient({
        baseUrl: origin,
        userId: session.userId,
        deviceId: session.deviceId,
        accessToken: session.accessToken,
        fetchFn: known.around(keysLater(transport.fetch, serverOf(session.userId), () => begun)),
        store: options.indexedDB ? new IndexedDBStore({ indexedDB: options.indexedDB, dbName: syncDatabase(session.userId) }) : new MemoryStore(),
        timelineSupport: true,
        disableVoip: true,
        logger: quiet,
        cryptoCallbacks: secrets.callbacks,
    });
    client.on(ClientEvent.AccountData, (event) => {
        if (event.getType() === "m.push_rules") known.rulesAre(event.getContent());
    });
    await openStore(client);
    const since = (await client.store.getSavedSyncToken()) ?? undefined;
    transport.start({ accessToken: session.accessToken, filter: FILTER, ...(since === undefined ? {} : { since }) });

    const cryptoDatabasePrefix = keysPrefix(session);
    if (options.encryption) {
        await client.initRustCrypto({ useIndexedDB: options.indexedDB !== undefined, cryptoDatabasePrefix }).catch((error: unknown) => {
            // The module did not arrive: to go on without it would lose keys that are sent to this device meanwhile.
            if (error instanceof TypeError) throw error;
            console.warn("Encryption is not to be had here.", error); // a browser without WebAssembly
        });
    }
    begun = true;
    const filter = new Filter(session.userId);
    filter.setDefinition(FILTER);
    await client.startClient({
        filter,
        initialSyncLimit: TIMELINE_LIMIT,
        lazyLoadMembers: true,
        pendingEventOrdering: PendingEventOrdering.Detached,
    });
    return {
        client,
        secrets,
        async stop(forget) {
            secrets.forget();
            client.stopClient();
            transport.stop();
            if (forget) await client.clearStores({ cryptoDatabasePrefix });
            else await client.store.destroy();
        },
    };
}

/**
 * Of a room that was joined of late the encryption asks for the inviter's keys before it begins, again and again, and
 * fails without them. Where there is no network it is told that the server does not answer now, and asks later.
 */
export function keysLater(ask: typeof fetch, server: string, begun: () => boolean): typeof fetch {
    return async (input, init) => {
        try {
            return await ask(input, init);
        } catch (error) {
            if (begun() || !(error instanceof TypeError) || !String(input).endsWith("/keys/query")) throw error;
            return new Response(JSON.stringify({ device_keys: {}, failures: { [server]: {} } }), { headers: { "Content-Type": "application/json" } });
        }
    };
}

/** Reads what is stored. The store makes people out of it, and can do so once the client has it. */
async function openStore(client: MatrixClient): Promise<void> {
    try {
        await client.store.startup();
    } catch (error) {
        // A private window, a full disk, a damaged database: the app works, and asks the server for all of it.
        console.warn("What is stored on this device cannot be used.", error);
        client.store = new MemoryStore();
    }
}

const ignore = (): void => undefined;

/** What the SDK says in the normal course of things holds IDs and contents that belong in no log. */
const quiet: Logger = {
    trace: ignore,
    debug: ignore,
    info: ignore,
    warn: (...message: unknown[]) => console.warn(...message),
    error: (...message: unknown[]) => console.warn(...message), // what it calls an error is often an expected answer
    getChild: () => quiet,
};

/** Warnings about what is in order here: messages wait for one another in the outbox. */
const EXPECTED = /^Setting event as NOT_SENT/;

/** The part of loglevel that the SDK's own logger has, beside what its type says. */
interface SdkLogger {
    methodFactory: (method: string) => (...message: unknown[]) => void;
    rebuild(): void;
}

/** Parts of the SDK use its global logger, and children of it that take over how it writes. */
function quieten(sdkLogger: SdkLogger): void {
    const warn = (...message: unknown[]): void => {
        if (!EXPECTED.test(String(message[0]))) quiet.warn(...message);
    };
    sdkLogger.methodFactory = (method) => (method === "warn" || method === "error" ? warn : ignore);
    sdkLogger.rebuild();
}

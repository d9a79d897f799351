/**
 * The one place where the Matrix SDK's client is made. Its encryption is started here, between making the client and
 * starting it; the module for it is loaded then, apart from the rest.
 */
import { ClientEvent, MatrixClient, PendingEventOrdering } from "matrix-js-sdk/lib/client";
import { Filter } from "matrix-js-sdk/lib/filter";
import { logger, type Logger } from "matrix-js-sdk/lib/logger";
import { MatrixScheduler } from "matrix-js-sdk/lib/scheduler";
import { IndexedDBStore } from "matrix-js-sdk/lib/store/indexeddb";
import { MemoryStore } from "matrix-js-sdk/lib/store/memory";
import type { Transport } from "../protocol/transport.ts";
import type { Session } from "../store/session.ts";
import { SecretKeys } from "./encryption.ts";

export { ClientEvent, MatrixClient };

/** Messages of each room in the first sync, and after a gap. One screen of a phone, twice. */
const TIMELINE_LIMIT = 30;

/** What is synced, over the socket and over HTTP alike. Members come as they are needed. */
const FILTER = { room: { timeline: { limit: TIMELINE_LIMIT }, state: { lazy_load_members: true } } };

export interface ClientOptions {
    session: Session;
    origin: string;
    transport: Transport;
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
    const store = await openStore(session.userId, options.indexedDB);
    const client = new MatrixClient({
        baseUrl: origin,
        userId: session.userId,
        deviceId: session.deviceId,
        accessToken: session.accessToken,
        fetchFn: versionsKnown(transport.fetch),
        store,
        scheduler: new MatrixScheduler(),
        timelineSupport: true,
        disableVoip: true,
        logger: quiet,
        cryptoCallbacks: secrets.callbacks,
    });
    const since = (await store.getSavedSyncToken()) ?? undefined;
    transport.start({ accessToken: session.accessToken, filter: FILTER, ...(since === undefined ? {} : { since }) });

    const cryptoDatabasePrefix = `hubbub-crypto:${session.userId}:${session.deviceId}`;
    if (options.encryption) {
        await client.initRustCrypto({ useIndexedDB: options.indexedDB !== undefined, cryptoDatabasePrefix }).catch((error: unknown) => {
            // The module did not arrive: to go on without it would lose keys that are sent to this device meanwhile.
            if (error instanceof TypeError) throw error;
            console.warn("Encryption is not to be had here.", error); // a browser without WebAssembly
        });
    }
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
            else await store.destroy();
        },
    };
}

/**
 * The SDK asks for the server's versions before it looks into its store. The server is the one that this app came
 * from: without a network, what it speaks is known well enough to show what is stored.
 */
export function versionsKnown(ask: typeof fetch): typeof fetch {
    return async (input, init) => {
        try {
            return await ask(input, init);
        } catch (error) {
            const address = typeof input === "string" ? input : input instanceof URL ? input.href : input.url;
            if (!(error instanceof TypeError) || !address.endsWith("/_matrix/client/versions")) throw error;
            return new Response(JSON.stringify({ versions: ["v1.1", "v1.11"] }), { headers: { "Content-Type": "application/json" } });
        }
    };
}

async function openStore(userId: string, indexedDB: IDBFactory | undefined): Promise<IndexedDBStore | MemoryStore> {
    if (indexedDB) {
        const store = new IndexedDBStore({ indexedDB, dbName: `hubbub-sync:${userId}` });
        try {
            await store.startup();
            return store;
        } catch {
            // A private window, a full disk, a damaged database: the app works, and asks the server for all of it.
        }
    }
    return new MemoryStore();
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

/** The part of loglevel that the SDK's own logger has, beside what its type says. */
interface SdkLogger {
    methodFactory: (method: string) => (...message: unknown[]) => void;
    rebuild(): void;
}

/** Parts of the SDK use its global logger, and children of it that take over how it writes. */
function quieten(sdkLogger: SdkLogger): void {
    sdkLogger.methodFactory = (method) => (method === "warn" || method === "error" ? quiet.warn : ignore);
    sdkLogger.rebuild();
}

/**
 * The app as a whole: whether somebody is signed in, how the connection is, and the way from one to the other.
 * Everything the browser gives comes in with the options, so that all of it runs in a test without a page.
 */
import { signal } from "@preact/signals-core";
import type { WebSocketLike } from "../protocol/socket.ts";
import { Transport, type TransportStatus } from "../protocol/transport.ts";
import type { KeyValue } from "../store/keyvalue.ts";
import { OutboxStore } from "../store/outbox.ts";
import { Drafts } from "../store/drafts.ts";
import { clearLeaving, loadLeaving, saveLeaving, type Leaving } from "../store/leaving.ts";
import { clearSeen } from "../store/seendevices.ts";
import { clearSession, loadSession, saveSession, type Session } from "../store/session.ts";
import { Auth, type ServerInfo, type SignUp } from "./auth.ts";
import type { Chat } from "./chat.ts";
import { deleteDatabases, storedKeys, storedSync } from "./databases.ts";
import { t } from "./i18n.ts";
import type { PushBrowser } from "./notifications.ts";
import { Known } from "./known.ts";
import { describeError } from "./errors.ts";

export interface AppOptions {
    /** Where the server is, as `https://chat.example.org`. */
    origin: string;
    fetch: typeof fetch;
    connect: (url: string, protocol: string) => WebSocketLike;
    kv: KeyValue;
    /** What this device is called where devices are listed. */
    deviceName?: string;
    indexedDB?: IDBFactory;
    /** Whether conversations are encrypted where they can be. */
    encryption?: boolean;
    /** Loads what shows a conversation, beside what holds it. */
    prepare?: () => Promise<void>;
    /** How the browser tells of messages while nobody looks at the page. */
    push?: PushBrowser;
    /** Loads the page anew. */
    reload?: () => void;
}

/** How long a sign-out waits for what is open to close. The keys of a device may stay open as long as the page is there. */
const CLOSE_MS = 3_000;

export type View = { kind: "starting" } | { kind: "signed-out"; why: string | undefined } | { kind: "signed-in"; chat: Chat } | { kind: "failed"; why: string };

export class App {
    readonly view = signal<View>({ kind: "starting" });
    readonly connection = signal<TransportStatus>({ kind: "stopped" });
    readonly info = signal<ServerInfo | undefined>(undefined);
    readonly auth: Auth;

    private session: Session | undefined;
    private chat: Chat | undefined;
    private readonly transport: Transport;
    private restarting = false;

    constructor(private readonly options: AppOptions) {
        this.auth = new Auth(options.fetch, options.origin, options.deviceName);
        this.transport = new Transport({
            origin: options.origin,
            fetch: options.fetch,
            connect: options.connect,
            onStatus: (status) => {
                this.connection.value = status;
                this.chat?.connectionChanged();
            },
            onPositionLost: () => void this.startOver(),
        });
    }

    /** Goes on with the session of this device, or shows the way in. */
    async start(): Promise<void> {
        this.session = await loadSession(this.options.kv).catch(() => undefined);
        const leaving = await loadLeaving(this.options.kv).catch(() => undefined);
        if (leaving) void this.goneAtLast(leaving, this.session?.userId).catch(() => undefined);
        if (this.session) await this.enter(this.session);
        else this.view.value = { kind: "signed-out", why: leaving?.why };
    }

    /** Loads what the server says of itself; without it the app works, and says less. */
    async loadInfo(): Promise<void> {
        this.info.value = await this.auth.info().catch(() => undefined);
    }

    /** Throws with words for the person in front of the screen. */
    async signIn(user: string, password: string): Promise<void> {
        await this.begin(() => this.auth.signIn(user.trim(), password), "sign-in", password);
    }

    async signUp(form: SignUp): Promise<void> {
        await this.begin(() => this.auth.signUp({ ...form, username: form.username.trim().toLowerCase(), token: form.token.trim() }), "sign-up", form.password);
    }

    async signOut(): Promise<void> {
        const token = this.session?.accessToken;
        const gone = await this.leave(undefined);
        // The device forgets first: a server that cannot be reached must not keep somebody signed in here.
        if (token !== undefined) await this.auth.signOut(token).catch(() => undefined);
        if (!gone) this.options.reload?.();
    }

    /** To be called when the page is shown again, or the device is online again. */
    wake(): void {
        this.transport.wake();
    }

    /** To be called when the page is hidden: it may not live on. */
    async save(): Promise<void> {
        await this.chat?.save().catch(() => undefined);
    }

    private async begin(get: () => Promise<Session>, doing: "sign-in" | "sign-up", password: string): Promise<void> {
        let session: Session;
        try {
            session = await get();
        } catch (error) {
            throw new Error(describeError(error, doing), { cause: error });
        }
        await saveSession(this.options.kv, session).catch(() => undefined);
        await this.enter(session, doing === "sign-up" ? password : undefined);
    }

    private async enter(session: Session, password?: string): Promise<void> {
        this.session = session;
        this.view.value = { kind: "starting" };
        try {
            const [{ Chat }] = await Promise.all([import("./chat.ts"), this.options.prepare?.()]);
            const { origin, fetch, indexedDB, encryption, kv, push } = this.options;
            const chat = await Chat.start({
                session,
                origin,
                transport: this.transport,
                fetch,
                kv,
                ...(indexedDB ? { indexedDB } : {}),
                ...(encryption ? { encryption } : {}),
                ...(push ? { push } : {}),
                ...(password === undefined ? {} : { password }),
                onSignedOut: () => void this.leave(t("You were signed out. Sign in again.")).then((gone) => gone || this.options.reload?.()),
            });
            if (this.session !== session) return await chat.stop(true); // signed out meanwhile
            this.chat = chat;
            this.view.value = { kind: "signed-in", chat };
        } catch (error) {
            this.view.value = { kind: "failed", why: describeError(error) };
        }
    }

    /** Forgets who was signed in, and all of theirs. False if some of it cannot be removed as long as the page is there. */
    private async leave(why: string | undefined): Promise<boolean> {
        const { chat, session } = this;
        const { kv } = this.options;
        this.session = undefined;
        this.chat = undefined;
        this.view.value = { kind: "signed-out", why };
        await clearSession(kv).catch(() => undefined);
        if (!session) return true;
        const { userId, deviceId } = session;
        await saveLeaving(kv, { userId, deviceId, ...(why === undefined ? {} : { why }) }).catch(() => undefined);
        await chat?.notifications.forget().catch(() => undefined);
        const stopped = chat ? chat.stop(true).then(() => true, () => false) : true;
        const gone = await Promise.race([stopped, new Promise<false>((late) => setTimeout(late, CLOSE_MS, false))]);
        await this.wipe(userId);
        if (gone) await clearLeaving(kv).catch(() => undefined);
        return gone;
    }

    /** Removes what is kept of a user beside the databases of the SDK. */
    private async wipe(userId: string): Promise<void> {
        const { kv } = this.options;
        await new OutboxStore(kv, userId).clear().catch(() => undefined);
        await Known.forget(kv, userId).catch(() => undefined);
        await Drafts.clear(kv, userId).catch(() => undefined);
        await clearSeen(kv, userId).catch(() => undefined);
    }

    /** Ends a sign-out that a page did not come to the end of. What the same user has here by now stays. */
    private async goneAtLast({ userId, deviceId }: Leaving, present: string | undefined): Promise<void> {
        const { kv, indexedDB } = this.options;
        if (userId !== present) await this.wipe(userId);
        if (indexedDB) await deleteDatabases(indexedDB, [...storedKeys({ userId, deviceId }), ...(userId === present ? [] : storedSync(userId))]);
        await clearLeaving(kv);
    }

    /** The server no longer knows where this device was: forget what was synced, and sync anew. */
    private async startOver(): Promise<void> {
        const { chat, session } = this;
        if (!chat || !session || this.restarting) return;
        this.restarting = true;
        try {
            this.chat = undefined;
            await chat.stop(true).catch(() => undefined);
            if (this.session === session) await this.enter(session);
        } finally {
            this.restarting = false;
        }
    }
}

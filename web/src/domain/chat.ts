/** A signed-in session at work: the rooms, and what can be done with them. Loaded with the SDK after sign-in. */
import { signal } from "@preact/signals-core";
import { EventType } from "matrix-js-sdk/lib/@types/event";
import type { ICreateRoomStateEvent } from "matrix-js-sdk/lib/@types/requests";
import { Preset, Visibility } from "matrix-js-sdk/lib/@types/partials";
import { HttpApiEvent } from "matrix-js-sdk/lib/http-api/index";
import { MatrixEventEvent } from "matrix-js-sdk/lib/models/event";
import { RoomEvent } from "matrix-js-sdk/lib/models/room";
import { type RoomMember, RoomMemberEvent } from "matrix-js-sdk/lib/models/room-member";
import { SyncState } from "matrix-js-sdk/lib/sync";
import type { Transport } from "../protocol/transport.ts";
import type { KeyValue } from "../store/keyvalue.ts";
import { Drafts } from "../store/drafts.ts";
import { OutboxStore } from "../store/outbox.ts";
import type { Session } from "../store/session.ts";
import { ClientEvent, type MatrixClient, type RunningClient, startClient } from "./client.ts";
import { Devices } from "./devices.ts";
import { findRooms, type FoundRoom } from "./directory.ts";
import { Encryption } from "./encryption.ts";
import { inWords } from "./errors.ts";
import type { PreparedFile } from "./filecontent.ts";
import { RoomFiles } from "./gallery.ts";
import { t } from "./i18n.ts";
import { localpart, serverOf, toUserIds } from "./ids.ts";
import { Ignored } from "./ignored.ts";
import { Invites } from "./invites.ts";
import { LockedMessages } from "./locked.ts";
import { Media } from "./media.ts";
import { Notifications, type PushBrowser } from "./notifications.ts";
import { Outbox } from "./outbox.ts";
import { Own } from "./ownprofile.ts";
import { PresenceBook } from "./presence.ts";
import { Previews } from "./previews.ts";
import { PreferencesStore } from "./preferencestore.ts";
import { report, type Reported } from "./reports.ts";
import { type Found, searchMessages } from "./search.ts";
import { notifyOf, type RoomNotify, setRoomNotify } from "./roomnotify.ts";
import { RoomSettings } from "./roomsettings.ts";
import { directContent, listRooms, type RoomSummary } from "./rooms.ts";
import { ThreadTimeline } from "./thread.ts";
import { Timeline } from "./timeline.ts";
import { Trust } from "./trust.ts";
import { Uploads } from "./uploads.ts";
import { Verifications } from "./verification.ts";

export interface ChatOptions {
    session: Session;
    origin: string;
    transport: Transport;
    /** Plain, for media, which streams. */
    fetch: typeof fetch;
    kv: KeyValue;
    indexedDB?: IDBFactory;
    encryption?: boolean;
    /** How this device is told of messages while nobody looks at the page. */
    push?: PushBrowser;
    /** Known after sign-up, and used for nothing but to make the account's keys. */
    password?: string;
    /** The server ended the session. */
    onSignedOut: () => void;
}

/** How long a new room may take to come back in the sync after the server made it. */
const ROOM_APPEARS_MS = 15_000;

export class Chat {
    readonly rooms = signal<RoomSummary[]>([]);
    /** False until there is something true to show: from the device's store, or from the server. */
    readonly ready = signal(false);

    readonly media: Media;
    readonly previews: Previews;
    readonly encryption: Encryption;
    readonly preferences: PreferencesStore;
    readonly devices: Devices;
    readonly ignored: Ignored;
    readonly invites: Invites;
    readonly own: Own;
    readonly presence: PresenceBook;
    readonly trust: Trust;
    readonly verifications: Verifications;
    readonly notifications: Notifications;

    private readonly outbox: Outbox;
    private readonly uploads = new Map<string, Uploads>();
    private readonly ends: (() => void)[] = [];
    private encryptionBegun = false;
    private refreshing: ReturnType<typeof setTimeout> | undefined;

    private constructor(
        private readonly running: RunningClient,
        readonly userId: string,
        options: ChatOptions,
        drafts: Drafts,
    ) {
        this.media = new Media(options.fetch, options.origin, () => running.client.getAccessToken());
        this.previews = new Previews(options.fetch, options.origin, () => running.client.getAccessToken());
        this.preferences = new PreferencesStore(running.client);
        this.encryption = new Encryption(running.client, running.secrets, userId);
        this.devices = new Devices(running.client, options.kv, userId);
        this.ignored = new Ignored(running.client);
        this.invites = new Invites(running.client);
        this.own = new Own(running.client, userId);
        this.trust = new Trust(running.client);
        this.verifications = new Verifications(running.client, () => this.encryption.state.value === "ready");
        const locked = new LockedMessages(running.client);
        let before = this.encryption.state.value;
        this.ends.push(
            () => locked.stop(),
            this.encryption.state.subscribe((state) => {
                if (state === "ready") void this.devices.look();
                if (state === "ready" && before === "locked") locked.retry();
                before = state;
            }),
        );
        this.presence = new PresenceBook(running.client);
        this.outbox = new Outbox(running.client, new OutboxStore<PreparedFile>(options.kv, userId), drafts, () => ["socket", "http"].includes(options.transport.status.kind));
        this.notifications = new Notifications({
            browser: options.push,
            kv: options.kv,
            client: running.client,
            rooms: this.rooms,
            preferences: this.preferences.current,
            ready: this.ready,
            reply: (roomId, text) => this.outbox.send(roomId, EventType.RoomMessage, { msgtype: "m.text", body: text }),
        });
    }

    private get client(): MatrixClient {
        return this.running.client;
    }

    static async start(options: ChatOptions): Promise<Chat> {
        const drafts = new Drafts(options.kv, options.session.userId);
        await drafts.load().catch(() => undefined); // before the client, of which nothing may be missed
        const running = await startClient(options);
        const chat = new Chat(running, options.session.userId, options, drafts);
        const { client } = running;
        client.on(ClientEvent.Sync, (state, before) => {
            if (state === SyncState.Prepared || state === SyncState.Syncing) chat.ready.value = true;
            if (state === SyncState.Prepared) void chat.restore(false);
            if (state === SyncState.Syncing && before !== SyncState.Syncing) void chat.restore(true);
            if (state === SyncState.Syncing) chat.beginEncryption(options.password);
            chat.later();
        });
        client.on(MatrixEventEvent.Decrypted, chat.later);
        client.on(HttpApiEvent.SessionLoggedOut, options.onSignedOut);
        for (const event of [ClientEvent.Room, ClientEvent.DeleteRoom, ClientEvent.AccountData] as const) client.on(event, chat.later);
        for (const event of [RoomEvent.Timeline, RoomEvent.Name, RoomEvent.Receipt, RoomEvent.MyMembership, RoomEvent.LocalEchoUpdated, RoomEvent.Tags] as const) {
            client.on(event, chat.later);
        }
        client.on(RoomMemberEvent.Name, chat.later);
        if (client.getSyncState() === SyncState.Prepared || client.getSyncState() === SyncState.Syncing) {
            chat.ready.value = true;
            void chat.restore(false);
        }
        chat.refresh();
        void chat.notifications.start();
        return chat;
    }

    async stop(forget: boolean): Promise<void> {
        clearTimeout(this.refreshing);
        for (const end of this.ends) end();
        this.verifications.dismiss();
        await this.outbox.drafts.write();
        this.outbox.stop();
        this.notifications.stop();
        this.media.close();
        this.client.removeAllListeners();
        await this.running.stop(forget);
    }

    private beginEncryption(password: string | undefined): void {
        if (this.encryptionBegun) return;
        this.encryptionBegun = true;
        void this.encryption.begin(password);
    }

    /** What makes a new room an encrypted one, where that can be. */
    private get sealed(): { initial_state?: ICreateRoomStateEvent[] } {
        if (!this.client.getCrypto()) return {};
        return { initial_state: [{ type: EventType.RoomEncryption, state_key: "", content: { algorithm: "m.megolm.v1.aes-sha2" } }] };
    }

    get serverName(): string {
        return serverOf(this.userId);
    }

    /** Opens a room that the list holds. The caller closes it. */
    open(roomId: string): Timeline {
        return new Timeline(this.client, roomId, this.outbox, this.uploadsOf(roomId));
    }

    /** Opens the thread that begins with a message. The caller closes it. */
    openThread(roomId: string, root: string): Timeline {
        return new ThreadTimeline(this.client, roomId, this.outbox, this.uploadsOf(roomId), root);
    }

    /** To be called when the network came or went. */
    connectionChanged(): void {
        this.outbox.wake();
        for (const uploads of this.uploads.values()) uploads.wake();
    }

    /** What an earlier page did not get rid of. */
    private async restore(complete: boolean): Promise<void> {
        await this.outbox.restore(complete);
        for (const file of await this.outbox.store.files().catch(() => [])) {
            if (this.client.getRoom(file.roomId)?.getMyMembership() === "join") this.uploadsOf(file.roomId).restore(file);
            else if (complete) await this.outbox.store.dropFile(file);
        }
    }

    private uploadsOf(roomId: string): Uploads {
        let uploads = this.uploads.get(roomId);
        if (!uploads) this.uploads.set(roomId, (uploads = new Uploads(this.client, roomId, this.outbox, () => this.media.limit())));
        return uploads;
    }

    /** Makes a private room with a name, and invites people. Gives its ID once it is in the list. */
    async createRoom(name: string, invited: string): Promise<string> {
        const invite = this.readUsers(invited);
        return inWords(async () => {
            const { room_id } = await this.client.createRoom({ name: name.trim(), preset: Preset.PrivateChat, visibility: Visibility.Private, invite, ...this.sealed });
            return this.appears(room_id);
        });
    }

    /** The conversation with one person, if there is one. */
    directWith(userId: string): string | undefined {
        return (directContent(this.client)[userId] ?? []).find((id) => this.client.getRoom(id)?.getMyMembership() === "join");
    }

    /** The other one in a conversation of two. */
    partnerIn(roomId: string): string | undefined {
        return Object.entries(directContent(this.client)).find(([, rooms]) => rooms.includes(roomId))?.[0];
    }

    /** The name of a person in a room, or else wherever they are known. */
    nameOf(userId: string, roomId?: string): string {
        const name = this.memberOf(userId, roomId)?.rawDisplayName ?? this.client.getUser(userId)?.displayName;
        return name === undefined || name === "" || name === userId ? localpart(userId) : name;
    }

    /** The picture of a person, as the room or the server knows it. */
    avatarOf(userId: string, roomId?: string): string | undefined {
        if (userId === this.userId) return this.own.profile.value.avatar;
        return this.memberOf(userId, roomId)?.getMxcAvatarUrl() ?? this.client.getUser(userId)?.avatarUrl;
    }

    /** Somebody as a member of the room that is asked for, or of any that both are in. */
    private memberOf(userId: string, roomId: string | undefined): RoomMember | undefined {
        const rooms = roomId === undefined ? this.client.getRooms() : [this.client.getRoom(roomId)];
        for (const room of rooms) {
            const member = room?.getMember(userId);
            if (member) return member;
        }
        return undefined;
    }

    async report(what: Reported, reason: string): Promise<void> {
        await report(this.client, what, reason);
    }

    /** Asks somebody to compare emoji, in the conversation with them. */
    async verify(userId: string): Promise<void> {
        const roomId = await this.createDirect(userId);
        await inWords(() => this.verifications.askPerson(userId, roomId));
    }

    /** Looks whether somebody in an encrypted room has other keys than those that were verified. */
    lookAtPeople(roomId: string): void {
        this.trust.lookAt(this.client.getRoom(roomId)?.getJoinedMembers().map((member) => member.userId) ?? []);
    }

    isIn(roomId: string, userId: string): boolean {
        return this.client.getRoom(roomId)?.getMember(userId)?.membership === "join";
    }

    /** Opens the conversation with one person: the one there is, or a new one. */
    async createDirect(typed: string): Promise<string> {
        const [userId, ...rest] = this.readUsers(typed);
        if (userId === undefined || rest.length > 0) throw new Error(t("Type the name of one person."));
        if (userId === this.userId) throw new Error(t("That is you."));
        const existing = this.directWith(userId);
        if (existing !== undefined) return existing;
        return inWords(async () => {
            const { room_id } = await this.client.createRoom({ preset: Preset.TrustedPrivateChat, visibility: Visibility.Private, is_direct: true, invite: [userId], ...this.sealed });
            await this.markDirect(room_id, userId);
            return this.appears(room_id);
        });
    }

    async invite(roomId: string, typed: string): Promise<void> {
        const users = this.readUsers(typed);
        if (users.length === 0) throw new Error(t("Type the name of a person."));
        for (const userId of users) await inWords(() => this.client.invite(roomId, userId));
    }

    /** All files of a room, from the newest back. */
    files(roomId: string): RoomFiles {
        return new RoomFiles(this.client, roomId);
    }

    notifyOf(roomId: string): RoomNotify {
        return notifyOf(this.client.pushRules, roomId);
    }

    setNotify(roomId: string, to: RoomNotify): Promise<void> {
        return setRoomNotify(this.client, roomId, to);
    }

    settings(roomId: string): RoomSettings {
        return new RoomSettings(this.client, roomId);
    }

    async search(words: string): Promise<Found[]> {
        return inWords(() => searchMessages(this.client, words));
    }

    async setFavourite(roomId: string, favourite: boolean): Promise<void> {
        await inWords(() => (favourite ? this.client.setRoomTag(roomId, "m.favourite", { order: 0.5 }) : this.client.deleteRoomTag(roomId, "m.favourite")));
    }

    async accept(roomId: string): Promise<void> {
        await inWords(async () => {
            const own = this.client.getRoom(roomId)?.getMember(this.userId)?.events.member;
            const inviter = own?.getContent().is_direct === true ? own.getSender() : undefined;
            await this.client.joinRoom(roomId);
            if (inviter !== undefined) await this.markDirect(roomId, inviter);
            await this.appears(roomId);
        });
    }

    /** Rooms that anybody on this server may find and join. */
    async findRooms(words: string): Promise<FoundRoom[]> {
        return inWords(() => findRooms(this.client, words));
    }

    /** Asks those in a room to be let in: an invitation is the answer. */
    async askToJoin(roomId: string): Promise<void> {
        await inWords(() => this.client.knockRoom(roomId));
    }

    async join(roomId: string): Promise<void> {
        await inWords(async () => {
            await this.client.joinRoom(roomId);
            await this.appears(roomId);
        });
    }

    /** Makes a space: a place for rooms that belong together. */
    async createSpace(name: string, invited: string): Promise<string> {
        const invite = this.readUsers(invited);
        return inWords(async () => {
            const { room_id } = await this.client.createRoom({ name: name.trim(), preset: Preset.PrivateChat, visibility: Visibility.Private, invite, creation_content: { type: "m.space" }, power_level_content_override: { events_default: 100 } });
            return this.appears(room_id);
        });
    }

    async decline(roomId: string): Promise<void> {
        await inWords(() => this.client.leave(roomId));
    }

    /** Writes what was received to the device's store now, because the page may not live on. */
    async save(): Promise<void> {
        await this.outbox.drafts.write();
        await this.client.store.save(true);
    }

    private readUsers(typed: string): string[] {
        const { ids, invalid } = toUserIds(typed, this.serverName);
        if (invalid.length > 0) throw new Error(t("“{name}” is not a name on this server.", { name: invalid[0]! }));
        return ids;
    }

    private async markDirect(roomId: string, userId: string): Promise<void> {
        const content = directContent(this.client);
        const rooms = new Set(content[userId] ?? []).add(roomId);
        await this.client.setAccountDataRaw(EventType.Direct, { ...content, [userId]: [...rooms] });
    }

    /** The server has answered; the room itself comes with the sync, usually a moment later. */
    private appears(roomId: string): Promise<string> {
        return new Promise((resolve, reject) => {
            const look = (): void => {
                if (this.client.getRoom(roomId)?.getMyMembership() !== "join") return;
                done();
                this.refresh();
                resolve(roomId);
            };
            const done = (): void => {
                clearTimeout(timer);
                this.client.off(ClientEvent.Room, look);
                this.client.off(RoomEvent.MyMembership, look);
            };
            const timer = setTimeout(() => {
                done();
                reject(new Error(t("The room was made, but has not come back from the server yet.")));
            }, ROOM_APPEARS_MS);
            this.client.on(ClientEvent.Room, look);
            this.client.on(RoomEvent.MyMembership, look);
            look();
        });
    }

    /** Many events come in one sync: look once, after them. */
    private readonly later = (): void => {
        this.refreshing ??= setTimeout(() => {
            this.refreshing = undefined;
            this.refresh();
        }, 0);
    };

    private refresh(): void {
        this.rooms.value = listRooms(this.client);
    }
}

/** The name and the picture that a person shows to the others. */
import { signal } from "@preact/signals-core";
import { Method } from "matrix-js-sdk/lib/http-api/index";
import { UserEvent } from "matrix-js-sdk/lib/models/user";
import type { MatrixClient } from "./client.ts";
import { inWords } from "./errors.ts";
import { localpart } from "./ids.ts";

export interface OwnProfile {
    name: string;
    avatar: string | undefined;
}

export class Own {
    readonly profile;

    constructor(
        private readonly client: MatrixClient,
        private readonly userId: string,
    ) {
        this.profile = signal<OwnProfile>({ name: localpart(userId), avatar: undefined });
        // Another device may change it; the server says so with the person's presence and in the rooms.
        for (const event of [UserEvent.DisplayName, UserEvent.AvatarUrl] as const) client.on(event, (_event, user) => user.userId === userId && void this.load());
        void this.load();
    }

    async load(): Promise<void> {
        const found = await this.client.getProfileInfo(this.userId).catch(() => undefined);
        if (found) this.profile.value = { name: found.displayname || localpart(this.userId), avatar: found.avatar_url || undefined };
    }

    async rename(name: string): Promise<void> {
        await this.attempt(() => this.client.setDisplayName(name.trim()));
    }

    /** Without a picture, the one that there was goes. */
    async setPicture(picture: Blob | undefined): Promise<void> {
        await this.attempt(async () => {
            if (picture) return this.client.setAvatarUrl((await this.client.uploadContent(picture, { includeFilename: false })).content_uri);
            return this.client.http.authedRequest(Method.Put, `/profile/${encodeURIComponent(this.userId)}/avatar_url`, undefined, { avatar_url: "" });
        });
    }

    private async attempt(action: () => Promise<unknown>): Promise<void> {
        await inWords(action);
        await this.load();
    }
}

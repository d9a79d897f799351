/** Matrix user IDs as people write them. spec: appendices §User identifiers */

const LOCALPART = /^[a-z0-9._=/+-]+$/;

/**
 * The full user ID for what somebody typed: `bob`, `@bob` or `@bob:example.org`. `undefined` if it cannot be one;
 * people of other servers cannot be reached, as there is no federation.
 */
export function toUserId(typed: string, serverName: string): string | undefined {
    const text = typed.trim().replace(/^@/, "").toLowerCase();
    const colon = text.indexOf(":");
    const localpart = colon < 0 ? text : text.slice(0, colon);
    if (!LOCALPART.test(localpart)) return undefined;
    if (colon >= 0 && text.slice(colon + 1) !== serverName.toLowerCase()) return undefined;
    const id = `@${localpart}:${serverName}`;
    return new TextEncoder().encode(id).length <= 255 ? id : undefined;
}

export interface UserIds {
    ids: string[];
    /** What was typed and is no user of this server. */
    invalid: string[];
}

/** Reads a list separated by spaces, commas or semicolons; each ID once. */
export function toUserIds(typed: string, serverName: string): UserIds {
    const ids = new Set<string>();
    const invalid: string[] = [];
    for (const word of typed.split(/[\s,;]+/).filter((w) => w !== "")) {
        const id = toUserId(word, serverName);
        if (id) ids.add(id);
        else invalid.push(word);
    }
    return { ids: [...ids], invalid };
}

export function localpart(userId: string): string {
    return /^@([^:]*)/.exec(userId)?.[1] || userId;
}

/** The server's name in a user ID; it may itself hold colons (a port). */
export function serverOf(userId: string): string {
    return userId.slice(userId.indexOf(":") + 1);
}

/** Telling those who run the server of what should not be. spec: client-server §Reporting Content */
import { Method } from "matrix-js-sdk/lib/http-api/index";
import type { MatrixClient } from "./client.ts";
import { inWords } from "./errors.ts";

/** What is told of: a message, a whole room, or a person. */
export type Reported = { kind: "message"; roomId: string; eventId: string } | { kind: "room"; roomId: string } | { kind: "person"; userId: string };

export async function report(client: MatrixClient, what: Reported, reason: string): Promise<void> {
    const path =
        what.kind === "person" ? `/users/${encodeURIComponent(what.userId)}/report`
        : what.kind === "room" ? `/rooms/${encodeURIComponent(what.roomId)}/report`
        : `/rooms/${encodeURIComponent(what.roomId)}/report/${encodeURIComponent(what.eventId)}`; // prettier-ignore
    await inWords(() => client.http.authedRequest(Method.Post, path, undefined, { reason: reason.trim() }));
}

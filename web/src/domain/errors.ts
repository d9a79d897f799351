/** What went wrong, in the words of the person in front of the screen. */
import { t } from "./i18n.ts";

/** An answer of the server that says no. Shaped like the SDK's MatrixError, so that one function reads both. */
export class ServerError extends Error {
    override name = "ServerError";
    readonly errcode: string;
    readonly data: Record<string, unknown>;

    constructor(
        readonly httpStatus: number,
        data: Record<string, unknown>,
    ) {
        super(typeof data.error === "string" ? data.error : t("The server answered {status}.", { status: httpStatus }));
        this.data = data;
        this.errcode = typeof data.errcode === "string" ? data.errcode : "";
    }
}

const WORDS: Record<string, string> = {
    M_WEAK_PASSWORD: "That password is too weak. Use at least eight characters that are hard to guess; a few unrelated words work well.",
    M_USER_IN_USE: "That name is already taken. Try another one.",
    M_INVALID_USERNAME: "A name may hold only small letters, digits and the signs . _ = - / +",
    M_EXCLUSIVE: "That name is reserved. Try another one.",
    M_USER_DEACTIVATED: "This account was closed.",
    M_USER_LOCKED: "This account is locked. Ask whoever runs this server.",
    M_UNKNOWN_TOKEN: "You were signed out. Sign in again.",
    M_TOO_LARGE: "That is too long to send.",
    M_NOT_FOUND: "That could not be found.",
    M_INVITE_BLOCKED: "Somebody you want to invite accepts no invitations.",
    M_GUEST_ACCESS_FORBIDDEN: "Only people with an account can do that.",
};

export type Doing = "sign-in" | "sign-up" | "other";

interface Failure {
    name?: unknown;
    message?: unknown;
    errcode?: unknown;
    httpStatus?: unknown;
    data?: { error?: unknown; retry_after_ms?: unknown };
}

export function describeError(error: unknown, doing: Doing = "other"): string {
    const failure: Failure = typeof error === "object" && error !== null ? error : {};
    const errcode = typeof failure.errcode === "string" ? failure.errcode : "";
    if (errcode === "M_LIMIT_EXCEEDED") return `${t("That was too often.")} ${waitFor(failure.data?.retry_after_ms)}`;
    if (errcode === "M_FORBIDDEN" && doing === "sign-in") return t("The name or the password is not right.");
    if (errcode === "M_FORBIDDEN" && doing === "sign-up") return serverWords(failure) ?? t("New accounts are not open on this server.");
    if (errcode === "M_FORBIDDEN") return serverWords(failure) ?? t("You may not do that.");
    const words = Object.hasOwn(WORDS, errcode) ? WORDS[errcode] : undefined;
    if (words !== undefined) return t(words);
    if (typeof failure.httpStatus === "number" && failure.httpStatus >= 500) return t("The server has a problem of its own. Try again in a moment.");
    if (errcode !== "") return serverWords(failure) ?? t("The server refused that.");
    if (failure.name === "TypeError" || failure.name === "ConnectionError") return t("The server cannot be reached. Check your connection.");
    return typeof failure.message === "string" && failure.message !== "" ? failure.message : t("Something went wrong.");
}

/** Does it; what goes wrong is thrown in words for the person in front of the screen. */
export async function inWords<T>(action: () => Promise<T>): Promise<T> {
    try {
        return await action();
    } catch (error) {
        throw new Error(describeError(error), { cause: error });
    }
}

function serverWords(failure: Failure): string | undefined {
    const words = failure.data?.error;
    if (typeof words !== "string" || words.trim() === "") return undefined;
    const sentence = words.trim().slice(0, 200);
    return /[.!?]$/.test(sentence) ? sentence : `${sentence}.`;
}

function waitFor(ms: unknown): string {
    if (typeof ms !== "number" || !(ms > 0)) return t("Wait a moment, then try again.");
    const seconds = Math.ceil(ms / 1000);
    if (seconds === 1) return t("Try again in a second.");
    if (seconds < 100) return t("Try again in {count} second.|Try again in {count} seconds.", { count: seconds });
    return t("Try again in {count} minute.|Try again in {count} minutes.", { count: Math.ceil(seconds / 60) });
}

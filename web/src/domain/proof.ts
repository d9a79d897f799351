/** What the server does only for who proves again to be the one. spec: client-server §User-Interactive Authentication API */
import type { AuthDict } from "matrix-js-sdk/lib/interactive-auth";
import { t } from "./i18n.ts";

/** Makes a request, and makes it again with the password if the server asks for it. */
export async function withPassword<T>(request: (auth: AuthDict | null) => Promise<T>, userId: string, password: string | undefined): Promise<T> {
    try {
        return await request(null);
    } catch (error) {
        const session = (error as { data?: { session?: unknown } }).data?.session;
        if (password === undefined || typeof session !== "string") throw error;
        try {
            return await request({ type: "m.login.password", identifier: { type: "m.id.user", user: userId }, password, session });
        } catch (refused) {
            const { errcode, httpStatus } = refused as { errcode?: unknown; httpStatus?: unknown };
            if (errcode === "M_FORBIDDEN" || httpStatus === 401) throw new Error(t("The password is not right."), { cause: refused });
            throw refused;
        }
    }
}

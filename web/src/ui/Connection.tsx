/** Says when the connection is not as it should be, and nothing while it is. */
import type { JSX } from "preact";
import { useEffect, useState } from "preact/hooks";
import { t } from "../domain/i18n.ts";
import { Icon } from "./parts.tsx";
import type { App } from "../domain/app.ts";

export function Connection({ app }: { app: App }): JSX.Element | null {
    const status = app.connection.value;
    if (status.kind === "connecting") {
        return (
            <p class="connection connecting" role="status">
                {t("Connecting…")}
            </p>
        );
    }
    if (status.kind !== "offline") return null;
    return (
        <div class="connection offline" role="status">
            <Icon name="offline" />
            <span>
                <strong>{t("You are offline.")}</strong>
                <span class="connection-more">
                    {t("What you write is sent later.")} <Countdown until={status.retryAt} />
                </span>
            </span>
            <button type="button" class="button small" onClick={() => app.wake()}>
                {t("Try now")}
            </button>
        </div>
    );
}

function Countdown({ until }: { until: number | undefined }): JSX.Element | null {
    const [now, setNow] = useState(Date.now());
    useEffect(() => {
        const timer = setInterval(() => setNow(Date.now()), 1000);
        return () => clearInterval(timer);
    }, []);
    if (until === undefined) return null;
    const seconds = Math.ceil((until - now) / 1000);
    return <>{seconds > 0 ? t("Next attempt in {seconds}\u00a0s.", { seconds }) : t("Trying…")}</>;
}

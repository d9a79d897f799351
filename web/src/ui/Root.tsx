/** Chooses the screen. */
import type { JSX } from "preact";
import { language, t } from "../domain/i18n.ts";
import type { App } from "../domain/app.ts";
import { Empty, Spinner } from "./parts.tsx";
import { shell } from "./shell.ts";
import { Welcome } from "./Welcome.tsx";

export function Root({ app }: { app: App }): JSX.Element {
    const view = app.view.value;
    const Shell = shell.value?.Shell;
    return (
        <div class="root" key={language.value /* other words everywhere */} data-transport={app.connection.value.kind}>
            {view.kind === "starting" && (
                <main class="centered">
                    <Spinner label={t("Opening hubbub")} />
                </main>
            )}
            {view.kind === "failed" && (
                <main class="centered">
                    <Empty title={t("hubbub could not start")}>
                        <p>{view.why}</p>
                        <button type="button" class="button primary" onClick={() => location.reload()}>
                            {t("Try again")}
                        </button>
                    </Empty>
                </main>
            )}
            {view.kind === "signed-out" && <Welcome app={app} why={view.why} />}
            {view.kind === "signed-in" && Shell && <Shell app={app} chat={view.chat} />}
        </div>
    );
}

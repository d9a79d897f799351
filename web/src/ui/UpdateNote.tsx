/** Says that a newer build of the app is here, and leaves it to the person when to begin it. */
import type { JSX } from "preact";
import { t } from "../domain/i18n.ts";
import { newerBuild } from "./newer.ts";
import { Icon } from "./parts.tsx";

export function UpdateNote(): JSX.Element | null {
    const take = newerBuild.value;
    if (!take) return null;
    return (
        <div class="question" role="status">
            <Icon name="up" />
            <div>
                <strong>{t("A new version is here")}</strong>
                <span class="hint">{t("It begins when you load the page again.")}</span>
                <div class="question-buttons">
                    <button type="button" class="button primary small" onClick={take}>
                        {t("Load it now")}
                    </button>
                    <button type="button" class="button small" onClick={() => (newerBuild.value = undefined)}>
                        {t("Later")}
                    </button>
                </div>
            </div>
        </div>
    );
}

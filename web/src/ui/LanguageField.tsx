/** Which language the app speaks. Each is named in itself, for those who do not read the present one. */
import type { JSX } from "preact";
import { useId } from "preact/hooks";
import { LANGUAGES, t } from "../domain/i18n.ts";
import type { Preferences } from "../domain/preferences.ts";

type Choice = Preferences["language"];

export function LanguageField({ value, onChange }: { value: Choice; onChange: (language: Choice) => void }): JSX.Element {
    const id = useId();
    return (
        <div class="field">
            <label for={id}>{t("Language")}</label>
            <select id={id} class="select" onChange={(event) => onChange(event.currentTarget.value as Choice)}>
                <option value="system" selected={value === "system"}>
                    {t("As the browser asks for")}
                </option>
                {LANGUAGES.map(([tongue, name]) => (
                    <option key={tongue} value={tongue} lang={tongue} selected={value === tongue}>
                        {name}
                    </option>
                ))}
            </select>
        </div>
    );
}

/** The app's colour, as spots to choose from. */
import type { JSX } from "preact";
import { useId } from "preact/hooks";
import { t } from "../domain/i18n.ts";
import { type Accent, ACCENTS } from "../domain/preferences.ts";

const NAMES = (): Record<Accent, string> => ({ green: t("Green"), blue: t("Blue"), violet: t("Violet"), rose: t("Rose"), amber: t("Amber") });

export function AccentChoice({ value, onChange }: { value: Accent; onChange: (accent: Accent) => void }): JSX.Element {
    const group = useId();
    return (
        <fieldset class="accents">
            <legend>{t("Colour")}</legend>
            {ACCENTS.map((accent) => (
                <input key={accent} type="radio" name={group} class="accent-spot" data-accent={accent} aria-label={NAMES()[accent]} title={NAMES()[accent]} checked={accent === value} onChange={() => onChange(accent)} />
            ))}
        </fieldset>
    );
}

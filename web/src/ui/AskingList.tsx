/** Those who ask to be let into a room, for those who may. */
import type { JSX } from "preact";
import { t } from "../domain/i18n.ts";
import type { RoomDetails, RoomSettings } from "../domain/roomsettings.ts";
import type { Attempt } from "./attempt.ts";
import { PersonLine } from "./PersonLine.tsx";

export function AskingList({ details, settings, attempt }: { details: RoomDetails; settings: RoomSettings; attempt: Attempt }): JSX.Element {
    return (
        <section class="people" aria-label={t("Asking to join")}>
            <h3>{t("Asking to join")}</h3>
            <ul>
                {details.asking.map((person) => (
                    <PersonLine key={person.id} id={person.id} name={person.name} picture={person.avatar} hint={person.reason ?? person.id}>
                        {details.mayInvite && (
                            <button type="button" class="button small primary" aria-label={t("Let in {name}", { name: person.name })} onClick={() => void attempt(() => settings.letIn(person.id))}>
                                {t("Let in")}
                            </button>
                        )}
                        {person.mayDecline && (
                            <button type="button" class="button small" aria-label={t("Decline {name}", { name: person.name })} onClick={() => void attempt(() => settings.remove(person.id))}>
                                {t("Decline")}
                            </button>
                        )}
                    </PersonLine>
                ))}
            </ul>
        </section>
    );
}

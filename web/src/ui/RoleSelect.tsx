/** What somebody may do in a room, to be chosen. */
import type { JSX } from "preact";
import { t } from "../domain/i18n.ts";
import type { Person, Role, RoomSettings } from "../domain/roomsettings.ts";
import { type Attempt, useChosen } from "./attempt.ts";
import { roleName } from "./roles.ts";

export function RoleSelect({ person, settings, attempt }: { person: Person; settings: RoomSettings; attempt: Attempt }): JSX.Element {
    const [role, choose] = useChosen(person.role);
    const give = (to: Role): void => choose(to, attempt(() => settings.setRole(person.id, to)));
    return (
        <select value={role} aria-label={t("Role of {name}", { name: person.name })} onChange={(event) => give(event.currentTarget.value as Role)}>
            {person.roles.map((each) => (
                <option key={each} value={each} selected={each === role}>
                    {roleName(each)}
                </option>
            ))}
        </select>
    );
}

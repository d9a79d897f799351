/** Who may come into a room, what newcomers see, whether it is encrypted, and who may not come back. */
import type { JSX } from "preact";
import { useEffect, useState } from "preact/hooks";
import { t } from "../domain/i18n.ts";
import type { Entrance, History, RoomDetails, RoomSettings } from "../domain/roomsettings.ts";
import { type Attempt, useChosen } from "./attempt.ts";
import { Icon, Tick } from "./parts.tsx";
import { PersonLine } from "./PersonLine.tsx";

const entrances = (): Record<Entrance, string> => ({ invite: t("Who is invited"), knock: t("Who asks and is let in"), public: t("Everybody on this server"), other: t("By rules of another app") });
const histories = (): Record<History, string> => ({
    shared: t("Everything"),
    invited: t("What was said since they were invited"),
    joined: t("What was said since they joined"),
    world: t("Everything, even without joining"),
});

/** `talk` is false for a space, in which nothing is said. */
export function RoomAccess({ talk, details, settings, attempt }: { talk: boolean; details: RoomDetails; settings: RoomSettings; attempt: Attempt }): JSX.Element {
    const [sure, setSure] = useState(false);
    return (
        <section class="in-room" aria-label={t("Access")}>
            <Select
                label={t("Who may join")}
                value={details.entrance}
                may={details.mayEntrance}
                names={entrances()}
                hidden={(["knock", "other"] as const).filter((entrance) => entrance !== details.entrance && !(entrance === "knock" && details.mayBeAsked))}
                onChange={(entrance) => attempt(async () => entrance !== "other" && settings.setEntrance(entrance))}
            />
            {talk && <Select label={t("What newcomers see")} value={details.history} may={details.mayHistory} names={histories()} hidden={details.encrypted && details.history !== "world" ? ["world"] : []} onChange={(history) => attempt(() => settings.setHistory(history))} />}
            {(details.entrance === "public" || details.entrance === "knock") && details.mayEntrance && <Listed settings={settings} attempt={attempt} />}
            {talk && (
                <p class="hint">
                    <Icon name="lock" /> {details.encrypted ? t("What is said here is encrypted: only those in the room can read it.") : t("What is said here is not encrypted.")}
                </p>
            )}
            {talk && details.mayEncrypt && (
                <button type="button" class="button small" onClick={() => (sure ? void attempt(() => settings.encrypt()) : setSure(true))}>
                    {sure ? t("Encrypt for good: it cannot be turned off again") : t("Turn on encryption")}
                </button>
            )}
            {details.banned.length > 0 && <BannedList details={details} settings={settings} attempt={attempt} />}
        </section>
    );
}

function Listed({ settings, attempt }: { settings: RoomSettings; attempt: Attempt }): JSX.Element {
    const [listed, setListed] = useState<boolean>();
    useEffect(() => void settings.listed().then(setListed, () => undefined), []);
    return (
        <Tick
            label={t("Shown among the public rooms")}
            on={listed === true}
            disabled={listed === undefined}
            onChange={(wanted) => attempt(() => settings.list(wanted).then(() => setListed(wanted)))}
        />
    );
}

function Select<T extends string>(props: { label: string; value: T; may: boolean; names: Record<T, string>; hidden: readonly T[]; onChange: (value: T) => Promise<boolean> }): JSX.Element {
    const { names } = props;
    const [value, choose] = useChosen(props.value);
    const change = (to: T): void => choose(to, props.onChange(to));
    return (
        <label class="select-line">
            <span>{props.label}</span>
            {props.may ? (
                <select value={value} onChange={(event) => change(event.currentTarget.value as T)}>
                    {(Object.keys(names) as T[])
                        .filter((name) => !props.hidden.includes(name))
                        .map((name) => (
                            <option key={name} value={name} selected={name === value}>
                                {names[name]}
                            </option>
                        ))}
                </select>
            ) : (
                <span class="hint">{names[value]}</span>
            )}
        </label>
    );
}

function BannedList({ details, settings, attempt }: { details: RoomDetails; settings: RoomSettings; attempt: Attempt }): JSX.Element {
    return (
        <section class="people" aria-label={t("Banned")}>
            <h3>{t("Banned")}</h3>
            <ul>
                {details.banned.map((person) => (
                    <PersonLine key={person.id} id={person.id} name={person.name} hint={person.reason ?? person.id}>
                        {person.mayLift && (
                            <button type="button" class="button small" onClick={() => void attempt(() => settings.liftBan(person.id))}>
                                {t("Lift the ban")}
                            </button>
                        )}
                    </PersonLine>
                ))}
            </ul>
        </section>
    );
}

/** What can take the place of what is being typed: people after "@", emoji after ":". */
import type { JSX } from "preact";
import { useEffect, useState } from "preact/hooks";
import { type Emoji, emojisLike, loadEmojis } from "../domain/emojis.ts";
import { t } from "../domain/i18n.ts";
import { localpart } from "../domain/ids.ts";
import type { Timeline } from "../domain/timeline.ts";
import { Avatar } from "./Avatar.tsx";

export interface Offer {
    key: string;
    shown: JSX.Element;
    /** What stands in the text then, and from where on. */
    text: string;
    from: number;
}

export interface Completion {
    id: string;
    offers: readonly Offer[];
    chosen: number;
    choose(at: number): void;
}

const PERSON = /(?:^|[\s(])@([\p{L}\p{N}._=/+-]*)$/u;
/** Two signs at least: ":)" and "9:3" are no beginnings of names. */
const EMOJI = /(?:^|[\s(]):([\p{L}\p{N}_+-]{2,})$/u;

/** Offers for the text before the caret. */
export function useCompletion(timeline: Timeline, before: string): Completion {
    const person = PERSON.exec(before)?.[1];
    const emoji = person === undefined ? EMOJI.exec(before)?.[1] : undefined;
    const [emojis, setEmojis] = useState<readonly Emoji[]>([]);
    const [{ chosen, of }, setChosen] = useState({ chosen: 0, of: "" });
    useEffect(() => {
        let current = true;
        if (emoji === undefined) setEmojis([]);
        else loadEmojis().then((table) => current && setEmojis(emojisLike(table, emoji)), () => undefined);
        return () => {
            current = false;
        };
    }, [emoji]);
    const offers = person !== undefined ? offerPeople(timeline, before.length - person.length, person) : emoji !== undefined ? offerEmojis(emojis, before.length - emoji.length - 1) : [];
    return { id: `completion-${timeline.threadRoot ?? "room"}`, offers, chosen: of === before ? Math.min(chosen, offers.length - 1) : 0, choose: (at) => setChosen({ chosen: (at + offers.length) % offers.length, of: before }) };
}

function offerPeople(timeline: Timeline, from: number, typed: string): Offer[] {
    return timeline.peopleLike(typed).map(({ userId, name }) => ({
        key: userId,
        text: localpart(userId),
        from,
        shown: (
            <>
                <Avatar id={userId} name={name} picture={timeline.avatarOf(userId)} size="s" /> {name} <span class="hint">{userId}</span>
            </>
        ),
    }));
}

function offerEmojis(emojis: readonly Emoji[], from: number): Offer[] {
    return emojis.map(({ symbol, name }) => ({
        key: symbol,
        text: symbol,
        from,
        shown: (
            <>
                <span class="completion-emoji" aria-hidden="true">
                    {symbol}
                </span>{" "}
                {name}
            </>
        ),
    }));
}

export function CompletionList({ completion, onPick }: { completion: Completion; onPick: (offer: Offer) => void }): JSX.Element | null {
    const { id, offers, chosen } = completion;
    if (offers.length === 0) return null;
    return (
        <ul class="completion" id={id} role="listbox" aria-label={t("Completions")}>
            {offers.map((offer, at) => (
                <li
                    key={offer.key}
                    id={`${id}-${at}`}
                    role="option"
                    aria-selected={at === chosen}
                    onMouseDown={(event) => event.preventDefault() /* the focus stays where one types */}
                    onClick={() => onPick(offer)}
                >
                    {offer.shown}
                </li>
            ))}
        </ul>
    );
}

/**
 * Polls: what was asked, who chose what, and whether it is over. Pure. The events are those of MSC3381 under the names
 * that other apps send; the later names are read as well.
 */
export const POLL_START = "org.matrix.msc3381.poll.start";
export const POLL_RESPONSE = "org.matrix.msc3381.poll.response";
export const POLL_END = "org.matrix.msc3381.poll.end";
const TEXT = "org.matrix.msc1767.text";

/** spec: MSC3381 §Poll answers: "no more than 20" */
export const MAX_ANSWERS = 20;

export interface PollStart {
    question: string;
    answers: { id: string; text: string }[];
    /** How many answers a person may choose. */
    choices: number;
    /** Whether the votes are shown before the end. */
    open: boolean;
}

export interface Poll extends PollStart {
    counts: Record<string, number>;
    voters: number;
    mine: string[];
    ended: boolean;
    mayEnd: boolean;
}

export interface PollEvent {
    sender: string;
    ts: number;
    content: Record<string, unknown>;
}

/** Names with and without the prefix. */
export const isPollStart = (type: string): boolean => type === POLL_START || type === "m.poll.start";
export const RESPONSES = [POLL_RESPONSE, "m.poll.response"];
export const ENDS = [POLL_END, "m.poll.end"];

const asObject = (value: unknown): Record<string, unknown> => (typeof value === "object" && value !== null ? (value as Record<string, unknown>) : {});

/** Text in one of the forms in which it comes: the old key, the list of the new one, or a body. */
function textIn(value: unknown): string {
    const { [TEXT]: old, "m.text": list, body } = asObject(value);
    const first = Array.isArray(list) ? asObject(list[0]).body : list;
    const text = [old, first, body].find((each) => typeof each === "string" && each.trim() !== "");
    return typeof text === "string" ? text.trim().slice(0, 500) : "";
}

export function pollIn(content: Record<string, unknown>): PollStart | undefined {
    const start = asObject(content[POLL_START] ?? content["m.poll"]);
    const question = textIn(start.question);
    const answers: PollStart["answers"] = [];
    for (const each of Array.isArray(start.answers) ? start.answers.slice(0, MAX_ANSWERS) : []) {
        const { id, "m.id": newer } = asObject(each);
        const [key, text] = [newer ?? id, textIn(each)];
        if (typeof key === "string" && text !== "" && !answers.some((answer) => answer.id === key)) answers.push({ id: key, text });
    }
    if (question === "" || answers.length === 0) return undefined;
    const choices = typeof start.max_selections === "number" && start.max_selections >= 1 ? Math.floor(start.max_selections) : 1;
    return { question, answers, choices, open: String(start.kind).endsWith(".disclosed") && !String(start.kind).endsWith(".undisclosed") };
}

/** Of each person the last response before the end counts. */
export function tally(start: PollStart, responses: readonly PollEvent[], endedAt: number | undefined, me: string, mayEnd: boolean): Poll {
    const last = new Map<string, PollEvent>();
    for (const response of responses) {
        if (endedAt !== undefined && response.ts > endedAt) continue;
        if (response.ts >= (last.get(response.sender)?.ts ?? -1)) last.set(response.sender, response);
    }
    const counts: Record<string, number> = Object.fromEntries(start.answers.map(({ id }) => [id, 0]));
    let voters = 0;
    let mine: string[] = [];
    for (const { sender, content } of last.values()) {
        const chosen = chosenIn(content, start);
        if (chosen.length > 0) voters++;
        for (const id of chosen) counts[id]!++;
        if (sender === me) mine = chosen;
    }
    return { ...start, counts, voters, mine, ended: endedAt !== undefined, mayEnd };
}

function chosenIn(content: Record<string, unknown>, { answers, choices }: PollStart): string[] {
    const given = asObject(content[POLL_RESPONSE]).answers ?? content["m.selections"];
    const known = new Set(answers.map(({ id }) => id));
    const chosen = Array.isArray(given) ? given.filter((id): id is string => typeof id === "string" && known.has(id)) : [];
    return [...new Set(chosen)].slice(0, choices);
}

export function startContent(question: string, answers: readonly string[], open: boolean): Record<string, unknown> {
    const fallback = [question, ...answers.map((answer, i) => `${i + 1}. ${answer}`)].join("\n");
    return {
        [TEXT]: fallback,
        [POLL_START]: {
            question: { [TEXT]: question, body: question, msgtype: "m.text" },
            kind: `org.matrix.msc3381.poll.${open ? "disclosed" : "undisclosed"}`,
            max_selections: 1,
            answers: answers.map((answer, i) => ({ id: `answer-${i + 1}`, [TEXT]: answer })),
        },
    };
}

export function responseContent(pollId: string, answers: readonly string[]): Record<string, unknown> {
    return { "m.relates_to": { rel_type: "m.reference", event_id: pollId }, [POLL_RESPONSE]: { answers } };
}

export function endContent(pollId: string, words: string): Record<string, unknown> {
    return { "m.relates_to": { rel_type: "m.reference", event_id: pollId }, [POLL_END]: {}, [TEXT]: words };
}

/**
 * What the SDK asks before it looks into its store: which versions the server speaks, the push rules, the number of
 * its filter. The last answers are kept, so that without a network it goes on to what is stored.
 */
import type { KeyValue } from "../store/keyvalue.ts";

type Answers = Record<string, unknown>;

const VERSIONS = "GET /_matrix/client/versions";
const RULES = "GET /_matrix/client/v3/pushrules/";
const keyOf = (userId: string): string => `known:${userId}`;

/** The server is the one that this app came from: what it speaks is known well enough without any answer. */
const SPOKEN = { versions: ["v1.1", "v1.11"] };

export class Known {
    private constructor(
        private readonly kv: KeyValue,
        private readonly userId: string,
        private readonly answers: Answers,
    ) {}

    static async load(kv: KeyValue, userId: string): Promise<Known> {
        const stored = await kv.get(keyOf(userId)).catch(() => undefined);
        const answers: Answers = typeof stored === "object" && stored !== null ? { ...stored } : {};
        return new Known(kv, userId, { [VERSIONS]: SPOKEN, ...answers });
    }

    static forget(kv: KeyValue, userId: string): Promise<void> {
        return kv.delete(keyOf(userId));
    }

    /** The rules also come with the sync when they change, and hold from then on. */
    rulesAre(rules: unknown): void {
        this.remember(RULES, rules);
    }

    /** Asks; where no answer comes because there is no network, gives the last one. */
    around(ask: typeof fetch): typeof fetch {
        return async (input, init) => {
            const question = questionIn(input, init);
            if (question === undefined) return ask(input, init);
            let answer: Response;
            try {
                answer = await ask(input, init);
            } catch (error) {
                const known = this.answers[question];
                if (!(error instanceof TypeError) || known === undefined) throw error;
                return new Response(JSON.stringify(known), { headers: { "Content-Type": "application/json" } });
            }
            if (!answer.ok) return answer;
            const value: unknown = await answer.json();
            this.remember(question, value);
            return new Response(JSON.stringify(value), { status: answer.status, headers: { "Content-Type": "application/json" } });
        };
    }

    private remember(question: string, value: unknown): void {
        if (JSON.stringify(this.answers[question]) === JSON.stringify(value)) return;
        this.answers[question] = value;
        this.kv.set(keyOf(this.userId), this.answers).catch(() => undefined); // asked again the next time
    }
}

/** A name for a request whose answer is kept. What is asked in the course of syncing must fail without a network. */
function questionIn(input: RequestInfo | URL, init: RequestInit | undefined): string | undefined {
    const address = typeof input === "string" ? input : input instanceof URL ? input.href : input.url;
    const { pathname } = new URL(address);
    const method = (init?.method ?? "GET").toUpperCase();
    const question = `${method} ${pathname}`;
    if (question === VERSIONS && new Headers(init?.headers).has("Authorization")) return question;
    if (question === RULES) return question;
    // A filter is known by its definition.
    if (method === "POST" && /\/user\/[^/]+\/filter$/.test(pathname)) return `${question} ${String(init?.body)}`;
    return undefined;
}

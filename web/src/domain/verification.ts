/**
 * Comparing emoji: how two people, or two devices of one person, make sure that nobody stands between them. The SDK
 * does the work; here it becomes a few steps that a screen can show.
 *
 *   asked ──accept──▶ starting ──▶ compare ──▶ confirmed ──▶ done
 *   waiting ──(the other accepts)──▲
 *
 * From each step it may fail, and says why. spec: client-server §Key verification framework, §Short Authentication String
 */
import { signal } from "@preact/signals-core";
import { CryptoEvent } from "matrix-js-sdk/lib/crypto-api/CryptoEvent";
import { type ShowSasCallbacks, VerificationPhase, type VerificationRequest, VerificationRequestEvent, type Verifier, VerifierEvent } from "matrix-js-sdk/lib/crypto-api/verification";
import type { MatrixClient } from "./client.ts";
import { t } from "./i18n.ts";

/**
 * - `unanswered`: nobody did anything for so long that it is over.
 * - `refused`: the other did not want to.
 * - `elsewhere`: another device of this person has taken it over.
 */
export type Failure = "mismatch" | "unanswered" | "refused" | "cancelled" | "elsewhere" | "broken";

export type Emoji = readonly [symbol: string, englishName: string];

export type Step =
    | { kind: "asked" }
    | { kind: "waiting" }
    | { kind: "starting" }
    | { kind: "compare"; emoji: readonly Emoji[] }
    | { kind: "confirmed" }
    | { kind: "done" }
    | { kind: "failed"; why: Failure };

/** The one who accepted chooses emoji at once; whoever asked waits so long for that, as other apps leave it to a button. */
const START_AFTER_MS = 2_000;

const SAS = "m.sas.v1";

/** What the specification's codes of an end mean to people. */
const FAILURES: Record<string, Failure> = {
    "m.timeout": "unanswered",
    "m.accepted": "elsewhere",
    "m.mismatched_sas": "mismatch",
    "m.mismatched_commitment": "mismatch",
    "m.key_mismatch": "mismatch",
    "m.user_mismatch": "mismatch",
};

/** One comparison, from the question to its end. */
export class Verification {
    readonly step = signal<Step>({ kind: "waiting" });

    /** Whether this person has a part in it: asked for it, or said yes. */
    joined: boolean;

    private verifier: Verifier | undefined;
    private sas: ShowSasCallbacks | undefined;
    private starts: ReturnType<typeof setTimeout> | undefined;
    private readonly timeout: ReturnType<typeof setTimeout> | undefined;

    constructor(readonly request: VerificationRequest) {
        this.joined = request.initiatedByMe;
        request.on(VerificationRequestEvent.Change, this.look);
        // The SDK looks at its clock only when something arrives.
        const left = request.timeout;
        if (left !== null) this.timeout = setTimeout(() => this.end("unanswered"), left);
        this.look();
    }

    get userId(): string {
        return this.request.otherUserId;
    }

    /** Whether the other one is a device of the same person. */
    get own(): boolean {
        return this.request.isSelfVerification;
    }

    get over(): boolean {
        const { kind } = this.step.value;
        return kind === "done" || kind === "failed";
    }

    async accept(): Promise<void> {
        if (this.step.value.kind !== "asked") return;
        this.joined = true;
        this.step.value = { kind: "starting" };
        await this.orBroken(() => this.request.accept());
    }

    /** The person says whether both sides show the same. */
    async answer(same: boolean): Promise<void> {
        const { sas } = this;
        if (!sas || this.step.value.kind !== "compare") return;
        if (!same) {
            sas.mismatch();
            return this.fail("mismatch");
        }
        this.step.value = { kind: "confirmed" };
        await this.orBroken(() => sas.confirm());
    }

    /** Ends it before its time. The other side is told. */
    cancel(): void {
        this.end("cancelled");
    }

    private readonly look = (): void => {
        if (this.over) return;
        const { request } = this;
        switch (request.phase) {
            case VerificationPhase.Cancelled:
                return this.fail(this.whyCancelled());
            case VerificationPhase.Done:
                this.step.value = { kind: "done" };
                return this.release();
            case VerificationPhase.Ready:
                return this.begin();
            case VerificationPhase.Started:
                return this.follow(request.verifier);
            default:
                if (!request.pending) return this.fail("elsewhere");
                if (this.step.value.kind !== "starting") this.step.value = { kind: request.initiatedByMe ? "waiting" : "asked" };
        }
    };

    /** Both have agreed to compare. */
    private begin(): void {
        if (!this.request.pending) return this.fail("elsewhere");
        this.step.value = { kind: "starting" };
        const start = (): void => {
            if (this.over || this.request.phase !== VerificationPhase.Ready) return;
            void this.orBroken(async () => this.follow(await this.request.startVerification(SAS)));
        };
        this.starts ??= setTimeout(start, this.request.initiatedByMe ? START_AFTER_MS : 0);
    }

    private follow(verifier: Verifier | undefined): void {
        if (!verifier || verifier === this.verifier || this.over) return;
        this.verifier = verifier;
        if (this.step.value.kind !== "compare") this.step.value = { kind: "starting" };
        verifier.on(VerifierEvent.ShowSas, this.show);
        const shown = verifier.getShowSasCallbacks();
        if (shown) this.show(shown);
        // How it ends is seen by the request as well; this says it where the request does not.
        verifier.verify().then(this.look, () => (this.request.phase === VerificationPhase.Cancelled ? this.look() : this.fail("broken")));
    }

    private readonly show = (sas: ShowSasCallbacks): void => {
        if (this.over) return;
        this.sas = sas;
        const { emoji, decimal } = sas.sas;
        this.step.value = { kind: "compare", emoji: emoji ?? (decimal ?? []).map((number): Emoji => [String(number), ""]) };
    };

    private whyCancelled(): Failure {
        const { cancellationCode: code, initiatedByMe } = this.request;
        if (code !== null && Object.hasOwn(FAILURES, code)) return FAILURES[code]!;
        if (code === "m.user") return initiatedByMe && this.step.value.kind === "waiting" ? "refused" : "cancelled";
        return "broken";
    }

    private end(why: Failure): void {
        if (this.over) return;
        this.fail(why);
        this.request.cancel().catch(() => undefined); // the other side's clock ends it as well
    }

    private fail(why: Failure): void {
        if (this.over) return;
        this.step.value = { kind: "failed", why };
        this.release();
    }

    private release(): void {
        clearTimeout(this.timeout);
        clearTimeout(this.starts);
        this.request.off(VerificationRequestEvent.Change, this.look);
        this.verifier?.off(VerifierEvent.ShowSas, this.show);
    }

    private async orBroken(action: () => Promise<unknown>): Promise<void> {
        try {
            await action();
        } catch (error) {
            if (this.over) return;
            console.warn("The comparison cannot go on.", error);
            this.end("broken");
        }
    }
}

/** The comparison that is on the screen, and the ways to begin one. One at a time: two would be mixed up. */
export class Verifications {
    readonly current = signal<Verification | undefined>(undefined);

    constructor(
        private readonly client: MatrixClient,
        /** Whether this device has the keys with which people are verified. */
        private readonly mayVerify: () => boolean,
    ) {
        client.on(CryptoEvent.VerificationRequestReceived, this.onRequest);
    }

    /** Asks all other devices of this person. */
    async askOwn(): Promise<void> {
        await this.begin(() => this.client.getCrypto()!.requestOwnUserVerification());
    }

    async askDevice(deviceId: string): Promise<void> {
        await this.begin(() => this.client.getCrypto()!.requestDeviceVerification(this.client.getSafeUserId(), deviceId));
    }

    /** Asks somebody in the conversation that both have with each other. */
    async askPerson(userId: string, roomId: string): Promise<void> {
        await this.begin(async () => {
            const crypto = this.client.getCrypto()!;
            if (!(await crypto.userHasCrossSigningKeys(userId, true))) throw new Error(t("This person has not set up encryption yet."));
            return crypto.requestVerificationDM(userId, roomId);
        });
    }

    /** Takes it off the screen, and ends it if it goes on. */
    dismiss(): void {
        this.current.value?.cancel();
        this.current.value = undefined;
    }

    private async begin(ask: () => Promise<VerificationRequest>): Promise<void> {
        this.dismiss();
        this.current.value = new Verification(await ask());
    }

    private readonly onRequest = (request: VerificationRequest): void => {
        const { value: current } = this.current;
        if (!request.pending || request.initiatedByMe || (current && current.request.transactionId === request.transactionId)) return;
        const goesOn = current !== undefined && !current.over;
        const crossed = goesOn && current.step.value.kind === "waiting" && current.userId === request.otherUserId;
        if (goesOn && !crossed) return void request.cancel().catch(() => undefined);
        if (!request.isSelfVerification && !this.mayVerify()) return; // another device may answer
        const asked = new Verification(request);
        if (asked.over) return; // an old one, as a device finds them that has just signed in
        if (crossed) current.cancel();
        this.current.value = asked;
        // A question that is over before it was answered goes away as quietly as it came.
        asked.step.subscribe(() => {
            if (asked.over && !asked.joined && this.current.peek() === asked) this.current.value = undefined;
        });
        if (crossed) void asked.accept(); // both asked at the same time: that is an answer
    };
}

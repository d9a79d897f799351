/** Each way in which a comparison of emoji ends, with a request in place of the SDK's. */
import { CryptoEvent } from "matrix-js-sdk/lib/crypto-api/CryptoEvent";
import { VerificationPhase as Phase, type VerificationRequest, VerificationRequestEvent, VerifierEvent } from "matrix-js-sdk/lib/crypto-api/verification";
import { TypedEventEmitter } from "matrix-js-sdk/lib/models/typed-event-emitter";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import type { MatrixClient } from "../../src/domain/client.ts";
import { Verification, Verifications } from "../../src/domain/verification.ts";
import { deviceName } from "../../src/platform/devicename.ts";
import { NAMES, sasName } from "../../src/ui/sasnames.ts";
import { setLanguage } from "../../src/domain/i18n.ts";

const TEN_MINUTES = 600_000;

const emit = (from: unknown, name: string, value?: unknown): void => (from as { emit(name: string, value: unknown): void }).emit(name, value);

class FakeVerifier extends TypedEventEmitter<string, never> {
    sas = { sas: { emoji: [["🐶", "Dog"]] }, confirm: vi.fn(() => Promise.resolve()), mismatch: vi.fn(), cancel: vi.fn() };
    shown = false;
    verify = vi.fn(() => new Promise<void>(() => undefined));
    getShowSasCallbacks = (): unknown => (this.shown ? this.sas : null);
    show(): void {
        this.shown = true;
        emit(this, VerifierEvent.ShowSas, this.sas);
    }
}

class FakeRequest extends TypedEventEmitter<string, never> {
    phase = Phase.Requested;
    pending = true;
    transactionId = "t1";
    otherUserId = "@bob:hub";
    otherDeviceId = "PHONE";
    isSelfVerification = false;
    timeout: number | null = TEN_MINUTES;
    cancellationCode: string | null = null;
    verifier: FakeVerifier | undefined;
    accept = vi.fn(() => Promise.resolve());
    cancel = vi.fn(() => Promise.resolve());
    startVerification = vi.fn(() => Promise.resolve((this.verifier = new FakeVerifier())));
    constructor(public initiatedByMe: boolean) {
        super();
    }
    become(phase: Phase, more: Partial<FakeRequest> = {}): void {
        Object.assign(this, { phase, ...more });
        emit(this, VerificationRequestEvent.Change);
    }
}

const asRequest = (request: FakeRequest): VerificationRequest => request as unknown as VerificationRequest;
const begin = (mine: boolean): { request: FakeRequest; verification: Verification } => {
    const request = new FakeRequest(mine);
    return { request, verification: new Verification(asRequest(request)) };
};

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

describe("a comparison", () => {
    it("goes from the question to the end", async () => {
        const { request, verification } = begin(false);
        expect(verification.step.value.kind).toBe("asked");
        await verification.accept();
        expect(request.accept).toHaveBeenCalled();
        request.become(Phase.Ready);
        await vi.advanceTimersByTimeAsync(0); // whoever accepted begins at once
        expect(request.startVerification).toHaveBeenCalledWith("m.sas.v1");
        request.become(Phase.Started);
        request.verifier!.show();
        expect(verification.step.value).toEqual({ kind: "compare", emoji: [["🐶", "Dog"]] });
        await verification.answer(true);
        expect(request.verifier!.sas.confirm).toHaveBeenCalled();
        expect(verification.step.value.kind).toBe("confirmed");
        request.become(Phase.Done);
        expect(verification.step.value.kind).toBe("done");
        await vi.advanceTimersByTimeAsync(TEN_MINUTES);
        expect(request.cancel).not.toHaveBeenCalled();
    });
    it("leaves it to the other to begin, for a while", async () => {
        const { request, verification } = begin(true);
        request.become(Phase.Ready);
        await vi.advanceTimersByTimeAsync(500);
        expect(request.startVerification).not.toHaveBeenCalled();
        const verifier = new FakeVerifier();
        request.become(Phase.Started, { verifier });
        expect(verifier.verify).toHaveBeenCalled();
        verifier.show();
        expect(verification.step.value.kind).toBe("compare");
        await vi.advanceTimersByTimeAsync(5_000);
        expect(request.startVerification).not.toHaveBeenCalled();
    });
    it("begins by itself if the other does not", async () => {
        const { request } = begin(true);
        request.become(Phase.Ready);
        await vi.advanceTimersByTimeAsync(2_500);
        expect(request.startVerification).toHaveBeenCalledOnce();
    });
    it("ends when nobody answers, and tells the other side", async () => {
        const { request, verification } = begin(true);
        expect(verification.step.value.kind).toBe("waiting");
        await vi.advanceTimersByTimeAsync(TEN_MINUTES);
        expect(verification.step.value).toEqual({ kind: "failed", why: "unanswered" });
        expect(request.cancel).toHaveBeenCalled();
    });
    it("ends at once when the pictures differ", async () => {
        const { request, verification } = begin(false);
        const verifier = new FakeVerifier();
        verifier.shown = true;
        request.become(Phase.Started, { verifier });
        await verification.answer(false);
        expect(verifier.sas.mismatch).toHaveBeenCalled();
        expect(verification.step.value).toEqual({ kind: "failed", why: "mismatch" });
        request.become(Phase.Done); // whatever comes afterwards does not make it good
        expect(verification.step.value).toEqual({ kind: "failed", why: "mismatch" });
    });
    it.each([
        ["m.user", "refused"],
        ["m.timeout", "unanswered"],
        ["m.accepted", "elsewhere"],
        ["m.mismatched_sas", "mismatch"],
        ["m.key_mismatch", "mismatch"],
        ["m.unexpected_message", "broken"],
        ["constructor", "broken"],
    ])("says what %s means", (cancellationCode, why) => {
        const { request, verification } = begin(true);
        request.become(Phase.Cancelled, { cancellationCode, pending: false });
        expect(verification.step.value).toEqual({ kind: "failed", why });
    });
    it("is cancelled by the other after it began", () => {
        const { request, verification } = begin(true);
        request.become(Phase.Ready);
        request.become(Phase.Cancelled, { cancellationCode: "m.user", pending: false });
        expect(verification.step.value).toEqual({ kind: "failed", why: "cancelled" });
    });
    it("says that it broke when the server refuses", async () => {
        vi.spyOn(console, "warn").mockImplementation(() => undefined);
        const { request, verification } = begin(false);
        request.accept.mockRejectedValue(new Error("no"));
        await verification.accept();
        expect(verification.step.value).toEqual({ kind: "failed", why: "broken" });
    });
});

describe("comparisons", () => {
    const make = (mayVerify = true): { all: Verifications; arrive: (request: FakeRequest) => void } => {
        const client = new TypedEventEmitter<string, never>();
        const all = new Verifications(client as unknown as MatrixClient, () => mayVerify);
        return { all, arrive: (request) => emit(client, CryptoEvent.VerificationRequestReceived, request) };
    };
    it("come one at a time", () => {
        const { all, arrive } = make();
        const [first, second] = [new FakeRequest(false), new FakeRequest(false)];
        second.transactionId = "t2";
        arrive(first);
        arrive(second);
        expect(all.current.value?.request).toBe(first);
        expect(second.cancel).toHaveBeenCalled();
    });
    it("go away quietly if they end before they are answered", () => {
        const { all, arrive } = make();
        const request = new FakeRequest(false);
        arrive(request);
        request.become(Phase.Cancelled, { cancellationCode: "m.accepted" });
        expect(all.current.value).toBeUndefined();
    });
    it("stay with what went wrong if they were answered", async () => {
        const { all, arrive } = make();
        const request = new FakeRequest(false);
        arrive(request);
        await all.current.value!.accept();
        request.become(Phase.Cancelled, { cancellationCode: "m.timeout" });
        expect(all.current.value?.step.value).toEqual({ kind: "failed", why: "unanswered" });
    });
    it("are not shown if they were over before, as after a sign-in", () => {
        const { all, arrive } = make();
        const request = new FakeRequest(false);
        request.phase = Phase.Done;
        arrive(request);
        expect(all.current.value).toBeUndefined();
    });
    it("with people are left to a device that has the keys for it", () => {
        const { all, arrive } = make(false);
        const request = new FakeRequest(false);
        arrive(request);
        expect(all.current.value).toBeUndefined();
        expect(request.cancel).not.toHaveBeenCalled();
    });
});

describe("names", () => {
    afterEach(() => setLanguage("en"));
    it("of all emoji are there in each language", async () => {
        expect(Object.keys(NAMES).length).toBe(64);
        for (const [english, row] of Object.entries(NAMES)) {
            const names = row.split("|");
            expect(names.length, english).toBe(4);
            expect(names.every((name) => name.trim() !== ""), english).toBe(true);
        }
        for (let column = 0; column < 4; column++) expect(new Set(Object.values(NAMES).map((row) => row.split("|")[column])).size).toBe(64);
        expect(sasName("Dog")).toBe("Dog");
        await setLanguage("de");
        expect(sasName("Dog")).toBe("Hund");
        expect(sasName("toString")).toBe("toString");
    });
    it("of devices say what one sees of them", () => {
        expect(deviceName("Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0")).toBe("hubbub web (Firefox, Linux)");
        expect(deviceName("Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.0 Mobile/15E148 Safari/604.1")).toBe("hubbub web (Safari, iPhone)");
        expect(deviceName("Mozilla/5.0 (Linux; Android 16) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0 Mobile Safari/537.36")).toBe("hubbub web (Chrome, Android)");
        expect(deviceName("something")).toBe("hubbub web");
    });
});

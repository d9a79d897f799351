/** Waiting for "something changed": whoever waits looks again when it rings, and decides for itself. */
export class Bell {
    private readonly waiting = new Set<() => void>();

    ring(): void {
        const waiting = [...this.waiting];
        this.waiting.clear();
        for (const wake of waiting) wake();
    }

    /** Resolves at the next ring or after `timeout` ms; rejects with an AbortError when the signal aborts. */
    wait(timeout?: number, signal?: AbortSignal | null): Promise<void> {
        return new Promise((resolve, reject) => {
            if (signal?.aborted) return reject(abortError());
            let timer: ReturnType<typeof setTimeout> | undefined;
            const done = (): void => {
                clearTimeout(timer);
                this.waiting.delete(wake);
                signal?.removeEventListener("abort", onAbort);
            };
            const wake = (): void => (done(), resolve());
            const onAbort = (): void => (done(), reject(abortError()));
            if (timeout !== undefined) timer = setTimeout(wake, timeout);
            signal?.addEventListener("abort", onAbort);
            this.waiting.add(wake);
        });
    }
}

/** What `fetch` rejects with when its signal aborts, and what the SDK recognises by its name. */
export function abortError(): DOMException {
    return new DOMException("The operation was aborted.", "AbortError");
}

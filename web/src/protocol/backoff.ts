/** How long to wait before the next attempt to connect: 1 s, doubled up to 60 s, with full jitter. */

export const FIRST_DELAY_MS = 1_000;
export const MAX_DELAY_MS = 60_000;

/** A node that goes away asks its clients to spread over this long before they come back. */
export const GOING_AWAY_SPREAD_MS = 5_000;

export class Backoff {
    private attempts = 0;

    /** random gives a number in [0, 1). */
    constructor(private readonly random: () => number) {}

    next(): number {
        const ceiling = Math.min(MAX_DELAY_MS, FIRST_DELAY_MS * 2 ** Math.min(this.attempts, 16));
        this.attempts++;
        return this.random() * ceiling;
    }

    reset(): void {
        this.attempts = 0;
    }
}

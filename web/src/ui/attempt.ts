/** What a press of a button begins: it takes a moment, and may fail. */
import { useState } from "preact/hooks";

/** Whether it goes on, what went wrong, and the way to begin it. */
export function useAttempt(): [boolean, string | undefined, (action: () => Promise<unknown>) => void] {
    const [busy, setBusy] = useState(false);
    const [error, setError] = useState<string>();
    const run = async (action: () => Promise<unknown>): Promise<void> => {
        setBusy(true);
        setError(undefined);
        try {
            await action();
        } catch (failure) {
            setError((failure as Error).message);
        } finally {
            setBusy(false);
        }
    };
    return [busy, error, (action) => void run(action)];
}

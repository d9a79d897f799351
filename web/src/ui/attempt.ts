/** What a press of a button begins: it takes a moment, and may fail. */
import { useEffect, useState } from "preact/hooks";

/** Begins something; says whether it was done. What went wrong is shown elsewhere. */
export type Attempt = (action: () => Promise<unknown>) => Promise<boolean>;

/** Whether it goes on, what went wrong, and the way to begin it. */
export function useAttempt(): [boolean, string | undefined, Attempt] {
    const [busy, setBusy] = useState(false);
    const [error, setError] = useState<string>();
    const run: Attempt = async (action) => {
        setBusy(true);
        setError(undefined);
        try {
            await action();
            return true;
        } catch (failure) {
            setError((failure as Error).message);
            return false;
        } finally {
            setBusy(false);
        }
    };
    return [busy, error, run];
}

/**
 * What a control shows, and how to choose: what was chosen, from then until the value changes or it is refused. It would
 * spring back otherwise whenever something is drawn before the server has told of it.
 */
export function useChosen<T>(value: T): [T, (to: T, done: Promise<boolean>) => void] {
    const [chosen, setChosen] = useState<{ to: T }>();
    useEffect(() => setChosen(undefined), [value]);
    const choose = (to: T, done: Promise<boolean>): void => {
        const choice = { to };
        setChosen(choice);
        void done.then((isDone) => isDone || setChosen((now) => (now === choice ? undefined : now)));
    };
    return [chosen ? chosen.to : value, choose];
}

/** Where small things are kept on the device. The browser's implementation is in idb.ts, tests bring a map. */
export interface KeyValue {
    get(key: string): Promise<unknown>;
    set(key: string, value: unknown): Promise<void>;
    delete(key: string): Promise<void>;
    /** What is kept under keys that begin so, in the order of the keys. */
    list(prefix: string): Promise<[key: string, value: unknown][]>;
}

/** Keeps nothing beyond the page: for tests, and for browsers that forbid storage. */
export class MemoryKeyValue implements KeyValue {
    private readonly values = new Map<string, unknown>();

    get(key: string): Promise<unknown> {
        return Promise.resolve(this.values.get(key));
    }

    set(key: string, value: unknown): Promise<void> {
        this.values.set(key, structuredClone(value));
        return Promise.resolve();
    }

    delete(key: string): Promise<void> {
        this.values.delete(key);
        return Promise.resolve();
    }

    list(prefix: string): Promise<[string, unknown][]> {
        const found = [...this.values].filter(([key]) => key.startsWith(prefix));
        return Promise.resolve(found.sort(([a], [b]) => (a < b ? -1 : 1)));
    }
}

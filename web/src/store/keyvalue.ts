/** Where small things are kept on the device. The browser's implementation is in platform/, tests bring a map. */
export interface KeyValue {
    get(key: string): Promise<unknown>;
    set(key: string, value: unknown): Promise<void>;
    delete(key: string): Promise<void>;
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
}

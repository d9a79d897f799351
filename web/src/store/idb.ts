/** A KeyValue in the browser's IndexedDB. What the page's scripts can read, only they can: it is not in a cookie or a URL. */
import type { KeyValue } from "./keyvalue.ts";

const DB = "hubbub";
const STORE = "values";

export class IndexedDBKeyValue implements KeyValue {
    private db: Promise<IDBDatabase> | undefined;

    constructor(private readonly factory: IDBFactory) {}

    get(key: string): Promise<unknown> {
        return this.run("readonly", (store) => store.get(key));
    }

    async set(key: string, value: unknown): Promise<void> {
        await this.run("readwrite", (store) => store.put(value, key));
    }

    async delete(key: string): Promise<void> {
        await this.run("readwrite", (store) => store.delete(key));
    }

    async list(prefix: string): Promise<[string, unknown][]> {
        const range = IDBKeyRange.bound(prefix, `${prefix}\uffff`);
        let keys: IDBRequest<IDBValidKey[]>;
        // In one transaction: of what is deleted meanwhile a key without a value would be left.
        const values = await this.run("readonly", (store) => {
            keys = store.getAllKeys(range);
            return store.getAll(range) as IDBRequest<unknown[]>;
        });
        return keys!.result.map((key, i) => [String(key), values[i]]);
    }

    private async run<T>(mode: IDBTransactionMode, action: (store: IDBObjectStore) => IDBRequest<T>): Promise<T> {
        this.db ??= this.open();
        const db = await this.db;
        return new Promise((resolve, reject) => {
            const transaction = db.transaction(STORE, mode);
            const request = action(transaction.objectStore(STORE));
            transaction.oncomplete = () => resolve(request.result);
            transaction.onabort = () => reject(transaction.error ?? new Error("the transaction was aborted"));
        });
    }

    private open(): Promise<IDBDatabase> {
        return new Promise((resolve, reject) => {
            const request = this.factory.open(DB, 1);
            request.onupgradeneeded = () => request.result.createObjectStore(STORE);
            request.onsuccess = () => resolve(request.result);
            request.onerror = () => reject(request.error ?? new Error("the database cannot be opened"));
        });
    }
}

import { IDBFactory, IDBKeyRange } from "fake-indexeddb";
import { describe, expect, it } from "vitest";
import { IndexedDBKeyValue } from "../../src/store/idb.ts";

describe("what the browser keeps", () => {
    it("is listed as it was at one moment, whatever is thrown away meanwhile", async () => {
        Object.assign(globalThis, { IDBKeyRange });
        const kv = new IndexedDBKeyValue(new IDBFactory());
        for (const key of ["a:1", "a:2", "b:1"]) await kv.set(key, { key });
        const [listed] = await Promise.all([kv.list("a:"), kv.delete("a:1"), kv.delete("a:2")]);
        expect(listed).toEqual([["a:1", { key: "a:1" }], ["a:2", { key: "a:2" }]]); // prettier-ignore
        expect(await kv.list("a:")).toEqual([]);
    });
});

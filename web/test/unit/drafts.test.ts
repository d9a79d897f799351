/** What was begun is there again after a reload, and gone after a sign-out. */
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { Drafts } from "../../src/store/drafts.ts";
import { MemoryKeyValue } from "../../src/store/keyvalue.ts";

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

const reload = async (kv: MemoryKeyValue, userId = "@ada:hub"): Promise<Drafts> => {
    const drafts = new Drafts(kv, userId);
    await drafts.load();
    return drafts;
};

it("a draft outlives the page, for the one who wrote it", async () => {
    const kv = new MemoryKeyValue();
    const drafts = await reload(kv);
    drafts.set("!room", "I was about to");
    drafts.set("$thread", "and here");
    expect(drafts.get("!room")).toBe("I was about to");
    await vi.advanceTimersByTimeAsync(1_000);
    const after = await reload(kv);
    expect([after.get("!room"), after.get("$thread"), after.get("!other")]).toEqual(["I was about to", "and here", ""]);
    expect((await reload(kv, "@ada:hub2")).get("!room")).toBe("");
    after.set("!room", "");
    await after.write(); // as when the page is hidden
    expect((await reload(kv)).get("!room")).toBe("");
});

it("nothing is written after the session has ended", async () => {
    const kv = new MemoryKeyValue();
    const drafts = await reload(kv);
    drafts.set("!room", "secret");
    drafts.set("!other", "more of it");
    await drafts.write(); // as when the session stops
    await Drafts.clear(kv, "@ada:hub");
    await vi.advanceTimersByTimeAsync(1_000);
    await drafts.write();
    expect(await kv.list("")).toEqual([]);
});

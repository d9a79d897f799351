/** Files on their way, and those that an earlier page began with. */
import { describe, expect, it } from "vitest";
import type { MatrixClient } from "../../src/domain/client.ts";
import type { PreparedFile } from "../../src/domain/filecontent.ts";
import type { Outbox } from "../../src/domain/outbox.ts";
import { Uploads } from "../../src/domain/uploads.ts";
import { MemoryKeyValue } from "../../src/store/keyvalue.ts";
import { OutboxStore } from "../../src/store/outbox.ts";

const ROOM = "!room:example.org";
const TICKET: PreparedFile = { blob: new Blob(["one way"]), name: "ticket.txt", kind: "file" };

/** Uploads into an open room, and what came out of them. The outbox has the message of the transaction “taken”. */
function begin(): { uploads: Uploads; store: OutboxStore<PreparedFile>; sent: string[] } {
    const sent: string[] = [];
    const store = new OutboxStore<PreparedFile>(new MemoryKeyValue(), "@ada:example.org");
    const client = { getRoom: () => null, uploadContent: () => Promise.resolve({ content_uri: "mxc://example.org/1" }) };
    const outbox = { store, took: (txnId: string) => txnId === "taken", send: (_room: string, _type: string, _content: unknown, { txnId }: { txnId: string }) => void sent.push(txnId) };
    return { uploads: new Uploads(client as unknown as MatrixClient, ROOM, outbox as unknown as Outbox, () => Promise.resolve(undefined)), store, sent };
}

describe("uploads", () => {
    it("send a file once, though a list that was read before names it again", async () => {
        const { uploads, store, sent } = begin();
        const record = { roomId: ROOM, txnId: "h1", ts: 1, file: TICKET };
        await store.putFile(record);
        const [kept] = await store.files();
        uploads.restore(kept!);
        uploads.restore(kept!); // while it is on its way
        await expect.poll(() => sent).toEqual(["h1"]);
        uploads.restore(kept!); // and when it is sent
        await uploads.add(TICKET); // comes after whatever that began
        expect(sent).toEqual(["h1", expect.stringMatching(/^h\d+\./)]);
        expect(uploads.list.value).toEqual([]);
        expect(await store.files()).toEqual([]);
    });

    it("let go of a file whose message an earlier page had kept", async () => {
        const { uploads, store, sent } = begin();
        await store.putFile({ roomId: ROOM, txnId: "taken", ts: 1, file: TICKET });
        for (const kept of await store.files()) uploads.restore(kept);
        await uploads.add(TICKET);
        expect(sent).toEqual([expect.stringMatching(/^h\d+\./)]);
        await expect.poll(() => store.files()).toEqual([]);
    });
});

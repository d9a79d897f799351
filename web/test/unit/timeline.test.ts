/** Answers, changes, reactions, files and the line above what is new, without a page. */
import { describe, expect, it } from "vitest";
import { decryptFile, encryptedFileIn, encryptFile } from "../../src/domain/attachments.ts";
import { bodyOf, type Entry, type Message, toItems } from "../../src/domain/entries.ts";
import { attachmentIn, isShown, parseMxc } from "../../src/domain/media.ts";
import { highlight } from "../../src/domain/highlight.ts";
import { endContent, type PollEvent, pollIn, responseContent, startContent, tally } from "../../src/domain/polls.ts";
import { linkIn, previewIn } from "../../src/domain/previews.ts";
import { withContext } from "../../src/domain/timeline.ts";
import { around, AT_END, DRAWN, moved, rangeOf, STEP, windowOf } from "../../src/ui/window.ts";

const message = (key: string, more: Partial<Message> = {}): Entry & Message => ({
    kind: "message", key, eventId: `$${key}`, sender: "@bob:x", senderName: "Bob", own: false, ts: 1, text: key, style: "text", delivery: "sent", edited: false, ...more,
}); // prettier-ignore

describe("what is sent about another message", () => {
    const content = { msgtype: "m.text", body: "new", format: "org.matrix.custom.html", formatted_body: "<b>new</b>" };
    it("names the message that it answers", () => {
        expect(withContext(content, { kind: "reply", message: message("a") })).toEqual({ ...content, "m.relates_to": { "m.in_reply_to": { event_id: "$a" } } });
    });
    it("holds a change twice, for those who know changes and those who do not", () => {
        expect(withContext(content, { kind: "edit", message: message("a") })).toEqual({
            ...content,
            body: "* new",
            formatted_body: "* <b>new</b>",
            "m.new_content": content,
            "m.relates_to": { rel_type: "m.replace", event_id: "$a" },
        });
    });
    it("stays itself if there is nothing to be about", () => {
        expect(withContext(content, undefined)).toBe(content);
        expect(withContext(content, { kind: "reply", message: message("a", { eventId: undefined }) })).toBe(content);
    });
    it("is shown without what older clients repeat", () => {
        const reply = { "m.relates_to": { "m.in_reply_to": { event_id: "$a" } } };
        expect(bodyOf({ body: "> <@a:x> one\n> two\n\nthree", ...reply })).toBe("three");
        expect(bodyOf({ body: "> my own quote" })).toBe("> my own quote");
    });
});

it("the first unread message stands under a line, and begins a group", () => {
    const items = toItems([message("a"), message("b"), message("c")], () => "day", "b");
    expect(items.map((item) => item.kind)).toEqual(["day", "group", "unread", "group"]);
    expect(items.at(-1)).toMatchObject({ messages: [{ key: "b" }, { key: "c" }] });
});

describe("what is drawn of a long room", () => {
    const entries = (from: number, to: number): (Entry & Message)[] => Array.from({ length: to - from }, (_, i) => message(`k${from + i}`));
    const keys = (items: ReturnType<typeof toItems>): string[] => items.flatMap((item) => (item.kind === "group" ? item.messages.map((each) => each.key) : []));
    it("thousands of messages of one person are cut in parts, which older messages do not move", () => {
        const all = toItems(entries(0, 1000), () => "day");
        const some = toItems(entries(400, 1000), () => "day");
        const groups = all.filter((item) => item.kind === "group");
        expect(Math.max(...groups.map((group) => group.messages.length))).toBeLessThanOrEqual(32);
        expect(groups.map((group) => group.continued === true)).toEqual(groups.map((_, i) => i > 0));
        expect(groups.map((group) => group.goesOn === true)).toEqual(groups.map((_, i) => i < groups.length - 1));
        expect(keys(all)).toEqual(entries(0, 1000).map((each) => each.key));
        expect(some.slice(-20).map((item) => item.key)).toEqual(all.slice(-20).map((item) => item.key));
    });
    it("is the end, and moves by steps without a gap until the beginning, however long that is", () => {
        const items = toItems(entries(0, 2000), () => "day");
        let range = rangeOf(items, AT_END);
        expect(range.to).toBe(items.length);
        const seen = new Set<string>();
        for (let steps = 0; range.from > 0; steps++) {
            expect(steps).toBeLessThan(2000 / STEP + 1);
            const drawn = keys(items.slice(range.from, range.to));
            expect(drawn.length).toBeLessThan(DRAWN + 64);
            for (const key of drawn) seen.add(key);
            const next = moved(items, range, "older");
            expect(next.to).toBeGreaterThan(range.from);
            range = next;
        }
        for (const key of keys(items.slice(range.from, range.to))) seen.add(key);
        expect(seen.size).toBe(2000);
        expect(moved(items, range, "newer").from).toBeLessThan(range.to);
    });
    it("stays where it is when older messages come before it, and newer ones after it", () => {
        const items = toItems(entries(500, 1000), () => "day");
        const place = windowOf(items, around(items, 20));
        const before = rangeOf(items, place);
        const longer = toItems(entries(0, 1500), () => "day");
        const after = rangeOf(longer, place);
        const [was, is] = [keys(items.slice(before.from, before.to)), keys(longer.slice(after.from, after.to))];
        expect(is).toEqual(expect.arrayContaining(was));
        expect(is.length).toBeLessThan(was.length + 64);
    });
});

describe("files", () => {
    it("come out of encryption as they went in, and only if nobody touched them", async () => {
        const plain = crypto.getRandomValues(new Uint8Array(10_000)).buffer;
        const { cipher, file } = await encryptFile(plain);
        const whole = encryptedFileIn({ ...file, url: "mxc://x/y" })!;
        expect(Buffer.from(cipher).includes(Buffer.from(plain, 0, 64))).toBe(false);
        expect(new Uint8Array(await decryptFile(cipher, whole))).toEqual(new Uint8Array(plain));
        new Uint8Array(cipher)[5]! ^= 1;
        await expect(decryptFile(cipher, whole)).rejects.toThrow("damaged");
    });

    it("are read from content that may hold anything", () => {
        expect(attachmentIn("m.image", { url: "mxc://x/y", body: "a.png", info: { mimetype: "image/PNG", w: 3, h: 2, size: 5 } })).toMatchObject({
            kind: "image", name: "a.png", type: "image/png", width: 3, height: 2, source: { mxc: "mxc://x/y" },
        }); // prettier-ignore
        for (const url of ["https://evil.example/x", "mxc://x", "mxc://x/../y", "javascript:1", 5, null]) expect(attachmentIn("m.image", { url })).toBeUndefined();
        expect(attachmentIn("m.image", { url: "mxc://x/y", info: "no", body: {}, file: { url: 5 } })).toMatchObject({ name: "file", width: undefined });
        expect(attachmentIn("__proto__", { url: "mxc://x/y" })).toBeUndefined();
        expect(parseMxc("mxc://localhost:8008/a_b-C")).toEqual({ server: "localhost:8008", id: "a_b-C" });
    });

    it("are shown by the browser only if they cannot run", () => {
        for (const type of ["image/svg+xml", "text/html", "application/xhtml+xml", "application/pdf", ""]) expect(isShown(type)).toBe(false);
    });
});

describe("polls", () => {
    const start = pollIn(startContent("Which?", ["A", "B"], true))!;
    const [a, b] = start.answers.map((answer) => answer.id) as [string, string];
    const vote = (sender: string, ts: number, ...answers: string[]): PollEvent => ({ sender, ts, content: responseContent("$poll", answers) });
    it("are read as they are written, and from other apps in the forms there are", () => {
        expect(start).toMatchObject({ question: "Which?", answers: [{ text: "A" }, { text: "B" }], choices: 1, open: true });
        expect(pollIn(startContent("Which?", ["A"], false))!.open).toBe(false);
        expect(pollIn({ "m.poll": { question: { "m.text": [{ body: "New?" }] }, answers: [{ "m.id": "x", "m.text": [{ body: "Yes" }] }], kind: "m.disclosed", max_selections: 2 } })).toEqual({
            question: "New?", answers: [{ id: "x", text: "Yes" }], choices: 2, open: true,
        }); // prettier-ignore
        for (const content of [{}, { "m.poll": null }, { "m.poll": { question: { body: "x" }, answers: "no" } }, { "m.poll": { question: 5, answers: [{ id: 1 }] } }]) expect(pollIn(content)).toBeUndefined();
    });
    it("count the last choice of each person, of what there is to choose, before the end", () => {
        const votes = [vote("@a:x", 1, a), vote("@a:x", 2, b), vote("@b:x", 1, b, a), vote("@c:x", 1, "other"), vote("@d:x", 1, a), vote("@d:x", 3), vote("@e:x", 9, a)];
        expect(tally(start, votes, undefined, "@a:x", false)).toMatchObject({ counts: { [a]: 1, [b]: 2 }, voters: 3, mine: [b], ended: false });
        expect(tally(start, votes, 8, "@z:x", true)).toMatchObject({ counts: { [a]: 0, [b]: 2 }, voters: 2, mine: [], ended: true });
        expect(endContent("$poll", "over")["m.relates_to"]).toEqual({ rel_type: "m.reference", event_id: "$poll" });
    });
    it("with a choice of several count each of them once", () => {
        expect(tally({ ...start, choices: 2 }, [vote("@a:x", 1, a, a, b)], undefined, "@a:x", false)).toMatchObject({ counts: { [a]: 1, [b]: 1 }, voters: 1, mine: [a, b] });
    });
});

it("code is coloured where its language is known, and is the same text", async () => {
    const flat = (pieces: Awaited<ReturnType<typeof highlight>>): string => pieces.map((piece) => (typeof piece === "string" ? piece : flat(piece.children))).join("");
    const code = "const x = `<b>${1}</b>`;";
    const pieces = await highlight(code, "js");
    expect(flat(pieces)).toBe(code);
    expect(pieces[0]).toEqual({ kind: "keyword", children: ["const"] });
    for (const language of ["nonsense", "constructor"]) expect(await highlight(code, language)).toEqual([code]);
});

describe("previews of links", () => {
    it("are of the first page that a message links to", () => {
        expect(linkIn(message("a", { text: "see https://example.org/a, and https://example.org/b" }))).toBe("https://example.org/a");
        for (const text of ["nothing", "https://matrix.to/#/@a:x", "mailto:a@example.org"]) expect(linkIn(message("a", { text }))).toBeUndefined();
        for (const style of ["removed", "locked", "file"] as const) expect(linkIn(message("a", { style, text: "https://example.org" }))).toBeUndefined();
    });
    it("are read from an answer that may hold anything", () => {
        expect(previewIn({ "og:title": " A page ", "og:image": "mxc://x/y" }, "https://example.org/a")).toEqual({ title: "A page", description: undefined, site: "example.org", picture: "mxc://x/y" });
        expect(previewIn({ "og:title": "A", "og:image": "https://evil.example/track.png" }, "https://example.org/a")!.picture).toBeUndefined();
        for (const answer of [null, "x", {}, { "og:title": 5 }, { "og:title": " " }]) expect(previewIn(answer, "https://example.org/a")).toBeUndefined();
    });
});

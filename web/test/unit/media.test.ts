/** What is read of files and said of them, without a page. */
import { describe, expect, it } from "vitest";
import { encryptFile } from "../../src/domain/attachments.ts";
import { hashOf, pixelsOf, SIDE } from "../../src/domain/blurhashes.ts";
import { contentOfFile, type PreparedFile } from "../../src/domain/filecontent.ts";
import { sizeText, tooLarge } from "../../src/domain/filelimits.ts";
import { seenIn } from "../../src/domain/gallery.ts";
import { attachmentIn, captionIn, Media } from "../../src/domain/media.ts";
import { fitInto, natureOf, renamed } from "../../src/domain/pictures.ts";
import { LOUDEST, playTime, resample, waveformIn, waveformOf } from "../../src/domain/waveform.ts";
import { shownSize } from "../../src/ui/media/Frame.tsx";

const ascii = (text: string): number[] => [...text].map((char) => char.charCodeAt(0));
const bytes = (...parts: (number | number[] | string)[]): Uint8Array => new Uint8Array(parts.flatMap((part) => (typeof part === "string" ? ascii(part) : part)));
const png = (...chunks: string[]): Uint8Array => bytes(0x89, "PNG", [13, 10, 26, 10], ...chunks.flatMap((name) => [[0, 0, 0, 4], name, [1, 2, 3, 4], [0, 0, 0, 0]]));
const webp = (...chunks: string[]): Uint8Array => bytes("RIFF", [0, 0, 0, 0], "WEBP", ...chunks.flatMap((name) => [name, [3, 0, 0, 0], [1, 2, 3, 0]]));

describe("what a picture's bytes say", () => {
    it.each([
        ["a GIF", bytes("GIF89a"), { moves: true, notes: false }],
        ["a plain PNG", png("IHDR", "IDAT", "IEND"), { moves: false, notes: false }],
        ["a PNG that moves", png("IHDR", "acTL", "IDAT"), { moves: true, notes: false }],
        ["a PNG with Exif after the picture", png("IHDR", "IDAT", "eXIf", "IEND"), { moves: false, notes: true }],
        ["a plain WebP", webp("VP8 "), { moves: false, notes: false }],
        ["a WebP that moves", webp("VP8X", "ANIM", "ANMF"), { moves: true, notes: false }],
        ["a WebP with notes", webp("VP8X", "VP8 ", "EXIF"), { moves: false, notes: true }],
        ["a plain JPEG", bytes([0xff, 0xd8, 0xff, 0xe0, 0, 4, 1, 2, 0xff, 0xda, 0, 2]), { moves: false, notes: false }],
        ["a JPEG with Exif", bytes([0xff, 0xd8, 0xff, 0xe0, 0, 4, 1, 2, 0xff, 0xe1, 0, 4, 1, 2, 0xff, 0xda]), { moves: false, notes: true }],
        ["an AVIF that moves", bytes([0, 0, 0, 32], "ftypavis"), { moves: true, notes: true }],
        ["something else", bytes("BM"), { moves: false, notes: true }],
        ["nothing", bytes(), { moves: false, notes: true }],
    ])("of %s", (_name, picture, nature) => expect(natureOf(picture)).toEqual(nature));

    it("ends with the bytes, whatever lengths they claim", () => {
        expect(natureOf(bytes(0x89, "PNG", [13, 10, 26, 10], [0xff, 0xff, 0xff, 0xff], "IHDR"))).toEqual({ moves: false, notes: false });
        expect(natureOf(bytes([0xff, 0xd8, 0xff, 0xe0, 0, 0]))).toEqual({ moves: false, notes: false });
    });

    it("fits a shape into a side, and names what it becomes", () => {
        expect(fitInto(4000, 3000, 2048)).toEqual({ width: 2048, height: 1536 });
        expect(fitInto(10, 5000, 800)).toEqual({ width: 2, height: 800 });
        expect(fitInto(300, 200, 2048)).toEqual({ width: 300, height: 200 });
        expect(renamed("IMG_1.final.JPG", "image/webp")).toBe("IMG_1.final.webp");
        expect(renamed("picture", "image/jpeg")).toBe("picture.jpg");
        expect(renamed("a.webp", "image/webp")).toBe("a.webp");
    });

    it("takes its place before it is there", () => {
        const most = { width: 360, height: 320 };
        expect(shownSize({ width: 3000, height: 2000 }, most)).toEqual({ width: 360, height: 240 });
        expect(shownSize({ width: 2000, height: 4000 }, most)).toEqual({ width: 160, height: 320 });
        expect(shownSize({ width: 5, height: 5000 }, most)).toEqual({ width: 96, height: 320 });
        expect(shownSize({ width: undefined, height: undefined }, most)).toEqual({ width: 270, height: 240 });
    });
});

describe("hashes of pictures", () => {
    it("keep the colours", () => {
        const red = new Uint8ClampedArray(16 * 9 * 4).map((_, i) => [200, 20, 20, 255][i % 4]!);
        const pixels = pixelsOf(hashOf(red, 16, 9))!;
        expect(pixels.length).toBe(SIDE * SIDE * 4);
        const middle = pixels.subarray((SIDE * SIDE * 4) / 2 + SIDE * 2);
        expect(middle[0]).toBeGreaterThan(150);
        expect(middle[1]).toBeLessThan(60);
    });
    it("are nothing where they are none", () => expect(pixelsOf("LEHV6nWB2yk8")).toBeUndefined());
});

describe("waveforms", () => {
    it("travel as at most a hundred whole numbers up to the loudest", () => {
        const sent = waveformOf(Array.from({ length: 1000 }, (_, i) => (i === 500 ? 0.4 : 0.1)));
        expect(sent.length).toBe(100);
        expect(Math.max(...sent)).toBe(LOUDEST);
        expect(sent[0]).toBe(LOUDEST / 4);
        expect(waveformOf([0, 0, 0])).toEqual([0, 0, 0]);
        expect(waveformOf([])).toEqual([0]);
    });
    it("are read only if they are such", () => {
        expect(waveformIn([0, 2000, -4])).toEqual([0, LOUDEST, 0]);
        for (const wrong of [undefined, [], "1,2", [1, "2"], [Number.NaN], new Array(5000).fill(1)]) expect(waveformIn(wrong)).toBeUndefined();
    });
    it("are drawn with as many bars as there is room for", () => {
        expect(resample([1, 2, 3, 4], 2)).toEqual([2, 4]);
        expect(resample([1, 2], 4)).toEqual([1, 1, 2, 2]);
        expect(resample([], 3)).toEqual([0, 0, 0]);
    });
    it("have times", () => expect([0, 4_600, 760_000, 3_723_000].map(playTime)).toEqual(["0:00", "0:05", "12:40", "1:02:03"]));
});

describe("messages that are files", () => {
    const picture: PreparedFile = {
        blob: new Blob(["12345"], { type: "image/webp" }),
        name: "a.webp",
        kind: "image",
        width: 4,
        height: 3,
        blurhash: "LEHV6nWB2yk8pyo0adR*.7kCMdnj",
        thumbnail: { blob: new Blob(["1"], { type: "image/webp" }), width: 2, height: 1 },
    };
    it("say what is in them", () => {
        expect(contentOfFile(picture, { url: "mxc://a/b" }, undefined)).toEqual({
            msgtype: "m.image",
            body: "a.webp",
            filename: "a.webp",
            url: "mxc://a/b",
            info: { mimetype: "image/webp", size: 5, w: 4, h: 3, "xyz.amorgan.blurhash": picture.blurhash },
        });
    });
    it("have an encrypted thumbnail where they are encrypted, and are read as they were written", async () => {
        const { file } = await encryptFile(new ArrayBuffer(4));
        const [whole, small] = [{ file: { ...file, url: "mxc://a/b" } }, { file: { ...file, url: "mxc://a/c" } }];
        const content = contentOfFile({ ...picture, more: { body: "look", "m.mentions": {} } }, whole, small);
        expect(content).toMatchObject({ body: "look", filename: "a.webp", "m.mentions": {}, info: { thumbnail_file: small.file, thumbnail_info: { mimetype: "image/webp", size: 1, w: 2, h: 1, "xyz.amorgan.blurhash": picture.blurhash } } });
        const read = attachmentIn("m.image", content)!;
        expect(read).toMatchObject({ kind: "image", name: "a.webp", width: 4, height: 3, blurhash: picture.blurhash, waveform: undefined, source: { mxc: "mxc://a/b" }, thumbnail: { mxc: "mxc://a/c" } });
        expect(captionIn(content)).toBe("look");
    });
    it("may be voice messages", () => {
        const voice: PreparedFile = { blob: new Blob(["ogg"], { type: "audio/ogg; codecs=opus" }), name: "Voice message.ogg", kind: "audio", durationMs: 1234.5, waveform: [0, 512] };
        const content = contentOfFile(voice, { url: "mxc://a/b" }, undefined);
        expect(content).toMatchObject({
            msgtype: "m.audio",
            info: { mimetype: "audio/ogg", duration: 1235 },
            "org.matrix.msc1767.audio": { duration: 1235, waveform: [0, 512] },
            "org.matrix.msc1767.file": { url: "mxc://a/b", size: 3 },
            "org.matrix.msc3245.voice": {},
        });
        expect(attachmentIn("m.audio", content)).toMatchObject({ type: "audio/ogg", durationMs: 1235, waveform: [0, 512] });
        expect(captionIn(content)).toBeUndefined();
        expect(attachmentIn("m.audio", { ...content, "org.matrix.msc3245.voice": undefined })!.waveform).toBeUndefined();
        expect(attachmentIn("m.audio", { ...content, "org.matrix.msc1767.audio": null })!.waveform).toEqual([]);
    });
    it("have a caption only where the name stands apart", () => {
        expect(captionIn({ body: "a.png" })).toBeUndefined();
        expect(captionIn({ body: "a.png", filename: "a.png" })).toBeUndefined();
        expect(captionIn({ body: " ", filename: "a.png" })).toBeUndefined();
        expect(captionIn({ body: "hello", filename: "a.png" })).toBe("hello");
    });
    it("believe nothing that is no hash", () => {
        expect(attachmentIn("m.image", { url: "mxc://a/b", info: { "xyz.amorgan.blurhash": "<script>" } })!.blurhash).toBeUndefined();
    });
    it("can be gone through if they can be seen", () => {
        const message = (key: string, msgtype: string, mimetype: string) => ({ key, attachment: attachmentIn(msgtype, { url: "mxc://a/b", body: key, info: { mimetype } })!, senderName: "ada", ts: 1, style: "file" }) as never;
        const messages = [message("1", "m.image", "image/png"), message("2", "m.image", "image/svg+xml"), message("3", "m.video", "video/mp4"), message("4", "m.file", "application/pdf")];
        expect(seenIn([{ kind: "group", key: "g", sender: "a", senderName: "a", own: false, messages }]).map(({ key }) => key)).toEqual(["1", "3"]);
    });
});

describe("sizes", () => {
    it("are told in words", () => {
        expect([512, 1500, 4_200_000, 52_428_800, 3e9].map(sizeText)).toEqual(["0.5 kB", "1.5 kB", "4.2 MB", "52 MB", "3 GB"]);
        expect(tooLarge(10, 10)).toBeUndefined();
        expect(tooLarge(10, undefined)).toBeUndefined();
        expect(tooLarge(2e6, 1e6)).toBe("Too large: 2 MB, and this server takes up to 1 MB.");
    });
});

describe("media", () => {
    const attachment = (info: Record<string, unknown>, extra: Record<string, unknown> = {}) => attachmentIn("m.image", { url: "mxc://a/b", info: { mimetype: "image/png", ...info }, ...extra })!;
    const server = (answer: (url: URL) => Response) => {
        const asked: string[] = [];
        const fetch = ((input: string) => {
            const url = new URL(input);
            asked.push(url.pathname.replace("/_matrix/client/v1/media", "") + url.search);
            return Promise.resolve(answer(url));
        }) as unknown as typeof globalThis.fetch;
        return { asked, media: new Media(fetch, "https://example.org", () => "token") };
    };
    it("asks for a thumbnail of the size that is seen, and for the file where the server can make none", async () => {
        const { asked, media } = server((url) => new Response("x", { status: url.pathname.includes("thumbnail") ? 400 : 200 }));
        expect(await media.preview(attachment({}), { width: 720.2, height: 480 })).toMatch(/^blob:/);
        expect(asked).toEqual(["/thumbnail/a/b?width=721&height=480&method=scale", "/download/a/b"]);
        await expect(media.preview(attachment({ size: 1e9 }), { width: 1, height: 1 })).rejects.toThrow();
    });
    it("tells how far it is, and ends if it is told to", async () => {
        const parts = ["aaaa", "bbbb"];
        const { media } = server(() => new Response(new ReadableStream({ pull: (to) => (parts.length > 0 ? to.enqueue(new TextEncoder().encode(parts.shift())) : to.close()) }), { headers: { "Content-Length": "8" } }));
        const seen: number[] = [];
        await media.original(attachment({}), { onProgress: (at) => seen.push(at) });
        expect(seen).toEqual([0.5, 1]);
    });
    it("asks once how large a file may be, and again if nothing came", async () => {
        let fails = true;
        const { asked, media } = server(() => (fails ? new Response("", { status: 500 }) : Response.json({ "m.upload.size": 1000 })));
        expect(await media.limit()).toBeUndefined();
        fails = false;
        expect([await media.limit(), await media.limit()]).toEqual([1000, 1000]);
        expect(asked).toEqual(["/config", "/config"]);
    });
});

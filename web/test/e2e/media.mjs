/** Pictures, videos, voice messages and files, in a room that is encrypted and in one that is not. */
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { shoot as shootAll } from "./timeline.mjs";

/** The second room looks like the first: what is drawn there alone is worth a picture. */
const shoot = async (people, name) => {
    if (name.endsWith("-sealed") || process.env.SHOTS) await shootAll(people, name);
};

/** A picture of colours with notes of a camera in it, or a video of them, made in the page. */
export async function make(page, kind, width, height) {
    const bytes = await page.evaluate(
        async ([what, w, h]) => {
            const canvas = document.createElement("canvas");
            Object.assign(canvas, { width: w, height: h });
            const context = canvas.getContext("2d");
            const paint = (hue) => {
                const gradient = context.createLinearGradient(0, 0, w, h);
                [hue, hue + 60, hue + 120].forEach((each, i) => gradient.addColorStop(i / 2, `hsl(${each} 45% 45%)`));
                context.fillStyle = gradient;
                context.fillRect(0, 0, w, h);
                for (let i = 0; i < 400; i++) {
                    context.fillStyle = `hsl(${(i * 47) % 360} 60% 50% / 20%)`;
                    context.fillRect((i * 7919) % w, (i * 104729) % h, w / 15, w / 15);
                }
            };
            paint(160);
            if (what === "picture") {
                const jpeg = new Uint8Array(await (await new Promise((done) => canvas.toBlob(done, "image/jpeg", 0.95))).arrayBuffer());
                // APP1: Exif, of which the first entry says that the picture lies on its side, and the next where it was taken.
                const exif = [0x45, 0x78, 0x69, 0x66, 0, 0, 0x4d, 0x4d, 0, 42, 0, 0, 0, 8, 0, 1, 1, 0x12, 0, 3, 0, 0, 0, 1, 0, 6, 0, 0, 0, 0, 0, 0, ...new TextEncoder().encode("taken at home")];
                return [0xff, 0xd8, 0xff, 0xe1, 0, exif.length + 2, ...exif, ...jpeg.subarray(2)];
            }
            const recorder = new MediaRecorder(canvas.captureStream(30), { mimeType: "video/webm" });
            const parts = [];
            recorder.ondataavailable = ({ data }) => parts.push(data);
            recorder.start();
            for (let i = 0; i < 60; i++) {
                paint(160 + i * 2);
                await new Promise((done) => requestAnimationFrame(done));
            }
            recorder.stop();
            await new Promise((done) => (recorder.onstop = done));
            return [...new Uint8Array(await new Blob(parts).arrayBuffer())];
        },
        [kind, width, height],
    );
    return Buffer.from(bytes);
}

async function pictures(ada, bob, sealed) {
    const { page } = ada;
    const photo = await make(page, "picture", 3000, 2000);
    await page.getByLabel("Files to send").setInputFiles([
        { name: "garden.jpg", mimeType: "image/jpeg", buffer: photo },
        { name: "shed.jpg", mimeType: "image/jpeg", buffer: photo },
        { name: "wrong.jpg", mimeType: "image/jpeg", buffer: photo },
    ]);
    const dialog = page.getByRole("dialog", { name: "Send 3 files" });
    await dialog.getByRole("button", { name: "Leave out wrong.jpg" }).click();
    await shoot([ada], `send-files${sealed}`);
    await page.getByLabel("Caption").fill("The **new** bed");
    await page.getByLabel("Caption").press("Enter");
    await page.locator("dialog").waitFor({ state: "detached" });
    for (const name of ["garden.webp", "shed.webp"]) {
        const frame = bob.page.getByRole("button", { name: `Open the picture ${name}` });
        const shown = frame.getByRole("img");
        await shown.waitFor();
        assert.ok(await shown.evaluate((img) => img.decode().then(() => img.naturalWidth)), "the picture can be seen");
        const [width, height] = await frame.evaluate((element) => [element.clientWidth, element.clientHeight]);
        assert.ok(height > width, `a picture that lies on its side stands: ${width} × ${height}`);
        assert.ok(await frame.locator("canvas").count(), "its hash is drawn under it");
    }
    await bob.page.locator(".caption strong", { hasText: "new" }).waitFor();
    await shoot([bob], `pictures${sealed}`);

    await bob.page.getByRole("button", { name: "Open the picture garden.webp" }).click();
    const large = bob.page.locator(".gallery-stage img");
    await bob.page.locator(".gallery-foot progress").waitFor({ state: "detached" });
    assert.deepEqual(await large.evaluate(async (img) => (await img.decode(), [img.naturalWidth, img.naturalHeight])), [1365, 2048], "it was made smaller");
    await shoot([bob], `gallery${sealed}`);
    await bob.page.keyboard.press("ArrowRight");
    await bob.page.getByRole("dialog", { name: "shed.webp" }).waitFor();
    await bob.page.locator(".gallery-caption", { hasText: "bed" }).waitFor();
    await bob.page.keyboard.press("+");
    await bob.page.locator(".gallery-stage.zoomed").waitFor();
    await bob.page.keyboard.press("0");
    await bob.page.locator(".gallery-stage.zoomed").waitFor({ state: "detached" });
    // By touch: to the right is back.
    const touch = await bob.context.newCDPSession(bob.page);
    const move = (type, x) => touch.send("Input.dispatchTouchEvent", { type, touchPoints: x === undefined ? [] : [{ x, y: 400 }] });
    await move("touchStart", 100);
    for (const x of [150, 220, 300]) await move("touchMove", x);
    await move("touchEnd");
    await bob.page.getByRole("dialog", { name: "garden.webp" }).waitFor();
    const [saved] = await Promise.all([bob.page.waitForEvent("download"), bob.page.getByRole("button", { name: "Save" }).click()]);
    assert.equal(saved.suggestedFilename(), "garden.webp");
    assert.ok(!(await readFile(await saved.path())).includes("taken at home"), "what the camera wrote is gone");
    await bob.page.keyboard.press("Escape");
    await bob.page.locator("dialog").waitFor({ state: "detached" });
    assert.ok(await bob.page.getByRole("button", { name: "Open the picture garden.webp" }).evaluate((button) => button === document.activeElement), "the focus is where it was");
}

async function original(ada, bob) {
    const { page } = ada;
    const photo = await make(page, "picture", 600, 400);
    await page.getByLabel(/^Message to/).focus();
    await page.evaluate((bytes) => {
        const data = new DataTransfer();
        data.items.add(new File([new Uint8Array(bytes)], "as-it-is.jpg", { type: "image/jpeg" }));
        document.activeElement.dispatchEvent(new ClipboardEvent("paste", { clipboardData: data, bubbles: true, cancelable: true }));
    }, [...photo]);
    await page.getByText("Original", { exact: true }).click();
    await page.getByRole("dialog").getByRole("button", { name: "Send", exact: true }).click();
    await bob.page.getByRole("button", { name: "Open the picture as-it-is.jpg" }).click();
    await bob.page.locator(".gallery-foot progress").waitFor({ state: "detached" });
    const [saved] = await Promise.all([bob.page.waitForEvent("download"), bob.page.getByRole("button", { name: "Save" }).click()]);
    assert.equal(saved.suggestedFilename(), "as-it-is.jpg");
    assert.deepEqual(await readFile(await saved.path()), photo, "it is the same to the byte");
    await bob.page.keyboard.press("Escape");
}

async function video(ada, bob, sealed) {
    const { page } = ada;
    const film = await make(page, "video", 320, 240);
    const data = await page.evaluateHandle((bytes) => {
        const transfer = new DataTransfer();
        transfer.items.add(new File([new Uint8Array(bytes)], "film.webm", { type: "video/webm" }));
        return transfer;
    }, [...film]);
    await page.locator(".drop-place").first().dispatchEvent("dragenter", { dataTransfer: data });
    await page.getByText("Drop files here to send them").waitFor();
    await shoot([ada], `drop${sealed}`);
    await page.locator(".drop-place").first().dispatchEvent("drop", { dataTransfer: data });
    await page.getByRole("dialog").getByRole("button", { name: "Send", exact: true }).click();
    const frame = bob.page.getByRole("button", { name: "Play the video film.webm" });
    await frame.locator("img").waitFor();
    await frame.locator(".picture-note", { hasText: "0:01" }).waitFor();
    await frame.click();
    await bob.page.waitForFunction(() => document.querySelector(".gallery video")?.readyState >= 2);
    await shoot([bob], `video${sealed}`);
    await bob.page.keyboard.press("Escape");
    await bob.page.locator("dialog").waitFor({ state: "detached" });
}

async function voice(ada, bob, sealed) {
    const { page } = ada;
    await ada.context.clearPermissions();
    await page.getByRole("button", { name: "Record a voice message" }).click();
    await page.getByText("The microphone is not allowed here.").waitFor();
    await shoot([ada], `no-microphone${sealed}`);
    await page.getByRole("button", { name: "Close", exact: true }).click();
    await ada.context.grantPermissions(["microphone"]);
    await page.getByRole("button", { name: "Record a voice message" }).click();
    await page.getByRole("timer", { name: "Recording" }).getByText(/0:0[1-9]/).waitFor();
    await shoot([ada], `recording${sealed}`);
    await page.getByRole("button", { name: "Discard the recording" }).click();
    await page.getByRole("button", { name: "Record a voice message" }).click();
    await page.getByRole("timer", { name: "Recording" }).getByText(/0:0[2-9]/).waitFor();
    await page.getByRole("button", { name: "Stop and listen" }).click();
    const heard = page.getByRole("group", { name: "Voice message" }).last();
    await heard.getByRole("button", { name: "Play" }).click();
    await heard.getByRole("button", { name: "Pause" }).waitFor();
    await shoot([ada], `recorded${sealed}`);
    await page.getByRole("button", { name: "Send", exact: true }).click();

    const player = bob.page.locator(".bubble .sound").last();
    await player.waitFor();
    const place = player.getByRole("slider");
    assert.ok(Number(await place.getAttribute("aria-valuemax")) >= 2, "it says how long it is");
    assert.ok((await player.locator(".wave-all").getAttribute("d")).split("M").length > 40, "it says how loud it is");
    await place.press("End");
    await place.press("Home");
    await player.getByRole("button", { name: "Speed: 1", exact: true }).click();
    await player.getByRole("button", { name: "Speed: 1.5" }).waitFor();
    await player.getByRole("button", { name: "Play Voice message" }).click();
    await player.getByRole("button", { name: "Pause" }).waitFor();
    await bob.page.waitForFunction(() => Number(document.querySelector(".bubble .sound [role=slider]").getAttribute("aria-valuenow")) >= 1);
    await shoot([bob], `voice${sealed}`);
    await player.getByRole("button", { name: "Play Voice message" }).waitFor(); // at its end
}

async function roomFiles(person, sealed, count) {
    const { page } = person;
    await page.getByRole("button", { name: "About this room" }).click();
    await page.getByRole("button", { name: "Pictures and files" }).click();
    const dialog = page.getByRole("dialog", { name: "Pictures and files" });
    await dialog.locator(".room-picture img").first().waitFor();
    assert.equal(await dialog.locator(".room-picture").count(), count);
    await shoot([person], `room-files${sealed}`);
    await dialog.getByText("Recordings", { exact: true }).click();
    await (sealed === "" ? dialog.getByText("There is nothing of this kind here.") : dialog.locator(".sound")).waitFor();
    await dialog.getByText("Pictures", { exact: true }).click();
    await dialog.getByRole("button", { name: "Open the picture shed.webp" }).click();
    await page.getByRole("dialog", { name: "shed.webp" }).waitFor();
    await page.keyboard.press("ArrowLeft");
    await page.getByRole("dialog", { name: "garden.webp" }).waitFor();
    for (let left = 2; left >= 0; left--) {
        await page.keyboard.press("Escape");
        await page.waitForFunction((open) => document.querySelectorAll("dialog").length === open, left);
    }
}

async function tooLarge(ada) {
    const { page } = ada;
    const limit = JSON.parse(await ada.request("GET", "/_matrix/client/v1/media/config"))["m.upload.size"];
    await page.evaluate((size) => {
        const transfer = new DataTransfer();
        const huge = new File(["x"], "huge.bin");
        Object.defineProperty(huge, "size", { value: size });
        transfer.items.add(huge);
        const files = { files: [huge], types: ["Files"] };
        const drop = new Event("drop", { bubbles: true, cancelable: true });
        Object.defineProperty(drop, "dataTransfer", { value: files });
        document.querySelector(".drop-place").dispatchEvent(drop);
    }, limit + 1);
    await page.getByText(/^Too large: /).waitFor();
    await page.getByText("None of this can be sent here.").waitFor();
    await shootAll([ada], "too-large");
    await page.keyboard.press("Escape");
    await page.locator("dialog").waitFor({ state: "detached" });
}

/** On a phone there is a sheet with all that can be attached. */
async function attachByPhone(person) {
    const { page } = person;
    await page.getByRole("button", { name: "Attach" }).click();
    await page.getByRole("button", { name: "New poll" }).waitFor();
    await shootAll([person], "attach");
    const [chooser] = await Promise.all([page.waitForEvent("filechooser"), page.getByRole("button", { name: "Camera" }).click()]);
    assert.equal(await chooser.element().getAttribute("capture"), "environment");
    await chooser.setFiles([{ name: "now.jpg", mimeType: "image/jpeg", buffer: await make(page, "picture", 800, 1200) }]);
    await page.getByRole("dialog", { name: "Send 1 file" }).waitFor();
    await shootAll([person], "send-one");
    await page.keyboard.press("Escape");
    await page.locator("dialog").waitFor({ state: "detached" });
}

export async function shareMedia(ada, bob) {
    await attachByPhone(bob);
    await pictures(ada, bob, "-sealed");
    await original(ada, bob);
    await video(ada, bob, "-sealed");
    await voice(ada, bob, "-sealed");
    await roomFiles(bob, "-sealed", 4);
    const seen = await ada.serverSees();
    assert.ok(!seen.includes("garden") && !seen.includes("blurhash"), "the server does not know what was sent");
    await tooLarge(ada);
    // And in a room that is not encrypted, where the server makes the thumbnails.
    const { room_id: id } = JSON.parse(await ada.request("POST", "/_matrix/client/v3/createRoom", { name: "Open air", invite: ["@bob:localhost"] }));
    await ada.page.getByRole("link", { name: /Open air/ }).click();
    await bob.page.getByRole("button", { name: "All conversations" }).click();
    await bob.page.getByRole("button", { name: "Accept" }).click();
    await bob.page.getByRole("heading", { name: "Open air" }).waitFor();
    await ada.page.getByRole("heading", { name: "Open air" }).waitFor();
    assert.equal(ada.roomId, id);
    const before = bob.http.length;
    await pictures(ada, bob, "");
    await video(ada, bob, "");
    await roomFiles(bob, "", 3);
    assert.ok(bob.http.slice(before).some((call) => call.includes("/media/thumbnail/")), "the server makes thumbnails");
    for (const { page } of [bob, ada]) {
        if (page === bob.page) await page.getByRole("button", { name: "All conversations" }).click();
        await page.getByRole("link", { name: /Garden/ }).click();
    }
}

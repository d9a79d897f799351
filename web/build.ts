/** What our build adds to vite's: packed copies of each file, and the size budget. */
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { brotliCompressSync, constants, gzipSync } from "node:zlib";
import type { Plugin } from "vite";

/** All JavaScript until the first conversation is on the screen, gzip. */
export const JS_BUDGET_BYTES = 250 * 1024;

/** Chunks that come after the first conversation is on its way: encryption, other languages, colours for code, screens that few need (ui/later.tsx). */
const LATER = /^(rust-crypto|words|highlighter|Verify|DeviceList|Profile|OwnProfile|IgnoredList|RoomInfo|Report|PictureField|roles|blurhashes|prepare|SendFiles|VoiceRecorder|Gallery|RoomFilesView)[-.]/;

/** Fails the build that makes people wait. Only what is named as loaded later is left out of the sum. */
export function budget(): Plugin {
    return {
        name: "hubbub-budget",
        apply: "build",
        generateBundle(_options, bundle) {
            let sum = 0;
            for (const file of Object.values(bundle)) if (file.type === "chunk" && file.fileName !== "sw.js" && !LATER.test(basename(file.fileName))) sum += gzipSync(file.code).length;
            const kb = (bytes: number): string => `${(bytes / 1024).toFixed(1)} KB`;
            if (sum > JS_BUDGET_BYTES) this.error(`JavaScript of the first load is ${kb(sum)} gzip, and the budget is ${kb(JS_BUDGET_BYTES)}`);
            this.info(`JavaScript of the first load: ${kb(sum)} gzip of ${kb(JS_BUDGET_BYTES)}`);
        },
    };
}

/** Brotli's best takes a minute for the module for encryption, and its next is a few percent larger. */
const quality = (bytes: Buffer): number => (bytes.length > 1 << 20 ? 9 : constants.BROTLI_MAX_QUALITY);

/** Writes a .gz and a .br beside each file that gains by it, so that the server never packs anything. */
export function packed(dist: string): Plugin {
    return {
        name: "hubbub-packed",
        apply: "build",
        closeBundle() {
            writeFileSync(join(dist, ".gitkeep"), ""); // the placeholder with which the Go side builds without npm
            for (const name of readdirSync(dist, { recursive: true, encoding: "utf8" })) {
                if (!/\.(html|js|css|svg|json|webmanifest|wasm)$/.test(name)) continue;
                const path = join(dist, name);
                const bytes = readFileSync(path);
                const gz = gzipSync(bytes, { level: 9 });
                const br = brotliCompressSync(bytes, { params: { [constants.BROTLI_PARAM_SIZE_HINT]: bytes.length, [constants.BROTLI_PARAM_QUALITY]: quality(bytes) } });
                if (gz.length < bytes.length * 0.95) writeFileSync(`${path}.gz`, gz);
                if (br.length < bytes.length * 0.95) writeFileSync(`${path}.br`, br);
            }
        },
    };
}

/** Tells the service worker which files it keeps, and names their cache; names sort by the time of the build. */
export function workerFiles(): Plugin {
    return {
        name: "hubbub-worker-files",
        apply: "build",
        enforce: "post",
        generateBundle(_options, bundle) {
            const worker = bundle["sw.js"];
            if (worker?.type !== "chunk") return this.error("the service worker is not in the bundle");
            const shell = Object.keys(bundle).filter((name) => /\.(js|css)$/.test(name) && name !== "sw.js" && !LATER.test(basename(name)));
            const later = Object.keys(bundle).filter((name) => name.endsWith(".wasm") || (name.endsWith(".js") && LATER.test(basename(name))));
            const files = { name: `hubbub-files-${Date.now()}`, shell: [...shell.map((name) => `/${name}`), "/favicon.svg", "/manifest.webmanifest"], later: later.map((name) => `/${name}`) };
            worker.code = worker.code.replaceAll("__FILES__", () => JSON.stringify(files));
        },
    };
}

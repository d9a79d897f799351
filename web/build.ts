/** What our build adds to vite's: packed copies of each file, and the size budget. */
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { brotliCompressSync, constants, gzipSync } from "node:zlib";
import { build, type Plugin } from "vite";

/** All JavaScript until the first conversation is on the screen, gzip. */
export const JS_BUDGET_BYTES = 250 * 1024;

/** Chunks that come after the first conversation is on its way: encryption, other languages, colours for code, screens that few need (ui/later.tsx). */
const LATER = /^(rust-crypto|words|highlighter|Verify|DeviceList|Profile|OwnProfile|IgnoredList|RoomInfo|Report|PictureField|roles|emojis|FindRooms|Shortcuts|blurhashes|prepare|SendFiles|VoiceRecorder|Gallery|RoomFilesView)[-.]/;

/** Fails the build that makes people wait. Only what is named as loaded later is left out of the sum. */
export function budget(): Plugin {
    return {
        name: "hubbub-budget",
        apply: "build",
        generateBundle(_options, bundle) {
            let sum = 0;
            for (const file of Object.values(bundle)) if (file.type === "chunk" && !LATER.test(basename(file.fileName))) sum += gzipSync(file.code).length;
            const kb = (bytes: number): string => `${(bytes / 1024).toFixed(1)} KB`;
            if (sum > JS_BUDGET_BYTES) this.error(`JavaScript of the first load is ${kb(sum)} gzip, and the budget is ${kb(JS_BUDGET_BYTES)}`);
            this.info(`JavaScript of the first load: ${kb(sum)} gzip of ${kb(JS_BUDGET_BYTES)}`);
        },
    };
}

interface EmojiData {
    unicode: string;
    label: string;
    tags?: string[];
    group?: number;
    order?: number;
}

/** Skin tones and parts of hair are no emoji of their own. */
const COMPONENTS = 2;

/** Tables of emoji and their names, one for each language, out of emojibase's, which hold much more (domain/emojis.ts). */
export function emojiTables(): Plugin {
    const prefix = "virtual:emojis/emojis-";
    return {
        name: "hubbub-emojis",
        resolveId: (id) => (id.startsWith(prefix) ? `\0${id}` : undefined),
        load(id) {
            if (!id.startsWith(`\0${prefix}`)) return undefined;
            const file = new URL(`./node_modules/emojibase-data/${id.slice(prefix.length + 1)}/compact.json`, import.meta.url);
            const all = (JSON.parse(readFileSync(file, "utf8")) as EmojiData[]).filter(({ group, order }) => order !== undefined && group !== COMPONENTS);
            const lines = all.sort((a, b) => a.order! - b.order!).map(({ unicode, label, tags = [] }) => [unicode, label, ...tags].map((word) => word.toLowerCase().replace(/\s+/g, " ")).join("\t"));
            return `export default ${JSON.stringify(lines.join("\n"))};`;
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

/** What of public/ is shown without a network. */
const SHOWN = ["favicon.svg", "favicon-unread.svg", "icon-192.png", "badge.png", "manifest.webmanifest"];

/**
 * Builds the service worker, as one file: a classic script shares none with the page, and not every browser takes it as a
 * module. Tells it which files it keeps, and names their cache; names sort by the time of the build.
 */
export function serviceWorker(source: string): Plugin {
    return {
        name: "hubbub-service-worker",
        apply: "build",
        enforce: "post",
        async generateBundle(_options, bundle) {
            const shell = Object.keys(bundle).filter((name) => /\.(js|css)$/.test(name) && !LATER.test(basename(name)));
            const later = Object.keys(bundle).filter((name) => name.endsWith(".wasm") || (name.endsWith(".js") && LATER.test(basename(name))));
            const files = { name: `hubbub-files-${Date.now()}`, shell: [...shell.map((name) => `/${name}`), ...SHOWN.map((name) => `/${name}`)], later: later.map((name) => `/${name}`) };
            const worker = await build({
                configFile: false,
                publicDir: false,
                logLevel: "error",
                define: { __FILES__: JSON.stringify(files) },
                build: { write: false, target: "es2023", modulePreload: false, rolldownOptions: { input: source, output: { format: "iife" } } },
            });
            if (!("output" in worker)) return this.error("the service worker was not built");
            const [{ code }] = worker.output;
            this.emitFile({ type: "asset", fileName: "sw.js", source: code });
        },
    };
}

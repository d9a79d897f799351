import { fileURLToPath } from "node:url";
import preact from "@preact/preset-vite";
import { defineConfig } from "vitest/config";
import { budget, emojiTables, packed, serviceWorker } from "./build.ts";

const here = (path: string): string => fileURLToPath(new URL(path, import.meta.url));
const server = process.env.HUBBUB_SERVER ?? "http://127.0.0.1:8008";

export default defineConfig({
    plugins: [preact({ prefreshEnabled: process.env.NODE_ENV !== "test" }), emojiTables(), budget(), serviceWorker(here("./src/sw/sw.ts")), packed(here("./dist"))],
    resolve: {
        alias: { unhomoglyph: here("./src/domain/confusables.ts") },
    },
    build: {
        rolldownOptions: {
            input: { index: here("./index.html") },
            output: { entryFileNames: "assets/[name]-[hash].js" },
        },
        target: "es2023",
        cssTarget: ["chrome123", "firefox128", "safari17.5"],
        assetsInlineLimit: 0, // data: URLs are not in the policy
        modulePreload: { polyfill: false }, // an inline script
        sourcemap: false,
        chunkSizeWarningLimit: 1000, // the budget says what is too much
        reportCompressedSize: false,
    },
    server: {
        proxy: {
            "/_matrix": { target: server, changeOrigin: true },
            // The server lets WebSockets in from its own address only, so the proxy comes from there.
            "/_hubbub": { target: server, changeOrigin: true, ws: true, headers: { Origin: server } },
        },
    },
    test: {
        include: ["test/unit/**/*.test.ts"],
        environment: "node",
        setupFiles: ["test/unit/setup.ts"],
        testTimeout: 30_000,
    },
});

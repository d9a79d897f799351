/** Starts Chromium as CI does. */
import { chromium } from "playwright-core";

const FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync", "--use-fake-device-for-media-stream"];

export const PHONE = { viewport: { width: 390, height: 844 }, hasTouch: true, isMobile: true, deviceScaleFactor: 2 };
export const DESKTOP = { viewport: { width: 1280, height: 800 } };

export function launch() {
    return chromium.launch({ executablePath: process.env.CHROMIUM || "/usr/bin/chromium", args: FLAGS });
}

/** Everything that a page complained of; a test ends by looking that it is empty. */
export function watchErrors(page, who) {
    const errors = [];
    page.on("console", (message) => {
        if (message.type() === "error") errors.push(`${who}: ${message.text()} (${message.location().url})`);
    });
    page.on("pageerror", (error) => errors.push(`${who}: ${error.stack ?? error}`));
    return errors;
}

/** Installs the service worker, which keeps the app's own files for when there is no network. */

interface Policies {
    createPolicy(name: string, rules: { createScriptURL: (url: string) => string }): { createScriptURL(url: string): string };
}

export async function registerWorker(): Promise<void> {
    if (!import.meta.env.PROD || !("serviceWorker" in navigator)) return;
    // The page's policy asks for trusted addresses of scripts. This policy knows one address.
    const { trustedTypes } = globalThis as { trustedTypes?: Policies };
    const url = trustedTypes?.createPolicy("hubbub-worker", { createScriptURL: () => "/sw.js" }).createScriptURL("") ?? "/sw.js";
    await navigator.serviceWorker.register(url, { scope: "/" }).catch(() => undefined); // the app works without
}

/**
 * Files in encrypted rooms: the file is encrypted here, the server gets what it cannot read, the key travels in the
 * message. spec: client-server §Sending encrypted attachments
 */

import { t } from "./i18n.ts";

export interface EncryptedFile {
    url: string;
    key: { kty: "oct"; key_ops: string[]; alg: "A256CTR"; k: string; ext: true };
    iv: string;
    hashes: { sha256: string };
    v: "v2";
}

const CTR = { name: "AES-CTR", length: 64 } as const;

export async function encryptFile(plain: ArrayBuffer): Promise<{ cipher: ArrayBuffer; file: Omit<EncryptedFile, "url"> }> {
    const { subtle } = globalThis.crypto;
    const key = await subtle.generateKey({ name: "AES-CTR", length: 256 }, true, ["encrypt", "decrypt"]);
    const iv = new Uint8Array(16); // the second half counts blocks and begins at zero
    globalThis.crypto.getRandomValues(iv.subarray(0, 8));
    const cipher = await subtle.encrypt({ ...CTR, counter: iv }, key, plain);
    const { k } = await subtle.exportKey("jwk", key);
    return {
        cipher,
        file: {
            key: { kty: "oct", key_ops: ["encrypt", "decrypt"], alg: "A256CTR", k: k!, ext: true },
            iv: toBase64(iv),
            hashes: { sha256: toBase64(new Uint8Array(await subtle.digest("SHA-256", cipher))) },
            v: "v2",
        },
    };
}

/** Throws if the file is not the one that the message spoke of. */
export async function decryptFile(cipher: ArrayBuffer, file: EncryptedFile): Promise<ArrayBuffer> {
    const { subtle } = globalThis.crypto;
    const hash = toBase64(new Uint8Array(await subtle.digest("SHA-256", cipher)));
    if (hash !== file.hashes.sha256.replace(/=+$/, "")) throw new Error(t("The file is damaged."));
    const key = await subtle.importKey("jwk", { ...file.key }, { name: "AES-CTR" }, false, ["decrypt"]);
    return subtle.decrypt({ ...CTR, counter: fromBase64(file.iv) }, key, cipher);
}

/** The file in a message's content, if it is whole. */
export function encryptedFileIn(value: unknown): EncryptedFile | undefined {
    const file = value as Partial<EncryptedFile> | null | undefined;
    const whole =
        typeof file?.url === "string" && file.v === "v2" && typeof file.iv === "string" && typeof file.hashes?.sha256 === "string" &&
        file.key?.alg === "A256CTR" && file.key.kty === "oct" && typeof file.key.k === "string"; // prettier-ignore
    return whole ? (file as EncryptedFile) : undefined;
}

function toBase64(bytes: Uint8Array): string {
    return btoa(String.fromCharCode(...bytes)).replace(/=+$/, "");
}

function fromBase64(text: string): Uint8Array<ArrayBuffer> {
    return Uint8Array.from(atob(text), (char) => char.charCodeAt(0));
}

/** What was written and has not reached the server yet. Outlives the page, and ends with the session. */
import type { KeyValue } from "./keyvalue.ts";

export interface Unsent {
    roomId: string;
    type: string;
    content: Record<string, unknown>;
    /** The event that a redaction removes. */
    redacts?: string;
    /** Names the message to the server, which takes it once however often it is sent. */
    txnId: string;
    /** When it was written, in ms since the epoch. */
    ts: number;
    /** The server said no, and nothing but the person can change that. */
    refused?: boolean;
}

/** A file that has not been uploaded. */
export interface UnsentFile<T> {
    roomId: string;
    txnId: string;
    ts: number;
    file: T;
}

/** A name that no other message of this device has. spec: client-server §Transaction identifiers */
export function newTransaction(): string {
    const random = globalThis.crypto.getRandomValues(new Uint8Array(9));
    return `h${Date.now()}.${[...random].map((byte) => byte.toString(16).padStart(2, "0")).join("")}`;
}

const MESSAGES = "outbox";
const FILES = "outfiles";

/** Sorts as the messages were written. */
const keyOf = (kind: string, userId: string, { ts, txnId }: { ts: number; txnId: string }): string => `${kind}:${userId}:${String(ts).padStart(15, "0")}:${txnId}`;

export class OutboxStore<File> {
    constructor(
        private readonly kv: KeyValue,
        private readonly userId: string,
    ) {}

    put(message: Unsent): Promise<void> {
        return this.kv.set(keyOf(MESSAGES, this.userId, message), message);
    }

    drop(message: Unsent): Promise<void> {
        return this.kv.delete(keyOf(MESSAGES, this.userId, message));
    }

    putFile(file: UnsentFile<File>): Promise<void> {
        return this.kv.set(keyOf(FILES, this.userId, file), file);
    }

    dropFile(file: UnsentFile<File>): Promise<void> {
        return this.kv.delete(keyOf(FILES, this.userId, file));
    }

    async messages(): Promise<Unsent[]> {
        const found = await this.kv.list(`${MESSAGES}:${this.userId}:`);
        return found.map(([, value]) => value as Unsent);
    }

    async files(): Promise<UnsentFile<File>[]> {
        const found = await this.kv.list(`${FILES}:${this.userId}:`);
        return found.map(([, value]) => value as UnsentFile<File>);
    }

    /** For signing out: nothing that was written stays on the device. */
    async clear(): Promise<void> {
        for (const kind of [MESSAGES, FILES]) {
            for (const [key] of await this.kv.list(`${kind}:${this.userId}:`)) await this.kv.delete(key);
        }
    }
}

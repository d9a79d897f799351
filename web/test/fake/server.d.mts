export class FakeServer {
    constructor(options?: { name?: string; dist?: string; testMode?: boolean; registrationToken?: string });
    origin: string;
    overHttp: string[];
    overSocket: string[];
    blockSockets: boolean;
    failSends: boolean;
    registrationToken: string | undefined;
    clock: () => number;
    listen(port?: number): Promise<string>;
    close(): Promise<void>;
    offline(): void;
    online(): void;
    dropSockets(code?: number): void;
    createRoom(user: string, body: object): { room_id: string };
    send(user: string, roomId: string, type: string, txn: string, content: object, session: { txns: Map<string, string> }): { event_id: string };
    member(by: string, roomId: string, user: string, membership: string): object;
    setState(user: string, roomId: string, type: string, content: object): void;
    setTyping(user: string, roomId: string, typing: boolean): void;
    now: number;
    position(token: string | null | undefined): number;
}

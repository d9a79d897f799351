/** The databases that the SDK keeps: what was synced, for each user, and the keys of each device. */

export interface Device {
    userId: string;
    deviceId: string;
}

export const syncDatabase = (userId: string): string => `hubbub-sync:${userId}`;
export const keysPrefix = ({ userId, deviceId }: Device): string => `hubbub-crypto:${userId}:${deviceId}`;

/** As the SDK names them. */
export const storedSync = (userId: string): string[] => [`matrix-js-sdk:${syncDatabase(userId)}`];
export const storedKeys = (device: Device): string[] => ["matrix-sdk-crypto", "matrix-sdk-crypto-meta"].map((name) => `${keysPrefix(device)}::${name}`);

/** Resolves when they are gone, which they are not while a page has them open. */
export async function deleteDatabases(idb: IDBFactory, names: readonly string[]): Promise<void> {
    await Promise.all(
        names.map(
            (name) =>
                new Promise<void>((done) => {
                    const request = idb.deleteDatabase(name);
                    request.onsuccess = request.onerror = () => done();
                }),
        ),
    );
}

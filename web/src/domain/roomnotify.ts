/** What a room notifies of, as push rules say it, which hold on all devices. spec: client-server §Push Rules */
import type { IPushRule, IPushRules, PushRuleKind } from "matrix-js-sdk/lib/@types/PushRules";
import type { MatrixClient } from "./client.ts";
import { inWords } from "./errors.ts";

export type RoomNotify = "all" | "mentions" | "none";

/** The rules, the last word first: one before all others silences a room wholly, one of the room leaves it its mentions. */
export function notifyOf(rules: Partial<IPushRules> | undefined, roomId: string): RoomNotify {
    const silent = (rule: IPushRule): boolean => rule.enabled !== false && !rule.actions.includes("notify" as never);
    const muted = rules?.global?.override?.some((rule) => rule.rule_id === roomId && silent(rule)) ?? false;
    if (muted) return "none";
    return rules?.global?.room?.some((rule) => rule.rule_id === roomId && silent(rule)) ? "mentions" : "all";
}

export async function setRoomNotify(client: MatrixClient, roomId: string, to: RoomNotify): Promise<void> {
    const [override, room] = ["override", "room"] as unknown as [PushRuleKind.Override, PushRuleKind.RoomSpecific];
    const has = (kind: "override" | "room"): boolean => client.pushRules?.global?.[kind]?.some((rule) => rule.rule_id === roomId) ?? false;
    await inWords(async () => {
        // First what silences it more, so that at no moment it is louder than before and after.
        if (to === "none") await client.addPushRule("global", override, roomId, { conditions: [{ kind: "event_match", key: "room_id", pattern: roomId }], actions: [] } as never);
        if (to === "mentions") await client.addPushRule("global", room, roomId, { actions: [] } as never);
        if (to !== "none" && has("override")) await client.deletePushRule("global", override, roomId);
        if (to !== "mentions" && has("room")) await client.deletePushRule("global", room, roomId);
        client.setPushRules(await client.getPushRules()); // they come with the sync too, a moment later
    });
}

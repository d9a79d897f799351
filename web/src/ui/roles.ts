/** What people may do in a room, in a word. */
import { t } from "../domain/i18n.ts";
import type { Role } from "../domain/roomsettings.ts";

export const roleName = (role: Role): string => ({ owner: t("Owner"), moderator: t("Moderator"), member: t("Member") })[role];

/** A line of a list of people or rooms: picture, name, what is said of them, and what can be done. */
import type { ComponentChildren, JSX } from "preact";
import { Avatar } from "./Avatar.tsx";

export function PersonLine({ id, name, picture, hint, children }: { id: string; name: string; picture?: string | undefined; hint: string; children?: ComponentChildren }): JSX.Element {
    return (
        <li class="person">
            <Avatar id={id} name={name} picture={picture} size="s" />
            <span class="room-text">
                <span class="person-name">{name}</span>
                <span class="hint">{hint}</span>
            </span>
            {children}
        </li>
    );
}

/** The small parts that several screens are made of. */
import type { ComponentChildren, JSX } from "preact";
import { t } from "../domain/i18n.ts";
import { useAttempt, useChosen } from "./attempt.ts";
import { useModal } from "./focus.ts";
import { useEffect, useId, useRef, useState } from "preact/hooks";

const ICONS = {
    back: "M15 5l-7 7 7 7",
    send: "M4 12l16-8-6 16-3-6-7-2zM11 14l9-10",
    plus: "M12 5v14M5 12h14",
    close: "M6 6l12 12M18 6L6 18",
    invite: "M9 12a4 4 0 1 0 0-8 4 4 0 0 0 0 8zM2 20c0-4 3-6 7-6s7 2 7 6M19 8v6M16 11h6",
    down: "M12 5v14M6 13l6 6 6-6",
    up: "M12 19V5M6 11l6-6 6 6",
    reply: "M10 8L5 13l5 5M5 13h9a5 5 0 0 1 5 5v1",
    more: "M5 12h.01M12 12h.01M19 12h.01",
    smile: "M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18zM8.5 14.5c2 2 5 2 7 0M9 9.5h.01M15 9.5h.01",
    edit: "M4 20l1-5L16 4l4 4L9 19l-5 1zM14 6l4 4",
    copy: "M9 9h11v11H9zM5 15H4V4h11v1",
    bin: "M4 7h16M9 7V4h6v3M6 7l1 13h10l1-13M10 11v5M14 11v5",
    attach: "M20 11l-8.5 8.5a5 5 0 0 1-7-7L13 4a3.3 3.3 0 0 1 4.7 4.7l-8.5 8.4a1.7 1.7 0 0 1-2.4-2.3L14 7.6",
    save: "M12 4v11M7 11l5 5 5-5M5 20h14",
    play: "M7 5l12 7-12 7z",
    pause: "M8 5v14M16 5v14",
    stop: "M7 7h10v10H7z",
    mic: "M12 15a3 3 0 0 0 3-3V6a3 3 0 0 0-6 0v6a3 3 0 0 0 3 3zM6 11v1a6 6 0 0 0 12 0v-1M12 18v3",
    camera: "M4 8h3l2-3h6l2 3h3v11H4zM12 16.5a3.5 3.5 0 1 0 0-7 3.5 3.5 0 0 0 0 7z",
    image: "M4 5h16v14H4zM4 16l5-5 4 4 3-3 4 4M15.5 9.5h.01",
    file: "M6 3h8l4 4v14H6zM14 3v4h4",
    next: "M9 5l7 7-7 7",
    search: "M11 18a7 7 0 1 0 0-14 7 7 0 0 0 0 14zM16 16l5 5",
    star: "M12 4l2.4 5 5.6.8-4 4 .9 5.6-4.9-2.7-4.9 2.7.9-5.6-4-4 5.6-.8z",
    lock: "M6 11h12v9H6zM9 11V8a3 3 0 0 1 6 0v3",
    pin: "M9 4h6l-1 6 3 3v2H7v-2l3-3zM12 15v6",
    poll: "M5 20V10M12 20V4M19 20v-7",
    thread: "M4 5h16v10H10l-5 4v-4H4zM8 9h8M8 12h5",
    clock: "M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18zM12 7v5l3 2",
    offline: "M3 4l18 16M8.5 15.5a5 5 0 0 1 5-1.2M5 12a10 10 0 0 1 4.5-2.6M13.5 9a10 10 0 0 1 5.5 3M12 19h.01",
    bell: "M6 17V11a6 6 0 0 1 12 0v6l2 2H4zM10 21h4",
    info: "M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18zM12 11v5M12 8h.01",
    shield: "M12 3l7 3v5c0 5-3 8-7 10-4-2-7-5-7-10V6zM9 12l2 2 4-4",
    warning: "M12 4l9 16H3zM12 10v4M12 17h.01",
    device: "M4 5h16v11H4zM8 20h8",
    ban: "M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18zM6 6l12 12",
    flag: "M6 21V4h11l-2 4 2 4H6",
    keys: "M3 7h18v10H3zM7 11h.01M11 11h.01M15 11h.01M8 14h8",
    mute: "M4 10v4h4l5 4V6l-5 4zM17 10l4 4M21 10l-4 4",
    door: "M14 4h5v16h-5M10 8l-4 4 4 4M6 12h9",
} as const;

export type IconName = keyof typeof ICONS;

/** Those that point along the line, which goes the other way in Arabic. */
const POINTING: ReadonlySet<IconName> = new Set<IconName>(["back", "next", "send", "reply", "thread", "invite"]);

export function Icon({ name }: { name: IconName }): JSX.Element {
    return (
        <svg class={POINTING.has(name) ? "icon pointing" : "icon"} viewBox="0 0 24 24" aria-hidden="true">
            <path d={ICONS[name]} />
        </svg>
    );
}

export function IconButton(props: { icon: IconName; label: string; onClick: () => void; class?: string; focusable?: boolean }): JSX.Element {
    return (
        <button type="button" tabIndex={props.focusable === false ? -1 : undefined} class={`icon-button ${props.class ?? ""}`} aria-label={props.label} title={props.label} onClick={props.onClick}>
            <Icon name={props.icon} />
        </button>
    );
}

export function Field(props: {
    label: string;
    value: string;
    onInput: (value: string) => void;
    type?: "text" | "password";
    hint?: string;
    autoComplete?: string;
    autoFocus?: boolean;
    required?: boolean;
    placeholder?: string;
}): JSX.Element {
    const id = useId();
    const [shown, setShown] = useState(false);
    const input = useRef<HTMLInputElement>(null);
    useEffect(() => {
        if (props.autoFocus) input.current?.focus();
    }, []);
    const secret = props.type === "password";
    return (
        <div class="field">
            <label for={id}>{props.label}</label>
            <div class="field-box">
                <input
                    ref={input}
                    id={id}
                    type={(secret && !shown ? "password" : "text") as "password"}
                    value={props.value}
                    onInput={(event) => props.onInput(event.currentTarget.value)}
                    dir={secret ? "ltr" : "auto"}
                    autocomplete={props.autoComplete ?? "off"}
                    autocapitalize="none"
                    spellcheck={false}
                    autofocus={props.autoFocus ?? false /* where a dialog looks when it opens */}
                    required={props.required ?? false}
                    placeholder={props.placeholder ?? ""}
                    aria-describedby={props.hint ? `${id}-hint` : undefined}
                />
                {secret && (
                    <button type="button" class="field-button" aria-pressed={shown} onClick={() => setShown(!shown)}>
                        {shown ? t("Hide") : t("Show")}
                    </button>
                )}
            </div>
            {props.hint && (
                <p class="hint" id={`${id}-hint`}>
                    {props.hint}
                </p>
            )}
        </div>
    );
}

/** A form whose action may fail: shows that it works, and then what went wrong. */
export function ActionForm(props: { label: string; action: () => Promise<void>; children?: ComponentChildren; /** Not the main thing on the screen. */ plain?: boolean; danger?: boolean }): JSX.Element {
    const [busy, error, run] = useAttempt();
    const submit = (event: Event): void => {
        event.preventDefault();
        if (!busy) void run(props.action);
    };
    return (
        <form class="form" onSubmit={submit}>
            {props.children}
            <Failure words={error} />
            <button type="submit" class={`button ${props.danger ? "danger" : props.plain ? "" : "primary"}`} disabled={busy}>
                {busy ? <Spinner label={t("Working")} /> : props.label}
            </button>
        </form>
    );
}

/** What went wrong. Its place is there before, or nobody would be read it. */
export function Failure({ words }: { words: string | undefined }): JSX.Element {
    return <div role="alert">{words !== undefined && <p class="error">{words}</p>}</div>;
}

export function Spinner({ label }: { label: string }): JSX.Element {
    return <span class="spinner" role="status" aria-label={label} />;
}

export function Dialog(props: { title: string; onClose: () => void; children: ComponentChildren }): JSX.Element {
    const dialog = useModal();
    const title = useId();
    return (
        <dialog ref={dialog} class="dialog" aria-labelledby={title} onClose={props.onClose} onClick={(event) => event.target === dialog.current && props.onClose()}>
            <div class="dialog-body">
                <header class="dialog-head">
                    <h2 id={title}>{props.title}</h2>
                    <IconButton icon="close" label={t("Close")} onClick={props.onClose} />
                </header>
                {props.children}
            </div>
        </dialog>
    );
}

/** One of a few, side by side. */
export function Choice<T extends string>(props: { label: string; value: T; options: readonly (readonly [T, string])[]; onChange: (value: T) => void }): JSX.Element {
    const name = useId();
    return (
        <fieldset class="choice">
            <legend>{props.label}</legend>
            <div class="choice-row">
                {props.options.map(([value, text]) => (
                    <label key={value}>
                        <input type="radio" name={name} checked={props.value === value} onChange={() => props.onChange(value)} />
                        <span>{text}</span>
                    </label>
                ))}
            </div>
        </fieldset>
    );
}

export function Empty(props: { title: string; children?: ComponentChildren }): JSX.Element {
    return (
        <div class="empty">
            <span class="mark" aria-hidden="true">
                <i />
                <i />
                <i />
            </span>
            <h2>{props.title}</h2>
            {props.children}
        </div>
    );
}

/** An address at which a file of this device is shown, for as long as it is. */
export function useAddress(blob: Blob | undefined): string | undefined {
    const [url, setUrl] = useState<string>();
    useEffect(() => {
        if (!blob) return undefined;
        const made = URL.createObjectURL(blob);
        setUrl(made);
        return () => URL.revokeObjectURL(made);
    }, [blob]);
    return url;
}

/** Something that is so or not, and takes a moment to change. */
export function Tick(props: { label: string; on: boolean; disabled?: boolean; onChange: (on: boolean) => Promise<boolean> }): JSX.Element {
    const [on, choose] = useChosen(props.on);
    const change = (to: boolean): void => choose(to, props.onChange(to));
    return (
        <label class="select-line">
            <span>{props.label}</span>
            <input type="checkbox" checked={on} disabled={props.disabled ?? false} onChange={(event) => change(event.currentTarget.checked)} />
        </label>
    );
}

/** Something that is on or off, and what that means. */
export function Switch(props: { label: string; hint: string; on: boolean; disabled?: boolean; onChange: (on: boolean) => void }): JSX.Element {
    const id = useId();
    return (
        <div class="switch">
            <label for={id}>{props.label}</label>
            <input id={id} type="checkbox" role="switch" aria-describedby={`${id}-hint`} checked={props.on} disabled={props.disabled ?? false} onChange={(event) => props.onChange(event.currentTarget.checked)} />
            <p class="hint" id={`${id}-hint`}>
                {props.hint}
            </p>
        </div>
    );
}

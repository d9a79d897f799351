/**
 * The line to write in. Enter sends, Shift and Enter makes a new line; on a touch keyboard Enter makes a new line.
 * Files come by the button, by paste, or are dropped on the conversation.
 */
import type { JSX } from "preact";
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { t } from "../domain/i18n.ts";
import type { Context, Timeline } from "../domain/timeline.ts";
import { CompletionList, type Offer, useCompletion } from "./Completion.tsx";
import { later } from "./later.tsx";
import { Attach } from "./media/Attach.tsx";
import { staged, stageFiles } from "./media/staged.ts";
import { Icon, IconButton } from "./parts.tsx";
import { NewPoll } from "./PollView.tsx";

const SendFiles = later(() => import("./media/SendFiles.tsx").then((part) => part.SendFiles), true);
const VoiceRecorder = later(() => import("./media/VoiceRecorder.tsx").then((part) => part.VoiceRecorder), true);

/** Where a page may ask for the microphone, and can keep what it hears. */
const mayRecord = (): boolean => globalThis.isSecureContext && typeof MediaRecorder !== "undefined" && navigator.mediaDevices !== undefined;

export function Composer({ timeline, name }: { timeline: Timeline; name: string }): JSX.Element {
    const [text, setText] = useState(timeline.draft);
    const [caret, setCaret] = useState(0);
    const [asking, setAsking] = useState(false);
    const box = useRef<HTMLTextAreaElement>(null);
    const [recording, setRecording] = useState(false);
    const touch = matchMedia("(pointer: coarse)").matches;
    const context = timeline.context.value;

    useEffect(() => {
        if (!touch) box.current?.focus();
    }, [recording]);
    useLayoutEffect(() => {
        const area = box.current;
        if (!area) return;
        area.style.height = "auto";
        area.style.height = `${area.scrollHeight}px`;
    }, [text, recording]);
    // Before it is on the screen: what is typed from then on is not taken back.
    useLayoutEffect(() => {
        if (!context) return;
        if (context.kind === "edit") setText(context.message.text);
        box.current?.focus();
    }, [context]);

    const change = (value: string): void => {
        setText(value);
        if (value === "" || context?.kind !== "edit") timeline.draft = value;
        timeline.isTyping(value.trim() === "");
    };
    const endContext = (): void => {
        if (context?.kind === "edit") setText(timeline.draft);
        timeline.context.value = undefined;
        box.current?.focus();
    };
    const send = (): void => {
        if (text.trim() === "") return;
        const wasEdit = context?.kind === "edit";
        timeline.send(text);
        if (wasEdit) setText(timeline.draft);
        else change("");
        box.current?.focus();
    };
    const completion = useCompletion(timeline, text.slice(0, caret));
    const complete = ({ text: word, from }: Offer): void => {
        const next = `${text.slice(0, from)}${word} ${text.slice(caret).trimStart()}`;
        const after = from + word.length + 1;
        if (box.current) {
            // At once: whoever writes on before all is drawn anew means to write here.
            box.current.value = next;
            box.current.focus();
            box.current.setSelectionRange(after, after);
        }
        change(next);
        setCaret(0);
    };
    /** Keys that mean the list of completions while there is one. */
    const inCompletion = (key: string): boolean => {
        const { offers, chosen, choose } = completion;
        if (offers.length === 0) return false;
        if (key === "Tab" || key === "Enter") complete(offers[chosen]!);
        else if (key === "Escape") setCaret(0);
        else if (key === "ArrowDown" || key === "ArrowUp") choose(chosen + (key === "ArrowDown" ? 1 : -1));
        else return false;
        return true;
    };
    const keys = (event: KeyboardEvent): void => {
        if (event.isComposing) return;
        if (!event.shiftKey && inCompletion(event.key)) return event.preventDefault();
        if (event.key === "Escape" && context) return endContext();
        if (event.key === "ArrowUp" && text === "") {
            event.preventDefault();
            return timeline.editLast();
        }
        if (event.key !== "Enter" || event.shiftKey || touch) return;
        event.preventDefault();
        send();
    };
    if (recording) return <VoiceRecorder timeline={timeline} onClose={() => setRecording(false)} />;
    return (
        <>
        <form
            class="composer"
            onSubmit={(event) => {
                event.preventDefault();
                send();
            }}
        >
            <CompletionList completion={completion} onPick={complete} />
            {context && <ContextBar context={context} onEnd={endContext} />}
            <Attach timeline={timeline} onPoll={timeline.threadRoot === undefined ? () => setAsking(true) : undefined} />
            <textarea
                ref={box}
                rows={1}
                value={text}
                dir="auto"
                aria-label={timeline.threadRoot === undefined ? t("Message to {name}", { name }) : t("Reply in the thread")}
                placeholder={timeline.threadRoot === undefined ? t("Write a message") : t("Reply in the thread")}
                aria-autocomplete="list"
                aria-controls={completion.offers.length > 0 ? completion.id : undefined}
                aria-activedescendant={completion.offers.length > 0 ? `${completion.id}-${completion.chosen}` : undefined}
                enterkeyhint={touch ? "enter" : "send"}
                onInput={(event) => {
                    setCaret(event.currentTarget.selectionStart);
                    change(event.currentTarget.value);
                }}
                onPaste={(event) => {
                    const files = [...(event.clipboardData?.files ?? [])];
                    // What is copied out of a document comes as a picture of itself, too.
                    const isText = ["text/html", "text/plain"].every((type) => event.clipboardData?.types.includes(type));
                    if (files.length === 0 || isText) return;
                    event.preventDefault();
                    stageFiles(timeline, files);
                }}
                onKeyDown={keys}
            />
            {text.trim() === "" && context?.kind !== "edit" && mayRecord() ? (
                <IconButton icon="mic" label={t("Record a voice message")} onClick={() => setRecording(true)} />
            ) : (
                <button type="submit" class="icon-button filled send" aria-label={context?.kind === "edit" ? t("Save the change") : t("Send")} title={t("Send")} disabled={text.trim() === ""}>
                    <Icon name="send" />
                </button>
            )}
        </form>
        {staged.value?.timeline === timeline && <SendFiles timeline={timeline} files={staged.value.files} onClose={() => (staged.value = undefined)} />}
        {asking && <NewPoll timeline={timeline} onClose={() => setAsking(false)} />}
        </>
    );
}

function ContextBar({ context, onEnd }: { context: Context; onEnd: () => void }): JSX.Element {
    const { kind, message } = context;
    return (
        <div class="context">
            <Icon name={kind === "edit" ? "edit" : "reply"} />
            <span class="quote">
                <strong>{kind === "edit" ? t("Change your message") : t("Reply to {name}", { name: message.senderName })}</strong>
                <span>{message.text.slice(0, 200)}</span>
            </span>
            <IconButton icon="close" label={kind === "edit" ? t("Do not change it") : t("Do not reply")} onClick={onEnd} />
        </div>
    );
}

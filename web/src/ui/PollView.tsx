/** A poll in the timeline, and the form to make one. */
import type { JSX } from "preact";
import { useState } from "preact/hooks";
import type { Message } from "../domain/entries.ts";
import { t } from "../domain/i18n.ts";
import { MAX_ANSWERS, type Poll } from "../domain/polls.ts";
import type { Timeline } from "../domain/timeline.ts";
import { ActionForm, Dialog, Field, Icon } from "./parts.tsx";

export function PollView({ message, poll, timeline }: { message: Message; poll: Poll; timeline: Timeline }): JSX.Element {
    const told = poll.ended || (poll.open && poll.mine.length > 0);
    const most = Math.max(...Object.values(poll.counts));
    const choose = (id: string): void => {
        const others = poll.mine.filter((each) => each !== id);
        if (others.length < poll.mine.length) timeline.vote(message, others); // chosen once more: taken back
        else timeline.vote(message, [...others, id].slice(-poll.choices));
    };
    return (
        <div class="poll" role="group" aria-label={t("Poll: {question}", { question: poll.question })}>
            <strong class="poll-question">{poll.question}</strong>
            {poll.answers.map(({ id, text }) => {
                const count = poll.counts[id] ?? 0;
                const best = poll.ended && count === most && count > 0;
                return (
                    <button key={id} type="button" class={`poll-answer ${best ? "best" : ""}`} aria-pressed={poll.mine.includes(id)} disabled={poll.ended || message.eventId === undefined} onClick={() => choose(id)}>
                        <span class="poll-line">
                            <span>{text}</span>
                            {told && <span class="poll-count">{t("{count} vote|{count} votes", { count })}</span>}
                        </span>
                        {told && <progress value={count} max={Math.max(1, poll.voters)} aria-hidden="true" />}
                    </button>
                );
            })}
            <p class="poll-foot">
                <span>{poll.ended ? t("The poll is over.") : poll.open ? t("{count} vote|{count} votes", { count: poll.voters }) : t("The votes are shown at the end.")}</span>
                {poll.mayEnd && !poll.ended && message.eventId !== undefined && (
                    <button type="button" class="link" onClick={() => timeline.endPoll(message)}>
                        {t("End the poll")}
                    </button>
                )}
            </p>
        </div>
    );
}

export function NewPoll({ timeline, onClose }: { timeline: Timeline; onClose: () => void }): JSX.Element {
    const [question, setQuestion] = useState("");
    const [answers, setAnswers] = useState(["", ""]);
    const [open, setOpen] = useState(true);
    const send = (): Promise<void> => {
        const given = [...new Set(answers.map((answer) => answer.trim()).filter((answer) => answer !== ""))];
        if (given.length < 2) return Promise.reject(new Error(t("Give at least two answers.")));
        timeline.askPoll(question.trim(), given, open);
        onClose();
        return Promise.resolve();
    };
    return (
        <Dialog title={t("New poll")} onClose={onClose}>
            <ActionForm label={t("Ask")} action={send}>
                <Field label={t("Question")} value={question} onInput={setQuestion} required autoFocus />
                {answers.map((answer, i) => (
                    <Field key={i} label={t("Answer {number}", { number: i + 1 })} value={answer} onInput={(value) => setAnswers(answers.map((each, at) => (at === i ? value : each)))} required={i < 2} />
                ))}
                {answers.length < MAX_ANSWERS && (
                    <button type="button" class="button small" onClick={() => setAnswers([...answers, ""])}>
                        <Icon name="plus" /> {t("One more answer")}
                    </button>
                )}
                <label class="check">
                    <input type="checkbox" checked={open} onChange={(event) => setOpen(event.currentTarget.checked)} />
                    {t("Show the votes before the end")}
                </label>
            </ActionForm>
        </Dialog>
    );
}

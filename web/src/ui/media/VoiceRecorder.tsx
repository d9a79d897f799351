/** In place of the line to write in: says that it listens, how loud and how long; then to be heard once more, and sent. */
import type { JSX } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { t } from "../../domain/i18n.ts";
import type { Timeline } from "../../domain/timeline.ts";
import { LOUDEST, playTime } from "../../domain/waveform.ts";
import { Recorder, type Recording } from "../../platform/recorder.ts";
import { Icon, IconButton, Spinner } from "../parts.tsx";
import { Sound, wavePath } from "./Sound.tsx";

/** Levels that are seen at once, the newest at the end. */
const SEEN = 44;
/** Nobody listens longer; the recording ends here and waits to be sent. */
const LONGEST_MS = 60 * 60_000;

type State = { kind: "asking" } | { kind: "recording"; elapsedMs: number; levels: number[] } | { kind: "heard"; recording: Recording; url: string } | { kind: "refused"; why: string };

export function VoiceRecorder({ timeline, onClose }: { timeline: Timeline; onClose: () => void }): JSX.Element {
    const [state, setState] = useState<State>({ kind: "asking" });
    const recorder = useRef<Recorder | undefined>(undefined);
    const focus = useRef<HTMLDivElement>(null);
    useEffect(() => {
        let gone = false;
        const onLevel = (level: number, elapsedMs: number): void => {
            setState((now) => ({ kind: "recording", elapsedMs, levels: [...(now.kind === "recording" ? now.levels : []), level * LOUDEST].slice(-SEEN) }));
            if (elapsedMs > LONGEST_MS) void stop();
        };
        Recorder.start(onLevel).then(
            (started) => {
                if (gone) return started.cancel(); // the microphone came too late
                recorder.current = started;
                setState({ kind: "recording", elapsedMs: 0, levels: [] });
            },
            (error: unknown) => setState({ kind: "refused", why: refusal(error) }),
        );
        return () => {
            gone = true;
            recorder.current?.cancel();
        };
    }, []);
    useEffect(() => {
        focus.current?.querySelector<HTMLElement>("button.filled")?.focus();
        if (state.kind !== "heard") return undefined;
        return () => URL.revokeObjectURL(state.url);
    }, [state.kind]);
    const finish = async (): Promise<Recording | undefined> => {
        const current = recorder.current;
        recorder.current = undefined;
        return current?.stop();
    };
    const stop = async (): Promise<void> => {
        const recording = await finish();
        if (recording) setState({ kind: "heard", recording, url: URL.createObjectURL(recording.blob) });
    };
    const send = async (): Promise<void> => {
        const recording = state.kind === "heard" ? state.recording : await finish();
        if (!recording) return;
        const { blob, durationMs, waveform, ending } = recording;
        timeline.sendFile({ blob, name: t("Voice message") + ending, kind: "audio", durationMs, waveform });
        onClose();
    };
    return (
        <div
            ref={focus}
            class="composer recorder"
            role="group"
            aria-label={t("Voice message")}
            onKeyDown={(event) => {
                if (event.key !== "Escape") return;
                event.preventDefault();
                onClose();
            }}
        >
            <IconButton icon={state.kind === "refused" ? "close" : "bin"} label={state.kind === "refused" ? t("Close") : t("Discard the recording")} onClick={onClose} />
            <RecorderState state={state} />
            {state.kind === "recording" && <IconButton icon="stop" label={t("Stop and listen")} onClick={() => void stop()} />}
            {(state.kind === "recording" || state.kind === "heard") && (
                <button type="button" class="icon-button filled send" aria-label={t("Send")} title={t("Send")} onClick={() => void send()}>
                    <Icon name="send" />
                </button>
            )}
        </div>
    );
}

function RecorderState({ state }: { state: State }): JSX.Element {
    switch (state.kind) {
        case "asking":
            return (
                <p class="recorder-words">
                    <Spinner label={t("Loading")} /> {t("The browser asks for the microphone.")}
                </p>
            );
        case "refused":
            return (
                <p class="recorder-words error" role="alert">
                    {state.why}
                </p>
            );
        case "heard":
            return <Sound name={t("Voice message")} durationMs={state.recording.durationMs} waveform={state.recording.waveform} load={() => Promise.resolve(state.url)} />;
        case "recording":
            return (
                <div class="recorder-words" dir="ltr">
                    <span class="recorder-light" aria-hidden="true" />
                    <span class="recorder-time" role="timer" aria-label={t("Recording")}>
                        {playTime(state.elapsedMs)}
                    </span>
                    <svg class="recorder-wave" viewBox="0 0 176 28" preserveAspectRatio="none" aria-hidden="true">
                        <path class="wave-done" d={wavePath([...new Array<number>(SEEN - state.levels.length).fill(0), ...state.levels])} />
                    </svg>
                </div>
            );
    }
}

function refusal(error: unknown): string {
    const name = (error as { name?: unknown } | null)?.name;
    if (name === "NotAllowedError" || name === "SecurityError") return t("The microphone is not allowed here. Allow it beside the address of this page, or in the settings of the browser, and try again.");
    if (name === "NotFoundError") return t("No microphone was found.");
    if (name === "NotReadableError") return t("Another program uses the microphone.");
    return t("The microphone cannot be used.");
}

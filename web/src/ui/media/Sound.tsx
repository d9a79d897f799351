/** Plays voice messages and other recordings: seen as a wave, moved in by mouse, finger and keys, faster if wanted. */
import type { JSX } from "preact";
import { useEffect, useId, useRef, useState } from "preact/hooks";
import { t } from "../../domain/i18n.ts";
import { LOUDEST, playTime, resample } from "../../domain/waveform.ts";
import { Icon, Spinner } from "../parts.tsx";

/** Bars of the wave, and their place in the drawing. */
const BARS = 44;
const STEP = 4;
const HEIGHT = 28;
/** What the arrow keys move by. */
const KEY_SECONDS = 5;
const RATES = [1, 1.5, 2] as const;

/** The one that plays: another one that begins ends it. */
let playing: HTMLAudioElement | undefined;
/** Whoever listens faster listens faster to the next one, too. */
let lastRate: number = RATES[0];

interface Player {
    state: "idle" | "loading" | "playing" | "failed";
    /** In seconds. */
    at: number;
    length: number;
    rate: number;
    toggle(): void;
    seek(to: number): void;
    nextRate(): void;
}

function usePlayer(load: () => Promise<string>, knownMs: number | undefined): Player {
    const audio = useRef<HTMLAudioElement | undefined>(undefined);
    const frame = useRef(0);
    const [state, setState] = useState<Player["state"]>("idle");
    const [at, setAt] = useState(0);
    const [length, setLength] = useState((knownMs ?? 0) / 1000);
    const [rate, setRate] = useState(lastRate);
    useEffect(
        () => () => {
            cancelAnimationFrame(frame.current);
            audio.current?.pause();
        },
        [],
    );
    const follow = (): void => {
        setAt(audio.current!.currentTime);
        frame.current = requestAnimationFrame(follow);
    };
    const open = async (): Promise<HTMLAudioElement> => {
        if (audio.current) return audio.current;
        const made = new Audio(await load());
        await lengthKnown(made);
        if (Number.isFinite(made.duration)) setLength(made.duration);
        made.addEventListener("play", () => {
            setState("playing");
            cancelAnimationFrame(frame.current);
            follow();
        });
        made.addEventListener("pause", () => {
            setState("idle");
            cancelAnimationFrame(frame.current);
        });
        made.addEventListener("ended", () => {
            made.currentTime = 0;
            setAt(0);
        });
        return (audio.current = made);
    };
    const attempt = (action: (audio: HTMLAudioElement) => Promise<void> | void): void => {
        if (!audio.current) setState("loading");
        open().then(action).then(() => setState((now) => (now === "loading" ? "idle" : now)), () => setState("failed"));
    };
    const seek = (to: number): void => {
        const place = Math.min(Math.max(0, to), Math.max(0, length - 0.05));
        setAt(place);
        attempt((opened) => void (opened.currentTime = place));
    };
    const toggle = (): void => {
        attempt(async (opened) => {
            if (!opened.paused) return opened.pause();
            if (playing !== opened) playing?.pause();
            playing = opened;
            opened.playbackRate = lastRate;
            setRate(lastRate);
            await opened.play();
        });
    };
    const nextRate = (): void => {
        lastRate = RATES[(RATES.indexOf(rate as (typeof RATES)[number]) + 1) % RATES.length]!;
        setRate(lastRate);
        if (audio.current) audio.current.playbackRate = lastRate;
    };
    return { state, at, length, rate, toggle, seek, nextRate };
}

/** What browsers record does not say how long it is, until one has been at its end. */
function lengthKnown(audio: HTMLAudioElement): Promise<void> {
    return new Promise((resolve, reject) => {
        audio.addEventListener("error", () => reject(new Error("cannot be played")), { once: true });
        audio.addEventListener("loadedmetadata", () => {
            if (audio.duration !== Infinity) return resolve();
            audio.addEventListener("durationchange", () => {
                audio.currentTime = 0;
                resolve();
            }, { once: true });
            audio.currentTime = Number.MAX_SAFE_INTEGER;
        }, { once: true });
    });
}

export interface SoundProps {
    name: string;
    durationMs: number | undefined;
    /** Absent where there is none: then it is a line. */
    waveform: readonly number[] | undefined;
    load: () => Promise<string>;
    onSave?: () => void;
}

/** From left to right in every language, as the time of a recording runs. */
export function Sound({ name, durationMs, waveform, load, onSave }: SoundProps): JSX.Element {
    const player = usePlayer(load, durationMs);
    const { state, at, length } = player;
    return (
        <div class="sound" role="group" aria-label={name} dir="ltr">
            <button type="button" class="icon-button filled" aria-label={state === "playing" ? t("Pause") : t("Play {name}", { name })} onClick={player.toggle}>
                {state === "loading" ? <Spinner label={t("Loading")} /> : <Icon name={state === "playing" ? "pause" : "play"} />}
            </button>
            <div class="sound-middle">
                <Wave player={player} waveform={waveform} />
                <span class="sound-foot">
                    {state === "failed" ? <span role="alert">{t("The file could not be loaded.")}</span> : <span>{playTime((state === "playing" || at > 0 ? at : length) * 1000)}</span>}
                    {onSave && (
                        <button type="button" class="sound-small" onClick={onSave}>
                            {t("Save")}
                        </button>
                    )}
                </span>
            </div>
            <button type="button" class="sound-rate" aria-label={t("Speed: {rate}", { rate: player.rate })} onClick={player.nextRate}>
                {player.rate}×
            </button>
        </div>
    );
}

function Wave({ player, waveform }: { player: Player; waveform: readonly number[] | undefined }): JSX.Element {
    const clip = useId();
    const box = useRef<HTMLDivElement>(null);
    const { at, length, seek } = player;
    const done = length > 0 ? Math.min(1, at / length) : 0;
    const path = waveform && waveform.length > 0 ? wavePath(waveform) : `M0 ${HEIGHT / 2}H${BARS * STEP}`;
    const follow = (event: PointerEvent): void => {
        const { left, width } = box.current!.getBoundingClientRect();
        seek(((event.clientX - left) / width) * length);
    };
    const keys = (event: KeyboardEvent): void => {
        const to = { ArrowRight: at + KEY_SECONDS, ArrowUp: at + KEY_SECONDS, ArrowLeft: at - KEY_SECONDS, ArrowDown: at - KEY_SECONDS, Home: 0, End: length }[event.key];
        if (event.key === " " || event.key === "Enter") player.toggle();
        else if (to === undefined) return;
        else seek(to);
        event.preventDefault();
        event.stopPropagation(); // the arrows go from message to message elsewhere
    };
    return (
        <div
            ref={box}
            class="wave"
            role="slider"
            tabIndex={0}
            aria-label={t("Place in the recording")}
            aria-valuemin={0}
            aria-valuemax={Math.round(length)}
            aria-valuenow={Math.round(at)}
            aria-valuetext={t("{at} of {length}", { at: playTime(at * 1000), length: playTime(length * 1000) })}
            onKeyDown={keys}
            onPointerDown={(event) => {
                if (event.button !== 0) return;
                event.stopPropagation(); // no long press
                box.current!.setPointerCapture(event.pointerId);
                follow(event);
            }}
            onPointerMove={(event) => box.current!.hasPointerCapture(event.pointerId) && follow(event)}
        >
            <svg viewBox={`0 0 ${BARS * STEP} ${HEIGHT}`} preserveAspectRatio="none" aria-hidden="true">
                <clipPath id={clip}>
                    <rect x="0" y="0" width={done * BARS * STEP} height={HEIGHT} />
                </clipPath>
                <path class="wave-all" d={path} />
                <path class="wave-done" d={path} clip-path={`url(#${clip})`} />
            </svg>
        </div>
    );
}

/** A line for each bar, from the middle to both sides. */
export function wavePath(waveform: readonly number[], bars = BARS): string {
    return resample(waveform, bars)
        .map((value, i) => {
            const half = Math.max(1, ((value / LOUDEST) * (HEIGHT - 4)) / 2);
            return `M${i * STEP + STEP / 2} ${(HEIGHT / 2 - half).toFixed(1)}v${(2 * half).toFixed(1)}`;
        })
        .join("");
}

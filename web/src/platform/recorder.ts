/** Records what somebody says, and how loud it is. Loaded with the first voice message. */
import { waveformOf } from "../domain/waveform.ts";

export interface Recording {
    blob: Blob;
    durationMs: number;
    waveform: number[];
    /** How the file's name ends. */
    ending: string;
}

/** In the order of what other clients play best. Opus is what voice messages are in; Safari of old knows AAC alone. */
const FORMATS = [
    ["audio/ogg;codecs=opus", ".ogg"],
    ["audio/webm;codecs=opus", ".webm"],
    ["audio/mp4", ".m4a"],
] as const;
/** Speech in Opus is clear at this. */
const BITS_PER_SECOND = 32_000;
/** How often the level is taken. */
const LEVEL_MS = 60;
/** Speech is seldom louder than this part of what can be recorded; levels are shown against it. */
const LOUD = 0.35;

export class Recorder {
    private readonly levels: number[] = [];
    private readonly parts: Blob[] = [];
    private readonly begun = performance.now();
    private readonly timer: ReturnType<typeof setInterval>;
    private readonly ended: Promise<void>;

    private constructor(
        private readonly stream: MediaStream,
        private readonly recorder: MediaRecorder,
        private readonly sound: AudioContext,
        private readonly ending: string,
        onLevel: (level: number, elapsedMs: number) => void,
    ) {
        const analyser = sound.createAnalyser();
        sound.createMediaStreamSource(stream).connect(analyser);
        const samples = new Float32Array(analyser.fftSize);
        this.timer = setInterval(() => {
            analyser.getFloatTimeDomainData(samples);
            const level = Math.min(1, Math.sqrt(samples.reduce((sum, each) => sum + each * each, 0) / samples.length) / LOUD);
            this.levels.push(level);
            onLevel(level, performance.now() - this.begun);
        }, LEVEL_MS);
        recorder.addEventListener("dataavailable", ({ data }) => void (data.size > 0 && this.parts.push(data)));
        this.ended = new Promise((resolve) => recorder.addEventListener("stop", () => resolve(), { once: true }));
        recorder.start();
    }

    /** Asks for the microphone and begins. Throws what the browser throws. `onLevel` is told from 0 to 1. */
    static async start(onLevel: (level: number, elapsedMs: number) => void): Promise<Recorder> {
        const stream = await navigator.mediaDevices.getUserMedia({ audio: { echoCancellation: true, noiseSuppression: true, autoGainControl: true } });
        const [mimeType, ending] = FORMATS.find(([type]) => MediaRecorder.isTypeSupported(type)) ?? ["", ".webm"];
        const recorder = new MediaRecorder(stream, { ...(mimeType === "" ? {} : { mimeType }), audioBitsPerSecond: BITS_PER_SECOND });
        return new Recorder(stream, recorder, new AudioContext(), ending, onLevel);
    }

    async stop(): Promise<Recording> {
        const durationMs = performance.now() - this.begun;
        if (this.recorder.state !== "inactive") this.recorder.stop();
        await this.ended;
        this.release();
        const type = this.recorder.mimeType || "audio/webm";
        return { blob: new Blob(this.parts, { type }), durationMs, waveform: waveformOf(this.levels), ending: this.ending };
    }

    cancel(): void {
        if (this.recorder.state !== "inactive") this.recorder.stop();
        this.release();
    }

    /** The browser shows that the microphone is on until every track has stopped. */
    private release(): void {
        clearInterval(this.timer);
        for (const track of this.stream.getTracks()) track.stop();
        if (this.sound.state !== "closed") void this.sound.close();
    }
}

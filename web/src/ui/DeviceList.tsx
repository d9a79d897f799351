/** Where one is signed in, and the way out of there. */
import type { JSX } from "preact";
import { useEffect, useState } from "preact/hooks";
import type { Chat } from "../domain/chat.ts";
import type { Device } from "../domain/devices.ts";
import { t } from "../domain/i18n.ts";
import { ActionForm, Dialog, Field, Icon, IconButton, Spinner } from "./parts.tsx";
import { exactTime } from "./time.ts";

export function DeviceList({ chat, onClose }: { chat: Chat; onClose: () => void }): JSX.Element {
    const [devices, setDevices] = useState<Device[]>();
    const [error, setError] = useState<string>();
    const [leaving, setLeaving] = useState<Device[]>();
    const load = (): void => void chat.devices.list().then(setDevices, (failure: unknown) => setError((failure as Error).message));
    // Looks again when a device came, or was verified.
    useEffect(load, [chat.devices.fresh.value, chat.verifications.current.value]);
    const others = (devices ?? []).filter((device) => !device.current);
    if (leaving) {
        return (
            <SignOutOthers
                chat={chat}
                devices={leaving}
                onClose={() => {
                    setLeaving(undefined);
                    load();
                }}
            />
        );
    }
    return (
        <Dialog title={t("Your devices")} onClose={onClose}>
            {error !== undefined && (
                <p class="error" role="alert">
                    {error}
                </p>
            )}
            {!devices && error === undefined && <Spinner label={t("Working")} />}
            <ul class="devices">
                {devices?.map((device) => (
                    <DeviceRow key={device.id} chat={chat} device={device} onRenamed={load} onSignOut={() => setLeaving([device])} onVerify={onClose} />
                ))}
            </ul>
            {others.length > 1 && (
                <button type="button" class="button danger" onClick={() => setLeaving(others)}>
                    {t("Sign out everywhere else")}
                </button>
            )}
        </Dialog>
    );
}

function trustWords(device: Device): string {
    if (device.trust === "verified") return t("Verified");
    return device.trust === "unverified" ? t("Not verified") : t("Does not encrypt");
}

function DeviceRow(props: { chat: Chat; device: Device; onRenamed: () => void; onSignOut: () => void; onVerify: () => void }): JSX.Element {
    const { chat, device } = props;
    const [name, setName] = useState<string>();
    const [error, setError] = useState<string>();
    const verify = (): void => void chat.verifications.askDevice(device.id).then(props.onVerify, (failure: unknown) => setError((failure as Error).message));
    const rename = async (): Promise<void> => {
        await chat.devices.rename(device.id, name ?? "");
        setName(undefined);
        props.onRenamed();
    };
    return (
        <li class="device">
            <div class="device-head">
                <Icon name="device" />
                <span class="room-text">
                    <strong>{device.name}</strong>
                    <span class="hint">{device.current ? t("This device") : device.seen > 0 ? t("Last used: {time}", { time: exactTime(device.seen) }) : t("Not used yet")}</span>
                    <span class={`hint trust-${device.trust}`}>
                        <Icon name={device.trust === "verified" ? "shield" : "warning"} /> {trustWords(device)}
                    </span>
                </span>
                <IconButton icon="edit" label={t("Rename {name}", { name: device.name })} onClick={() => setName(name === undefined ? device.name : undefined)} />
            </div>
            {name !== undefined && (
                <ActionForm label={t("Save")} action={rename}>
                    <Field label={t("Name of the device")} value={name} onInput={setName} autoFocus required />
                </ActionForm>
            )}
            {!device.current && (
                <div class="buttons">
                    {device.trust === "unverified" && chat.encryption.state.value === "ready" && (
                        <button type="button" class="button small" onClick={verify}>
                            {t("Compare pictures")}
                        </button>
                    )}
                    <button type="button" class="button small danger" onClick={props.onSignOut}>
                        {t("Sign out")}
                    </button>
                </div>
            )}
            {error !== undefined && (
                <p class="error" role="alert">
                    {error}
                </p>
            )}
        </li>
    );
}

function SignOutOthers({ chat, devices, onClose }: { chat: Chat; devices: Device[]; onClose: () => void }): JSX.Element {
    const [password, setPassword] = useState("");
    const signOut = async (): Promise<void> => {
        await chat.devices.signOut(devices.map((device) => device.id), password); // prettier-ignore
        onClose();
    };
    return (
        <Dialog title={devices.length === 1 ? t("Sign out “{name}”", { name: devices[0]!.name }) : t("Sign out everywhere else")} onClose={onClose}>
            <p>{t("What is stored there is removed as soon as it is online. Sign-ins that you did not make yourself are a reason to change your password.")}</p>
            <ActionForm label={t("Sign out")} action={signOut} danger>
                <Field label={t("Password")} type="password" value={password} onInput={setPassword} autoComplete="current-password" autoFocus required />
            </ActionForm>
        </Dialog>
    );
}

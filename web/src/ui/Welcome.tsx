/** The first screen: sign in, or make an account. */
import type { JSX } from "preact";
import { useEffect, useState } from "preact/hooks";
import { t } from "../domain/i18n.ts";
import type { App } from "../domain/app.ts";
import type { SignUpForm } from "../domain/auth.ts";
import { describeError } from "../domain/errors.ts";
import { applyLook, loadLook } from "../platform/theme.ts";
import { LanguageField } from "./LanguageField.tsx";
import { ActionForm, Field, Spinner } from "./parts.tsx";
import { go, route } from "./route.ts";

export function Welcome({ app, why }: { app: App; why: string | undefined }): JSX.Element {
    useEffect(() => void app.loadInfo(), []);
    const info = app.info.value;
    const at = route.value;
    const signUp = at.page === "signup";
    return (
        <div class="welcome">
            {info?.testMode && (
                <p class="test-banner" role="note">
                    <strong>{t("Test mode.")}</strong> {t("Anyone can make an account here, weak passwords are let through, and nothing is kept safe. Do not use it for real conversations.")}
                </p>
            )}
            <main class="welcome-main">
                <header class="brand">
                    <span class="mark" aria-hidden="true">
                        <i />
                        <i />
                        <i />
                    </span>
                    <h1>hubbub</h1>
                    <p>{info?.serverName ? t("Conversations on {server}", { server: info.serverName }) : t("Conversations, calm and quick")}</p>
                </header>
                <section class="card" aria-label={signUp ? t("Create an account") : t("Sign in")}>
                    <nav class="tabs" aria-label={t("Way in")}>
                        <a href="#/signin" aria-current={signUp ? undefined : "page"}>
                            {t("Sign in")}
                        </a>
                        <a href="#/signup" aria-current={signUp ? "page" : undefined}>
                            {t("Create account")}
                        </a>
                    </nav>
                    {why && !signUp && <p class="notice-box">{why}</p>}
                    {signUp ? <SignUpFields key="up" app={app} token={at.page === "signup" ? at.token : ""} /> : <SignInFields key="in" app={app} />}
                </section>
            </main>
            <footer class="welcome-foot">
                <LanguageField value={loadLook().language} onChange={(language) => void applyLook({ ...loadLook(), language })} />
            </footer>
        </div>
    );
}

function SignInFields({ app }: { app: App }): JSX.Element {
    const [name, setName] = useState("");
    const [password, setPassword] = useState("");
    const signIn = async (): Promise<void> => {
        await app.signIn(name, password);
        if (route.value.page === "signin") go({ page: "rooms" }, true);
    };
    return (
        <ActionForm label={t("Sign in")} action={signIn}>
            <Field label={t("Name")} value={name} onInput={setName} autoComplete="username" autoFocus required />
            <Field label={t("Password")} type="password" value={password} onInput={setPassword} autoComplete="current-password" required />
        </ActionForm>
    );
}

function SignUpFields({ app, token: given }: { app: App; token: string }): JSX.Element {
    const [form, setForm] = useState<SignUpForm>();
    const [failed, setFailed] = useState<string>();
    const [attempt, setAttempt] = useState(0);
    const [name, setName] = useState("");
    const [password, setPassword] = useState("");
    const [token, setToken] = useState(given);
    useEffect(() => {
        setFailed(undefined);
        app.auth.signUpForm().then(setForm, (error: unknown) => setFailed(describeError(error, "sign-up")));
    }, [attempt]);
    useEffect(() => setToken(given), [given]);

    if (failed !== undefined) {
        return (
            <div class="form">
                <p class="error" role="alert">
                    {failed}
                </p>
                <button type="button" class="button" onClick={() => setAttempt(attempt + 1)}>
                    {t("Try again")}
                </button>
            </div>
        );
    }
    if (!form) return <Spinner label={t("Asking the server")} />;
    if (form.kind === "closed") return <p class="notice-box">{form.reason ?? t("New accounts are not open on this server. Ask whoever runs it.")}</p>;

    const signUp = async (): Promise<void> => {
        await app.signUp({ username: name, password, token });
        go({ page: "rooms" }, true); // the token leaves the address, too
    };
    const serverName = app.info.value?.serverName;
    return (
        <ActionForm label={t("Create account")} action={signUp}>
            <Field
                label={t("Name")}
                value={name}
                onInput={setName}
                autoComplete="username"
                hint={serverName ? t("Others find you as {id}", { id: `@${name.trim().toLowerCase() || t("name")}:${serverName}` }) : t("Small letters and digits")}
                autoFocus
                required
            />
            <Field label={t("Password")} type="password" value={password} onInput={setPassword} autoComplete="new-password" hint={t("Long is better than odd")} required />
            {(form.offersToken || given !== "") && (
                <Field
                    label={form.needsToken ? t("Registration token") : t("Registration token, if you have one")}
                    value={token}
                    onInput={setToken}
                    hint={form.needsToken ? t("Whoever runs this server gives it to you") : ""}
                    required={form.needsToken}
                />
            )}
        </ActionForm>
    );
}

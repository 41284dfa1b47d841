// The token of a control listener on TCP becomes a cookie, which scripts cannot read.
import { useEffect, useRef, useState } from "preact/hooks";
import { html } from "./parts.js";
import { OUT, getJson, postJson } from "./api.js";

// Whether this listener wants a token, and whether one was given: until an answer says 401.
export function useLogin() {
  const [login, setLogin] = useState({ needed: false, in: true });
  const look = () => getJson("/login").then(setLogin, () => undefined);
  useEffect(() => {
    const out = () => setLogin((old) => ({ ...old, needed: true, in: false }));
    window.addEventListener(OUT, out);
    look();
    return () => window.removeEventListener(OUT, out);
  }, []);
  return { ...login, look };
}

export const logOut = (look) => postJson("/logout").then(look, look);

export function Login({ look }) {
  const [error, setError] = useState(null);
  const [busy, setBusy] = useState(false);
  const field = useRef(null);
  useEffect(() => field.current?.focus(), []);
  const send = async (event) => {
    event.preventDefault();
    setBusy(true);
    try {
      await postJson("/login", { token: field.current.value });
      field.current.value = "";
      await look();
    } catch (failed) {
      setError(failed);
      field.current.select();
    }
    setBusy(false);
  };
  return html`<form class="login" onSubmit=${send}>
    <h1>Log in</h1>
    <p>
      This listener asks for its token: the content of its file${" "}
      <code>control.listeners[].token_file</code>. Without one, forward the gateway's socket:
    </p>
    <pre>ssh -N -L 9000:/run/tailrace/control.sock HOST</pre>
    <label for="token">Token</label>
    <input
      id="token"
      ref=${field}
      type="password"
      autocomplete="current-password"
      required
      aria-describedby="login-error"
      aria-invalid=${error ? "true" : undefined}
    />
    <p id="login-error" class="worse" role="alert">${error ? error.message : ""}</p>
    <button class="main" disabled=${busy}>Log in</button>
    <p class="quiet">It lasts 12 hours, or 2 without a request.</p>
  </form>`;
}

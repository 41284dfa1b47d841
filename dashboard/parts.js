// Pieces that several views are made of.
import { h } from "preact";
import { useEffect, useState } from "preact/hooks";
import htm from "htm";
import { getJson, query } from "./api.js";
import { setQuery } from "./router.js";

export const html = htm.bind(h);

export const PHASES = [
  "head",
  "admit",
  "queue",
  "retry",
  "connect",
  "dispatch",
  "send",
  "wait",
  "reply_head",
  "reply",
  "stream",
  "drain",
];
export const KINDS = [
  "run",
  "ready",
  "wait",
  "thread_queue",
  "thread_run",
  "unattributed",
  "no_profile",
];

// How something changed, as a class: less than a tenth says nothing, nor does what is not certain.
export function verdict(share, certain) {
  if (!certain) return "quiet";
  return share > 0.1 ? "worse" : share < -0.1 ? "better" : "quiet";
}

// How many of bands [low, high, count] lie beyond `at`, and of how many; within a band they are
// taken for evenly spread.
function beyond(bands, at) {
  const part = ([low, high]) => Math.min(Math.max((high - at) / (high - low || 1), 0), 1);
  return bands.reduce(([k, n], b) => [k + part(b) * b[2], n + b[2]], [0, 0]);
}

// Whether the shares of two sides beyond `at` differ by three standard errors.
export function differs(before, after, at) {
  const [k, n] = beyond(before, at),
    [l, m] = beyond(after, at);
  const p = (k + l) / (n + m);
  return n > 0 && m > 0 && Math.abs(k / n - l / m) > 3 * Math.sqrt(p * (1 - p) * (1 / n + 1 / m));
}

// The answer of a path, asked again every `everyMs` (or what that says of the answer) while the
// page is seen; the old answer stays while a new one is on its way, and when one fails. `everyMs`
// is the same at every call; another `get` asks at once, and the old answer stays till then.
export function useApi(path, everyMs = 0, get = getJson) {
  const [state, setState] = useState({ data: null, error: null, path: null });
  const [turn, setTurn] = useState(0);
  useEffect(() => {
    if (!path) return undefined;
    const abort = new AbortController();
    let timer,
      rest = Number(everyMs) || 0;
    const load = async () => {
      try {
        const data = await get(path, abort.signal);
        setState({ data, error: null, path });
        if (typeof everyMs === "function") rest = everyMs(data);
      } catch (error) {
        if (abort.signal.aborted) return;
        setState((old) => ({ data: old.path === path ? old.data : null, error, path }));
      }
      if (rest && !abort.signal.aborted) timer = setTimeout(tick, rest);
    };
    const tick = () => (document.hidden ? (timer = setTimeout(tick, rest)) : load());
    load();
    return () => {
      abort.abort();
      clearTimeout(timer);
    };
  }, [path, everyMs, get, turn]);
  const fresh = state.path === path;
  return {
    data: fresh ? state.data : null,
    error: fresh ? state.error : null,
    again: () => setTurn(turn + 1),
  };
}

const ADVICE = {
  0: "Is tailrace running? Look at its log. This page tries again by itself.",
  401: "This listener asks for a token: log in.",
  403: "This listener does not let this user in (control.listeners[].allow_users).",
  404: "It may have been evicted, or was never kept: see store.keep_slowest and store.max_bytes.",
  503: "The collector is busy; it will answer again.",
  foreign_host: "Open the page by an address or as localhost, or set alerts.dashboard_url.",
};

export function Failure({ error, again }) {
  const advice = ADVICE[error.code] ?? ADVICE[error.status];
  return html`<div class="note bad" role="alert">
    <p><strong>${error.message}</strong></p>
    ${advice && html`<p>${advice}</p>`}
    ${again && html`<button onClick=${again}>Try again</button>`}
  </div>`;
}

export function Loading() {
  return html`<p class="quiet" role="status">Loading…</p>`;
}

// What a view shows of an answer: itself, why there is none, or that it is on its way.
export function Answer({ of, children }) {
  if (of.data) return [of.error && html`<${Failure} ...${of} />`, children(of.data)];
  return of.error ? html`<${Failure} error=${of.error} again=${of.again} />` : html`<${Loading} />`;
}

export function State({ state }) {
  if (!state)
    return html`<span class="quiet" title="too few requests for the detector to know it">–</span>`;
  return html`<span class=${`state ${state}`}>${state.replaceAll("_", " ")}</span>`;
}

function Part({ of, total }) {
  const width = `${(of.value / total) * 100}%`;
  return html`<span class=${`part ${of.class}`} style=${{ width }}></span>`;
}

// Shares of a whole as one bar; names and numbers are in its title and for screen readers.
export function ShareBar({ parts, total, label }) {
  const shown = parts.filter((p) => p.value > 0);
  const text = shown.map((p) => `${p.name} ${((p.value / total) * 100).toFixed(1)} %`).join(", ");
  return html`<span class="sharebar" role="img" aria-label=${`${label}: ${text}`} title=${text}>
    ${total > 0 && shown.map((p) => html`<${Part} of=${p} total=${total} />`)}
  </span>`;
}

export function Sparkline({ values, label }) {
  const known = values.filter((v) => v !== null);
  const most = Math.max(...known, 1);
  const width = 120,
    height = 20,
    step = width / Math.max(values.length - 1, 1);
  const lines = [];
  let run = [];
  values.forEach((v, i) => {
    if (v === null) {
      if (run.length) lines.push(run);
      run = [];
    } else {
      run.push([i * step, height - 1 - (v / most) * (height - 3)]);
    }
  });
  if (run.length) lines.push(run);
  return html`<svg class="spark" viewBox=${`0 0 ${width} ${height}`} role="img" aria-label=${label}>
    ${lines.map((l) =>
      l.length === 1
        ? html`<circle cx=${l[0][0]} cy=${l[0][1]} r="1.5" />`
        : html`<polyline points=${l.map((p) => p.join(",")).join(" ")} />`,
    )}
  </svg>`;
}

export function Frame({ frame }) {
  return html`<span
    class=${frame.in_app ? "frame app" : "frame"}
    title=${`${frame.file}:${frame.line}`}
  >
    ${frame.module}<span class="quiet">:</span>${frame.function}<span class="quiet"
      >${frame.in_app ? ` ${frame.file}:${frame.line}` : ""}</span
    ></span
  >`;
}

// Where a row's time went: its frame with the line that it stood at, or what else is known.
export function Where({ of: r, look = "" }) {
  const at = r.stack?.findLast((f) => `${f.module}:${f.function}` === r.frame);
  const all = r.stack?.map((f) => `${f.module}:${f.function} ${f.file}:${f.line}`).join("\n");
  const name = r.frame ?? r.cause ?? r.kind;
  return html`<span class=${look} title=${all}
    >${name}${at && html` <span class="quiet">${at.file}:${at.line}</span>`}</span
  >`;
}

// What `/` leads to: a filter that stands in the address as q.
export function Search({ what, value, main = true, onChange }) {
  const label = `Filter ${what}`;
  return html`<input
    type="search"
    id=${main ? "search" : undefined}
    placeholder=${main ? `${label} ( / )` : label}
    aria-label=${label}
    value=${value ?? ""}
    onInput=${(e) => (onChange ?? ((q) => setQuery({ q }, true)))(e.target.value)}
  />`;
}

// Whether frames of the server and of libraries are shown too: stands in the address as frames.
export function AllFrames({ on }) {
  return html`<label
    ><input
      type="checkbox"
      checked=${on}
      onChange=${(e) => setQuery({ frames: e.target.checked ? "all" : "" }, true)}
    />
    library frames too</label
  >`;
}

// Whether `text` has all words of a filter in it.
export function matches(text, wanted) {
  const lower = text.toLowerCase();
  return (wanted ?? "")
    .toLowerCase()
    .split(/\s+/)
    .every((word) => lower.includes(word));
}

export const WINDOWS = { "15m": 900, "1h": 3600, "6h": 21600, "1d": 86400, "7d": 604800 };

// How to ask for a path that names a window: as the span that it is at this moment. Other paths are
// asked for as they are.
export function upToNow(path, signal) {
  const [base, text] = path.split("?");
  const { window, ...others } = Object.fromEntries(new URLSearchParams(text));
  if (!window) return getJson(path, signal);
  const to = Math.floor(Date.now() / 1000);
  return getJson(base + query({ ...others, from: to - (WINDOWS[window] ?? 3600), to }), signal);
}

// The span that is looked at, from now back; `clears` are parameters that lie in the old one.
export function Window({ value, clears = {} }) {
  return html`<label
    >Last
    <select value=${value} onChange=${(e) => setQuery({ window: e.target.value, ...clears })}>
      ${Object.keys(WINDOWS).map((w) => html`<option value=${w}>${w}</option>`)}
    </select></label
  >`;
}

// Numbers that are read at a glance: [name, value, what it means, class].
export function Tiles({ of }) {
  return html`<dl class="tiles">
    ${of.map(
      ([name, value, what, look = ""]) =>
        html`<div title=${what}>
          <dt>${name}</dt>
          <dd class=${look}>${value}</dd>
        </div>`,
    )}
  </dl>`;
}

// What the colours of bars and charts mean; `names` without their prefix.
export function Legend({ names, prefix, look = "" }) {
  return html`<p class=${`legend quiet ${look}`}>
    ${names.map(
      (n) =>
        html`<span class="key"
          ><span class=${`swatch ${prefix}-${n}`}></span>${n.replaceAll("_", " ")}</span
        >`,
    )}
  </p>`;
}

// Of some phases or kinds those that are worth a colour: half a percent of one bar, or more.
export function worthShowing(names, bars) {
  const whole = (bar) => names.reduce((sum, name) => sum + (bar[name] ?? 0), 0) || 1;
  const sums = bars.map((bar) => [bar, whole(bar)]);
  return names.filter((name) => sums.some(([bar, sum]) => (bar[name] ?? 0) / sum >= 0.005));
}

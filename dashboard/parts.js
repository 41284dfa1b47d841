// Pieces that several views are made of.
import { h } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import htm from "htm";
import { getJson } from "./api.js";
import { download, toCsv } from "./format.js";

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

// The answer of a path, asked again every `everyMs` while the page is seen; the old answer stays
// while a new one is on its way, and when one fails.
export function useApi(path, everyMs = 0) {
  const [state, setState] = useState({ data: null, error: null, path: null });
  const [turn, setTurn] = useState(0);
  useEffect(() => {
    if (!path) return undefined;
    const abort = new AbortController();
    let timer;
    const load = async () => {
      try {
        const data = await getJson(path, abort.signal);
        setState({ data, error: null, path });
      } catch (error) {
        if (abort.signal.aborted) return;
        setState((old) => ({ data: old.path === path ? old.data : null, error, path }));
      }
      if (everyMs && !abort.signal.aborted) timer = setTimeout(tick, everyMs);
    };
    const tick = () => (document.hidden ? (timer = setTimeout(tick, everyMs)) : load());
    load();
    return () => {
      abort.abort();
      clearTimeout(timer);
    };
  }, [path, everyMs, turn]);
  const fresh = state.path === path;
  return {
    data: fresh ? state.data : null,
    error: fresh ? state.error : null,
    again: () => setTurn(turn + 1),
  };
}

export function Failure({ error, again }) {
  const login = error.status === 401;
  const advice = {
    0: "Is tailrace running? Look at its log. This page tries again by itself.",
    401: "This listener asks for a token: log in.",
    403: "This listener does not let this user in (control.listeners[].allow_users).",
    404: "It may have been evicted, or was never kept: see store.keep_slowest and store.max_bytes.",
    503: "The collector is busy; it will answer again.",
  }[error.status];
  return html`<div class="note bad" role="alert">
    <p><strong>${error.message}</strong></p>
    ${advice && html`<p>${advice}</p>`} ${login && html`<p><a href="#/login">Log in</a></p>`}
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
  const words = {
    learning: "learning",
    ok: "ok",
    pending: "pending",
    firing: "firing",
    resolved: "resolved",
    accepted: "accepted",
    no_data: "no data",
  };
  return html`<span class=${`state ${state}`}>${words[state] ?? state}</span>`;
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

function sorted(rows, columns, order) {
  const column = columns.find((c) => c.key === order.key);
  if (!column) return rows;
  const value = column.sort ?? column.value;
  const compare = (a, b) => {
    const x = value(a),
      y = value(b);
    if (x === y) return 0;
    if (x === null || x === undefined) return 1;
    if (y === null || y === undefined) return -1;
    return (x < y ? -1 : 1) * (order.down ? -1 : 1);
  };
  return [...rows].sort(compare);
}

function direction(order, column) {
  if (order.key !== column.key) return "none";
  return order.down ? "descending" : "ascending";
}

const turned = (order, c) => ({ key: c.key, down: direction(order, c) !== "descending" });

// j and k move through rows, Enter opens one: the view's main table listens.
function useRowKeys(count, open) {
  const [at, setAt] = useState(-1);
  const now = useRef({}); // a key may come before the page has drawn what the last one chose
  now.current = { ...now.current, count, open };
  useEffect(() => {
    const choose = (row) => setAt((now.current.at = row));
    const pressed = (event) => {
      const held = event.metaKey || event.ctrlKey || event.altKey;
      if (event.target.matches("input, select, textarea") || held) return;
      const { at: row = -1, count: rows, open: go } = now.current;
      if (event.key === "j") choose(Math.min(row + 1, rows - 1));
      else if (event.key === "k") choose(Math.max(row - 1, 0));
      else if (event.key === "Enter" && row >= 0 && !event.target.matches("a, button")) go(row);
    };
    window.addEventListener("keydown", pressed);
    return () => window.removeEventListener("keydown", pressed);
  }, []);
  return at;
}

export function Table({ name, columns, rows, order: first, href, caption, main }) {
  const [order, setOrder] = useState(first ?? {});
  const body = useRef(null);
  const shown = sorted(rows, columns, order);
  const at = useRowKeys(main ? shown.length : 0, (i) => href && (location.hash = href(shown[i])));
  useEffect(() => {
    body.current?.children[at]?.scrollIntoView({ block: "nearest" });
  }, [at]);
  const save = (kind) =>
    kind === "csv"
      ? download(`${name}.csv`, "text/csv", toCsv(columns, shown))
      : download(`${name}.json`, "application/json", JSON.stringify(shown, null, 1));
  return html`<div class="tablebox" tabindex="0" role="region" aria-label=${caption}>
    <table>
      <caption>
        ${caption}
        <span class="save">
          <button onClick=${() => save("csv")} aria-label=${`${caption} as CSV`}>CSV</button>
          <button onClick=${() => save("json")} aria-label=${`${caption} as JSON`}>JSON</button>
        </span>
      </caption>
      <thead>
        <tr>
          ${columns.map(
            (c) =>
              html`<th scope="col" class=${c.class} aria-sort=${direction(order, c)}>
                <button class="sort" onClick=${() => setOrder(turned(order, c))} title=${c.title}>
                  ${c.label}${order.key === c.key ? (order.down ? " ↓" : " ↑") : ""}
                </button>
              </th>`,
          )}
        </tr>
      </thead>
      <tbody ref=${body}>
        ${shown.map(
          (row, i) =>
            html`<tr class=${i === at ? "at" : ""}>
              ${columns.map(
                (c, n) =>
                  html`<td class=${c.class}>
                    ${
                      n === 0 && href
                        ? html`<a href=${href(row)}>${(c.show ?? c.value)(row)}</a>`
                        : (c.show ?? c.value)(row)
                    }
                  </td>`,
              )}
            </tr>`,
        )}
      </tbody>
    </table>
  </div>`;
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

// Requests as they end: asked for each second; what is shown is bounded, whatever the traffic.
import { useEffect, useRef, useState } from "preact/hooks";
import { html, Failure, Table } from "./parts.js";
import { getJson } from "./api.js";
import { isoTime, ns } from "./format.js";
import { link, setQuery } from "./router.js";

const SHOWN = 200;
const ASKED = 200;

const COLUMNS = [
  { key: "start", label: "Started (UTC)", value: (r) => r.start, show: (r) => isoTime(r.start) },
  { key: "route", label: "Route", value: (r) => r.route, class: "wide" },
  {
    key: "status",
    label: "Status",
    value: (r) => r.status,
    class: "num",
    show: (r) =>
      html`<span class=${r.status === null || r.status >= 500 ? "worse" : ""}
        >${r.status ?? "none"}</span
      >`,
  },
  {
    key: "total",
    label: "Total",
    value: (r) => r.total_ns,
    show: (r) => ns(r.total_ns),
    class: "num",
  },
  {
    key: "profile",
    label: "Profile",
    value: (r) => r.has_profile,
    show: (r) => (r.has_profile ? "yes" : html`<span class="quiet">no</span>`),
  },
];

function useNewest(paused) {
  const [state, setState] = useState({ rows: [], missed: false, error: null });
  const known = useRef(new Set());
  useEffect(() => {
    if (paused) return undefined;
    const abort = new AbortController();
    let timer;
    const ask = async () => {
      try {
        const { requests } = await getJson(
          `/api/v1/requests?sort=latest&limit=${ASKED}`,
          abort.signal,
        );
        const fresh = requests.filter((r) => !known.current.has(r.trace_id + r.span_id));
        known.current = new Set(requests.map((r) => r.trace_id + r.span_id));
        setState((old) => ({
          rows: merge(fresh, requests, old.rows),
          missed: fresh.length === ASKED && old.rows.length > 0,
          error: null,
        }));
      } catch (error) {
        if (!abort.signal.aborted) setState((old) => ({ ...old, error }));
      }
      if (!abort.signal.aborted) timer = setTimeout(document.hidden ? wait : ask, 1000);
    };
    const wait = () => (timer = setTimeout(document.hidden ? wait : ask, 1000));
    ask();
    return () => {
      abort.abort();
      clearTimeout(timer);
    };
  }, [paused]);
  return state;
}

// What is new, on top; a request seen before takes what is known of it now.
function merge(fresh, all, old) {
  const newest = new Map(all.map((r) => [r.trace_id + r.span_id, r]));
  const kept = old.map((r) => newest.get(r.trace_id + r.span_id) ?? r);
  return [...fresh, ...kept].slice(0, SHOWN);
}

export function Live({ query }) {
  const paused = query.paused === "1";
  const { rows, missed, error } = useNewest(paused);
  const wanted = (query.q ?? "").toLowerCase(),
    least = Number(query.min_ms || 0) * 1e6;
  const shown = rows.filter((r) => r.route.toLowerCase().includes(wanted) && r.total_ns >= least);
  return html`<div class="bar">
      <h1>Live</h1>
      <input
        type="search"
        id="search"
        placeholder="Filter routes ( / )"
        aria-label="Filter routes"
        value=${query.q ?? ""}
        onInput=${(e) => setQuery({ q: e.target.value }, true)}
      />
      <label
        >at least
        <input
          class="short"
          type="number"
          min="0"
          value=${query.min_ms ?? ""}
          onInput=${(e) => setQuery({ min_ms: e.target.value }, true)}
        />
        ms</label
      >
      <button aria-pressed=${paused} onClick=${() => setQuery({ paused: paused ? "" : "1" }, true)}>
        ${paused ? "Go on" : "Pause"}
      </button>
      ${missed && html`<span class="quiet">more than ${ASKED} a second: some are not shown</span>`}
    </div>
    ${error && html`<${Failure} error=${error} />`}
    <${Table}
      name="live"
      main=${true}
      caption=${`${shown.length} of the newest ${rows.length} requests kept`}
      columns=${COLUMNS}
      rows=${shown}
      href=${(r) => link(["request", r.trace_id], { span: r.span_id })}
    />`;
}

// Requests as they end, by server-sent events. What is shown is bounded, whatever the traffic:
// the gateway sends so many a second and counts the rest, the page keeps the newest rows and
// draws them a few times a second.
import { useEffect, useRef, useState } from "preact/hooks";
import { html, Failure, Legend, PHASES, Search, worthShowing } from "./parts.js";
import { Table } from "./table.js";
import { PATH, PHASE_BAR, PROFILE, ROUTE, CLOCK, STATUS, TOTAL } from "./columns.js";
import { requestHref, requestKey } from "./columns.js";
import { query as search, stream } from "./api.js";
import { count } from "./format.js";
import { setQuery } from "./router.js";

const SHOWN = 100;
const PER_S = 50;
const DRAWN_MS = 250;
const RATE_S = 5;

const COLUMNS = [CLOCK, ROUTE, TOTAL, STATUS, PHASE_BAR, PATH, { ...PROFILE, class: "mid" }];

// How many came in the seconds before this one.
function rateOf(seconds, begun, now) {
  const past = seconds.filter(([at]) => at < now && at >= now - RATE_S);
  return past.reduce((sum, [, n]) => sum + n, 0) / Math.max(1, Math.min(RATE_S, now - begun));
}

function useEvents(path, paused) {
  const [state, setState] = useState({ rows: [], lost: 0, rate: 0, error: null, open: false });
  const kept = useRef([]); // what is shown outlives a pause and a change of filter
  useEffect(() => {
    if (paused || !path) return undefined;
    const seen = { fresh: [], lost: 0, seconds: [], changed: true, error: null, open: false };
    const begun = Math.floor(Date.now() / 1000);
    const counted = (n) => {
      const now = Math.floor(Date.now() / 1000);
      if (seen.seconds.at(-1)?.[0] !== now) seen.seconds.push([now, 0]);
      seen.seconds.at(-1)[1] += n;
      if (seen.seconds.length > RATE_S + 1) seen.seconds.shift();
    };
    const end = stream(path, {
      open: () => Object.assign(seen, { open: true, error: null, changed: true }),
      failed: (error) => Object.assign(seen, { open: false, error, changed: true }),
      events: {
        exchange: (row) => {
          counted(1);
          seen.fresh.push(row);
          if (seen.fresh.length > SHOWN) seen.fresh.shift();
          seen.changed = true;
        },
        skipped: ({ count: n }) => counted(n),
        dropped: ({ count: n }) => {
          counted(n);
          seen.lost += n;
        },
      },
    });
    const draw = setInterval(() => {
      const rate = rateOf(seen.seconds, begun, Math.floor(Date.now() / 1000));
      kept.current = [...seen.fresh.reverse(), ...kept.current].slice(0, SHOWN);
      seen.fresh = [];
      const { lost, error, open } = seen;
      const same = (old) =>
        !seen.changed && old.rate === rate && old.lost === lost && old.error === error;
      setState((old) => (same(old) ? old : { rows: kept.current, lost, rate, error, open }));
      seen.changed = false;
    }, DRAWN_MS);
    return () => {
      clearInterval(draw);
      end();
    };
  }, [path, paused]);
  return state;
}

// Nobody looks: nothing is asked for.
function useHidden() {
  const [hidden, setHidden] = useState(document.hidden);
  useEffect(() => {
    const changed = () => setHidden(document.hidden);
    document.addEventListener("visibilitychange", changed);
    return () => document.removeEventListener("visibilitychange", changed);
  }, []);
  return hidden;
}

// What is typed counts once the typing rests.
function useRested(value, ms = 300) {
  const [rested, setRested] = useState(value);
  useEffect(() => {
    const timer = setTimeout(() => setRested(value), ms);
    return () => clearTimeout(timer);
  }, [value]);
  return rested;
}

const showAll = () => setQuery({ q: "", min_ms: "" });

function Nothing({ filtered }) {
  return html`<div class="note">
    <h2>Waiting for requests</h2>
    <p>
      ${
        filtered
          ? "Each that ends and fits the filter appears here. "
          : "Each request through the gateway appears here once it ended and its profile came. "
      }
      ${filtered && html`<button onClick=${showAll}>Show all</button>`}
    </p>
  </div>`;
}

// As the gateway filters.
function fits(part, min_ms) {
  const lower = part.toLowerCase();
  return (r) => r.route.toLowerCase().includes(lower) && r.total_ns >= Number(min_ms) * 1e6;
}

export function Live({ query }) {
  const stopped = query.paused === "1";
  const hidden = useHidden();
  const min_ms = /^\d{1,8}$/.test(query.min_ms ?? "") ? query.min_ms : "";
  const path = useRested(`/api/v1/live${search({ contains: query.q, min_ms, per_s: PER_S })}`);
  const { rows: kept, lost, rate, error, open } = useEvents(path, stopped || hidden);
  const rows = kept.filter(fits(query.q ?? "", min_ms)); // what came before the filter was set
  const used = worthShowing(
    PHASES,
    rows.map((r) => r.phases_ns),
  );
  const pause = (on) => setQuery({ paused: on ? "1" : "" }, true);
  const word = stopped ? "paused" : open ? `${count(Math.round(rate))} requests/s` : "connecting…";
  return html`<div class="bar">
      <h1>Live</h1>
      <${Search} what="routes" value=${query.q} />
      <label
        >at least
        <input
          class="short"
          type="number"
          min="0"
          max="86400000"
          value=${query.min_ms ?? ""}
          onInput=${(e) => setQuery({ min_ms: e.target.value }, true)}
        />
        ms</label
      >
      <button aria-pressed=${stopped} onClick=${() => pause(!stopped)}>
        ${stopped ? "Go on" : "Pause"}
      </button>
      <span class=${`rate ${open && !stopped ? "on" : "quiet"}`}>${word}</span>
      ${rate > PER_S && html`<span class="quiet">${PER_S} a second are shown</span>`}
      ${lost > 0 && html`<span class="worse">${count(lost)} lost: this page was too slow</span>`}
    </div>
    ${error && !stopped && html`<${Failure} error=${error} />`}
    ${
      rows.length
        ? html`<${Table}
              name="live"
              main=${true}
              caption=${`The newest ${rows.length} requests`}
              columns=${COLUMNS}
              rows=${rows}
              rowKey=${requestKey}
              href=${requestHref}
              onMove=${() => stopped || pause(true)}
            />
            <${Legend} names=${used} prefix="phase" />`
        : html`<${Nothing} filtered=${Boolean(query.q || min_ms)} />`
    }`;
}

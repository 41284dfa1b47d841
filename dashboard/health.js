// What tailrace says of itself, read from /metrics.
import { useEffect, useState } from "preact/hooks";
import { html, Answer, Table } from "./parts.js";
import { getText } from "./api.js";
import { bytes, count, ns, percent } from "./format.js";
import { setQuery } from "./router.js";

const SAMPLE = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)/;

export function readMetrics(text) {
  const help = new Map(),
    samples = [];
  for (const line of text.split("\n")) {
    const told = /^# HELP (\S+) (.*)/.exec(line);
    if (told) help.set(told[1], told[2]);
    const found = line.startsWith("#") ? null : SAMPLE.exec(line);
    if (found) samples.push({ name: found[1], labels: found[2] ?? "", value: Number(found[3]) });
  }
  return { help, samples };
}

function useMetrics() {
  const [state, setState] = useState({ data: null, error: null });
  const [turn, setTurn] = useState(0);
  useEffect(() => {
    const abort = new AbortController();
    let timer;
    const load = () =>
      getText("/metrics", abort.signal)
        .then(
          (text) => setState({ data: readMetrics(text), error: null }),
          (error) => abort.signal.aborted || setState((old) => ({ ...old, error })),
        )
        .then(() => abort.signal.aborted || (timer = setTimeout(load, 5000)));
    load();
    return () => {
      abort.abort();
      clearTimeout(timer);
    };
  }, [turn]);
  return { ...state, again: () => setTurn(turn + 1) };
}

const sum = (data, name, label = "") =>
  data.samples
    .filter((s) => s.name === name && s.labels.includes(label))
    .reduce((a, s) => a + s.value, 0);
const LOST =
  /drop|lost|displaced|refused|overflow|evicted|forgotten|broken|fail|restart|folded|pause|timeout/;

const COLUMNS = [
  { key: "name", label: "Metric", value: (s) => s.name, class: "mono wide" },
  { key: "labels", label: "Labels", value: (s) => s.labels, class: "mono" },
  {
    key: "value",
    label: "Value",
    value: (s) => s.value,
    show: (s) => count(s.value),
    class: "num",
  },
  { key: "help", label: "Meaning", value: (s) => s.help },
];

function Tiles({ data }) {
  const lag =
    sum(data, "tailrace_loop_lag_seconds_sum") /
    (sum(data, "tailrace_loop_lag_seconds_count") || 1);
  const joined = sum(data, "tailrace_profiles_total", 'outcome="joined"');
  const tiles = [
    ["Exchanges ended", count(sum(data, "tailrace_exchanges_ended_total"))],
    ["Profiles joined", count(joined)],
    ["Records dropped", count(sum(data, "tailrace_records_dropped_total"))],
    ["Exchanges lost", count(sum(data, "tailrace_exchanges_lost_total"))],
    ["Mean loop lag", ns(lag * 1e9)],
    ["Store", bytes(sum(data, "tailrace_store_bytes"))],
    ["Incidents", count(sum(data, "tailrace_incident_active"))],
  ];
  return html`<dl class="tiles">
    ${tiles.map(
      ([k, v]) =>
        html`<div>
          <dt>${k}</dt>
          <dd>${v}</dd>
        </div>`,
    )}
  </dl>`;
}

export function Health({ query }) {
  const answer = useMetrics();
  const wanted = (query.q ?? "").toLowerCase();
  return html`<div class="bar">
      <h1>Health</h1>
      <input
        type="search"
        id="search"
        placeholder="Filter metrics ( / )"
        aria-label="Filter metrics"
        value=${query.q ?? ""}
        onInput=${(e) => setQuery({ q: e.target.value }, true)}
      /><a href="/metrics">/metrics</a>
    </div>
    <${Answer} of=${answer}
      >${(data) => {
        const rows = data.samples
          .filter((s) => !s.name.endsWith("_bucket"))
          .map((s) => ({ ...s, help: data.help.get(s.name) ?? "" }));
        const lost = rows.filter((s) => LOST.test(s.name) && s.value > 0);
        const named = rows.filter((s) => `${s.name}${s.labels}`.toLowerCase().includes(wanted));
        return html`<${Tiles} data=${data} />
          ${
            lost.length
              ? html`<${Table}
                  name="lost"
                  caption="What was dropped, refused or failed since the start"
                  columns=${COLUMNS}
                  rows=${lost}
                />`
              : html`<p class="better">Nothing was dropped, refused or lost since the start.</p>`
          }
          <${Table}
            name="metrics"
            caption="All metrics"
            columns=${COLUMNS}
            rows=${named}
            main=${true}
          />`;
      }}<//
    >`;
}

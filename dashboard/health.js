// What tailrace says of itself: /api/v1/status, /api/v1/config, /metrics.
import { html, Answer, matches, Search, Tiles, useApi } from "./parts.js";
import { Table } from "./table.js";
import { getText } from "./api.js";
import { age, bytes, count, ns, percent } from "./format.js";

const SAMPLE = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)/;

function readMetrics(text) {
  const help = new Map(),
    samples = [];
  for (const line of text.split("\n")) {
    const told = /^# HELP (\S+) (.*)/.exec(line);
    if (told) help.set(told[1], told[2]);
    const found = line.startsWith("#") ? null : SAMPLE.exec(line);
    if (found && !found[1].endsWith("_bucket"))
      samples.push({ name: found[1], labels: found[2] ?? "", value: Number(found[3]) });
  }
  const family = (name) => name.replace(/_(sum|count)$/, "");
  return samples.map((s) => ({ ...s, help: help.get(s.name) ?? help.get(family(s.name)) ?? "" }));
}

const getMetrics = async (path, signal) => readMetrics(await getText(path, signal));

const METRICS = [
  { key: "name", label: "Metric", value: (s) => s.name, class: "mono" },
  { key: "labels", label: "Labels", value: (s) => s.labels, class: "mono path" },
  {
    key: "value",
    label: "Value",
    value: (s) => s.value,
    show: (s) => html`<span title=${s.value}>${count(s.value)}</span>`,
    class: "num",
  },
  { key: "help", label: "Meaning", value: (s) => s.help, class: "wide" },
];

const PROCESSES = [
  { key: "role", label: "Process", value: (p) => p.role },
  { key: "pid", label: "PID", value: (p) => p.pid, class: "num" },
  {
    key: "state",
    label: "State",
    value: (p) => p.state,
    show: (p) => html`<span class=${p.state === "running" ? "better" : "worse"}>${p.state}</span>`,
  },
  {
    key: "uptime",
    label: "Up for",
    value: (p) => p.uptime_s,
    show: (p) => age(p.uptime_s),
    class: "num",
  },
  {
    key: "rss",
    label: "Memory",
    value: (p) => p.rss_bytes,
    show: (p) => bytes(p.rss_bytes),
    class: "num",
  },
  {
    key: "cpu",
    label: "CPU time",
    value: (p) => p.cpu_s,
    show: (p) => (p.cpu_s === null ? "–" : `${p.cpu_s.toFixed(1)} s`),
    class: "num",
  },
  {
    key: "share",
    label: "of a core",
    value: (p) => (p.uptime_s ? p.cpu_s / p.uptime_s : null),
    show: (p) => percent(p.uptime_s ? p.cpu_s / p.uptime_s : null),
    class: "num",
  },
  { key: "threads", label: "Threads", value: (p) => p.threads, class: "num" },
  { key: "generation", label: "Generation", value: (p) => p.generation, class: "num" },
];

const HOOKS = [
  { key: "pid", label: "PID", value: (h) => h.pid, class: "num" },
  { key: "hook", label: "Hook", value: (h) => h.hook_version },
  { key: "python", label: "Python", value: (h) => h.python },
  { key: "loop", label: "Loop", value: (h) => h.loop },
  {
    key: "engine",
    label: "Engine",
    value: (h) => h.engine,
    title: "steps: exact; drive: the fallback; totals: no stacks",
  },
  {
    key: "version",
    label: "App's version",
    value: (h) => h.version,
    show: (h) => h.version ?? "–",
  },
  {
    key: "profiles",
    label: "Profiles",
    value: (h) => h.profiles,
    show: (h) => count(h.profiles),
    class: "num",
  },
  {
    key: "dropped",
    label: "Dropped",
    value: (h) => h.dropped,
    show: (h) => html`<span class=${h.dropped ? "worse" : "quiet"}>${count(h.dropped)}</span>`,
    class: "num",
  },
  {
    key: "heard",
    label: "Last heard of",
    value: (h) => h.heard_s,
    show: (h) => (h.heard_s < 2 ? "now" : `${age(h.heard_s)} ago`),
    class: "num",
  },
];

const DROPS = [
  { key: "name", label: "What was lost", value: (d) => d.name.replaceAll("_", " ") },
  {
    key: "count",
    label: "Times",
    value: (d) => d.count,
    show: (d) => count(d.count),
    class: "num",
  },
  { key: "why", label: "What to do", value: (d) => REMEDY[d.name] ?? "", class: "wide" },
];

const REMEDY = {
  records_dropped: "The collector fell behind: give it a core, or look what the store waits for.",
  exchanges_lost: "A worker died; its log says why.",
  join_displaced: "More than 65 536 exchanges waited for their profiles.",
  profile_batches_full: "More profiles than exchanges came: is the traffic past the gateway?",
  hook_profiles_dropped: "A hook could not reach the gateway, or its app is very busy.",
  store_dropped_full:
    "The disk is too slow for what is kept: lower store.keep_slowest, keep_random.",
  store_dropped_error: "The store cannot be written: see the log.",
  access_log_dropped: "The disk is too slow for the access log.",
  queries_refused: "More than 64 questions to the API waited at a time.",
  routes_overflow: "More than 1000 routes: is something of the path in the route's name?",
  detector_late: "Exchanges came after their window was judged.",
  live_dropped: "A reader of the live view was too slow.",
  live_refused: "More than 32 readers of the live view.",
};

function Lost({ drops }) {
  const lost = Object.entries(drops)
    .filter(([, n]) => n > 0)
    .map(([name, n]) => ({ name, count: n }));
  if (!lost.length)
    return html`<p class="better">
      Nothing was dropped, refused or lost since the collector began.
    </p>`;
  return html`<${Table}
    name="lost"
    caption="Lost since the collector began"
    columns=${DROPS}
    rows=${lost}
  />`;
}

function NoHooks() {
  return html`<div class="note">
    <h2>No hook posts here</h2>
    <p>Without it each request's time ends at the app's door. In the app's environment:</p>
    <pre>
export TAILRACE_CALLBACK=unix:/run/tailrace/control.sock
python -m tailrace uvicorn app:app --port 8000</pre>
  </div>`;
}

function Status({ of: s }) {
  const { store, lately, cost } = s;
  const lost = Object.values(s.drops).reduce((a, b) => a + b, 0);
  const ratio = lately.joined_ratio;
  const restarts = s.restarts.worker + s.restarts.collector;
  const full = store.bytes / store.max_bytes;
  const tiles = [
    ["Requests", `${count(lately.requests_per_s ?? 0)} /s`, "ended, mean of the last minute"],
    [
      "Profiled",
      percent(ratio, 1),
      "of the last minute's requests that were sent to the app, those with a profile",
      ratio !== null && ratio < 0.99 ? "worse" : "",
    ],
    ["Lost", count(lost), "everything that was dropped, refused or lost", lost ? "worse" : ""],
    ["CPU per request", ns(cost.cpu_ns_per_exchange), "of all tailrace's processes together"],
    ["Memory", bytes(cost.rss_bytes), "of all tailrace's processes together"],
    ["Loop lag", ns(s.loop_lag.mean_ns), `mean; the latest was ${ns(s.loop_lag.max_ns)}`],
    [
      "Store",
      store.writable ? bytes(store.bytes) : "not writable",
      `${store.path}: ${percent(full)} of ${bytes(store.max_bytes)}; ${store.queued} wait`,
      store.writable ? "" : "worse",
    ],
    [
      "Restarts",
      count(restarts),
      "of processes that died, since the start",
      restarts ? "worse" : "",
    ],
  ];
  return html`<${Tiles} of=${tiles} />
    <${Lost} drops=${s.drops} />
    <${Table}
      name="processes"
      caption=${`tailrace ${s.version}, configuration ${s.config}`}
      columns=${PROCESSES}
      rows=${s.processes}
    />
    ${
      s.hooks.length
        ? html`<${Table}
            name="hooks"
            caption="Hooks heard of in the last 10 minutes"
            columns=${HOOKS}
            rows=${s.hooks}
          />`
        : html`<${NoHooks} />`
    }`;
}

// Every value by its place: "upstreams.app.queue_max".
function flat(value, path = "") {
  if (value === null || typeof value !== "object") return [{ path, value }];
  const entries = Object.entries(value);
  if (!entries.length) return [{ path, value: Array.isArray(value) ? "[]" : "{}" }];
  const name = (k) => (Array.isArray(value) ? `${path}[${k}]` : path ? `${path}.${k}` : k);
  return entries.flatMap(([k, v]) => flat(v, name(k)));
}

const CONFIG = [
  { key: "path", label: "Key", value: (c) => c.path, class: "mono" },
  {
    key: "value",
    label: "Value in force",
    value: (c) => c.value,
    class: "mono wide",
    show: (c) => (c.value === null ? html`<span class="quiet">–</span>` : String(c.value)),
  },
];

function Config({ wanted }) {
  const answer = useApi("/api/v1/config");
  return html`<${Answer} of=${answer}
    >${(data) =>
      html`<${Table}
        name="config"
        caption=${`Configuration ${data.serial}, defaults filled in`}
        columns=${CONFIG}
        rows=${flat(data.config).filter((c) => matches(c.path, wanted))}
      />`}<//
  >`;
}

function Metrics({ wanted }) {
  const answer = useApi("/metrics", 0, getMetrics);
  return html`<${Answer} of=${answer}
    >${(rows) =>
      html`<${Table}
        name="metrics"
        caption="Metrics, as Prometheus reads them"
        columns=${METRICS}
        rows=${rows.filter((s) => matches(`${s.name} ${s.labels}`, wanted))}
      />`}<//
  >`;
}

const TABS = [
  ["", "Status"],
  ["config", "Configuration"],
  ["metrics", "Metrics"],
];

export function Health({ tab = "", query }) {
  const status = useApi(tab ? null : "/api/v1/status", 3000);
  return html`<div class="bar">
      <h1>Health</h1>
      <nav class="tabs" aria-label="Parts of this page">
        ${TABS.map(
          ([name, label]) =>
            html`<a
              href=${`#/health${name && `/${name}`}`}
              aria-current=${tab === name ? "page" : undefined}
              >${label}</a
            >`,
        )}
      </nav>
      ${tab && html`<${Search} what=${tab === "config" ? "keys" : "metrics"} value=${query.q} />`}
      ${tab === "metrics" && html`<a href="/metrics">/metrics</a>`}
    </div>
    ${!tab && html`<${Answer} of=${status}>${(s) => html`<${Status} of=${s} />`}<//>`}
    ${tab === "config" && html`<${Config} wanted=${query.q} />`}
    ${tab === "metrics" && html`<${Metrics} wanted=${query.q} />`}`;
}

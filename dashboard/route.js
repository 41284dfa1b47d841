// One route over time.
import { useMemo, useState } from "preact/hooks";
import { html, Answer, KINDS, PHASES, Table, useApi } from "./parts.js";
import { Chart, Flame, HeatMap, color, stack } from "./charts.js";
import { between, count, isoTime, ns, percent, signedNs, time } from "./format.js";
import { link, setQuery } from "./router.js";
import { query as search } from "./api.js";

const WINDOWS = { "15m": 900, "1h": 3600, "6h": 21600, "1d": 86400, "7d": 604800 };

const per = (sum, requests) => (requests ? sum / requests : 0);

function Latency({ data, span }) {
  const { points, deploys, incidents } = data;
  const t = useMemo(() => points.map((p) => p.t), [points]);
  const series = useMemo(
    () => [
      { label: "p99", values: points.map((p) => p.p99_ns), stroke: color("p99") },
      { label: "p95", values: points.map((p) => p.p95_ns), stroke: color("p95"), width: 2 },
      { label: "p50", values: points.map((p) => p.p50_ns), stroke: color("p50") },
    ],
    [points],
  );
  const rate = useMemo(
    () => [
      {
        label: "requests/s",
        values: points.map((p) => p.requests / data.step_s),
        stroke: color("p50"),
        fill: color("fill"),
        bars: true,
      },
      {
        label: "errors/s",
        values: points.map((p) => p.errors / data.step_s),
        stroke: color("bad"),
        fill: color("bad"),
        bars: true,
      },
    ],
    [points],
  );
  return html`<${Chart}
      title="Latency"
      t=${t}
      series=${series}
      format=${ns}
      deploys=${deploys}
      incidents=${incidents}
      onSpan=${span}
    />
    <${Chart}
      title=${`Throughput, by ${data.step_s} s`}
      t=${t}
      series=${rate}
      format=${(v) => v.toFixed(v < 10 ? 2 : 0)}
      height=${110}
      deploys=${deploys}
      incidents=${incidents}
      onSpan=${span}
    />`;
}

function Stacked({ title, data, names, of, prefix, span }) {
  const { points } = data;
  const t = useMemo(() => points.map((p) => p.t), [points]);
  const series = useMemo(() => {
    const used = names.filter((n) => points.some((p) => p[of][n] > 0));
    return stack(
      used.map((n) => ({
        label: n.replace("_", " "),
        values: points.map((p) => per(p[of][n], p.requests)),
        stroke: color(`${prefix}-${n}`),
        fill: color(`${prefix}-${n}`),
        width: 0.5,
      })),
    );
  }, [points]);
  return series.length
    ? html`<${Chart} title=${title} t=${t} series=${series} format=${ns} onSpan=${span} />`
    : null;
}

const ROWS = [
  { key: "frame", label: "Where", value: (r) => r.frame ?? r.cause ?? r.kind, class: "wide" },
  { key: "kind", label: "Kind", value: (r) => [r.kind, r.cause].filter(Boolean).join(" · ") },
  { key: "ns", label: "Per request", value: (r) => r.ns, show: (r) => ns(r.ns), class: "num" },
  {
    key: "count",
    label: "Times",
    value: (r) => r.count,
    show: (r) => count(r.count),
    class: "num",
  },
];
const DIFFERENCE = [
  {
    key: "before",
    label: "Before",
    value: (r) => r.baseline_ns,
    show: (r) => ns(r.baseline_ns),
    class: "num",
  },
  {
    key: "delta",
    label: "Change",
    value: (r) => r.delta_ns,
    class: "num",
    show: (r) =>
      html`<span class=${r.delta_ns > 0 ? "worse" : "better"}>${signedNs(r.delta_ns)}</span>`,
  },
  {
    key: "share",
    label: "Share of the growth",
    value: (r) => r.share,
    class: "num",
    show: (r) => (r.share === null ? "–" : between(r.share, [r.share_low, r.share_high])),
  },
];

function Causes({ data }) {
  const differ = data.baseline !== null;
  const rows = data.rows.slice(0, 100);
  return html`${
      differ &&
      html`<p>
        Mean time ${signedNs(data.growth_ns)} against ${time(data.baseline.from)} to
        ${time(data.baseline.to)} (${count(data.baseline.requests)} requests).
        ${data.rows[0]?.verdict ? ` Verdict of the first row: ${data.rows[0].verdict}.` : ""}
      </p>`
    }
    <${Table}
      name="rows"
      caption=${differ ? "What made it differ" : "What a request's time is made of"}
      columns=${differ ? [...ROWS, ...DIFFERENCE] : ROWS}
      rows=${rows}
    />`;
}

export function FlameView({ id, from, to, baselineFrom, baselineTo, title }) {
  const [wanted, setWanted] = useState("");
  const [all, setAll] = useState(false);
  const answer = useApi(
    `/api/v1/routes/${id}/flame` +
      search({ from, to, baseline_from: baselineFrom, baseline_to: baselineTo }),
  );
  return html`<${Answer} of=${answer}
    >${(data) =>
      data.requests === 0
        ? html`<p class="quiet">No requests in this span.</p>`
        : html`<div class="bar">
              <h2>${title}</h2>
              <input
                type="search"
                placeholder="Find a frame"
                aria-label="Find a frame in the flame graph"
                onInput=${(e) => setWanted(e.target.value)}
              />
              <label
                ><input
                  type="checkbox"
                  checked=${all}
                  onChange=${(e) => setAll(e.target.checked)}
                />
                library frames too</label
              >
              <span class="quiet"
                >${count(data.requests)} requests, ${percent(data.coverage?.joined_ratio, 0)} of
                those sent have a profile</span
              >
            </div>
            <${Flame}
              tree=${data.tree}
              differ=${data.baseline !== null}
              search=${wanted}
              all=${all}
              title=${data.baseline ? "Difference" : "Flame graph, mean per request"}
            />
            <${Causes} data=${data} />`}<//
  >`;
}

const REQUESTS = [
  { key: "trace", label: "Trace", value: (r) => r.trace_id, class: "mono" },
  { key: "start", label: "Started (UTC)", value: (r) => r.start, show: (r) => isoTime(r.start) },
  {
    key: "status",
    label: "Status",
    value: (r) => r.status,
    show: (r) => r.status ?? "none",
    class: "num",
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

export function Requests({ route, main, sort = "slowest", limit = 50 }) {
  const answer = useApi(`/api/v1/requests${search({ route, sort, limit })}`, 10000);
  return html`<${Answer} of=${answer}
    >${(data) =>
      html`<${Table}
        name="requests"
        main=${main}
        caption=${sort === "slowest" ? "Slowest requests kept" : "Newest requests"}
        columns=${REQUESTS}
        rows=${data.requests}
        href=${(r) => link(["request", r.trace_id], { span: r.span_id })}
      />`}<//
  >`;
}

const WHOLE = { from: "", to: "", base_from: "", base_to: "" };

function IncidentLink({ of }) {
  const text = `${of.status} since ${time(of.since)}`;
  return html`<a class="state firing" href=${link(["incident", of.id])}>${text}</a>`;
}

function Span({ query, from, to }) {
  const length = to - from;
  const base = { base_from: from - length, base_to: from };
  return html`<div class="bar">
    <span>Span: <strong>${time(from)}</strong> to <strong>${time(to)}</strong> UTC</span>
    <span class="quiet">drag over a chart to choose another</span>
    ${
      query.base_from
        ? html`<a
            href=${link(["route", query.id], { ...query, id: "", base_from: "", base_to: "" })}
            >without comparison</a
          >`
        : html`<button onClick=${() => setQuery({ from, to, ...base })}>
            Compare with the span before
          </button>`
    }
    ${query.from && html`<button onClick=${() => setQuery(WHOLE)}>Whole window</button>`}
  </div>`;
}

export function Route({ id, query }) {
  const window = query.window ?? "1h";
  const now = useMemo(() => Math.floor(Date.now() / 1000), [id, window]);
  const all = { from: now - (WINDOWS[window] ?? 3600), to: now };
  const span = { from: Number(query.from) || all.from, to: Number(query.to) || all.to };
  const answer = useApi(`/api/v1/routes/${id}/series${search(all)}`);
  const choose = (from, to) => setQuery({ from, to, window });
  return html`<${Answer} of=${answer}
    >${(data) =>
      html` <div class="bar">
          <h1>${data.route}</h1>
          <label
            >Last
            <select
              value=${window}
              onChange=${(e) => setQuery({ window: e.target.value, ...WHOLE })}
            >
              ${Object.keys(WINDOWS).map((w) => html`<option value=${w}>${w}</option>`)}
            </select></label
          >
          ${data.incidents.map((i) => html`<${IncidentLink} of=${i} />`)}
        </div>
        <div class="charts">
          <${Latency} data=${data} span=${choose} />
          <${Stacked}
            title="Gateway's phases, mean per request"
            data=${data}
            names=${PHASES}
            of="phases_ns"
            prefix="phase"
            span=${choose}
          />
          <${Stacked}
            title="Inside the app, mean per request"
            data=${data}
            names=${KINDS}
            of="kinds_ns"
            prefix="kind"
            span=${choose}
          />
          <${HeatMap} points=${data.points} title="Requests by latency" />
        </div>
        <${Span} query=${{ ...query, id }} from=${span.from} to=${span.to} />
        <${FlameView}
          id=${id}
          from=${span.from}
          to=${span.to}
          baselineFrom=${query.base_from}
          baselineTo=${query.base_to}
          title="What the time is made of"
        />
        <${Requests} route=${data.route} main=${true} />`}<//
  >`;
}

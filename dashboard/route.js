// One route over time.
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { html, AllFrames, Answer, KINDS, PHASES, Search, Tiles } from "./parts.js";
import { upToNow, useApi, Where, Window, WINDOWS, worthShowing } from "./parts.js";
import { PROFILE, requestHref, requestKey, STARTED, STATUS, TOTAL, TRACE } from "./columns.js";
import { Table } from "./table.js";
import { Chart, HeatMap, stack } from "./charts.js";
import { Flame } from "./flame.js";
import { between, count, ns, percent, signedNs, time } from "./format.js";
import { link, setQuery } from "./router.js";
import { query as search } from "./api.js";

// The step that is running counts by what is over of it; nothing is said before half of it is.
function perSecond(n, point, step_s) {
  const over = Math.min(Date.now() / 1e3 - point.t, step_s);
  return over < step_s / 2 ? null : n / over;
}

const rated = (v) => v.toFixed(v < 10 ? 2 : 0);

function Latency({ data, ...shared }) {
  const { points, deploys, incidents } = data;
  const t = useMemo(() => points.map((p) => p.t), [points]);
  const series = useMemo(
    () => [
      { label: "p99", values: points.map((p) => p.p99_ns), stroke: "p99" },
      { label: "p95", values: points.map((p) => p.p95_ns), stroke: "p95", width: 2 },
      { label: "p50", values: points.map((p) => p.p50_ns), stroke: "p50" },
    ],
    [points],
  );
  const rate = useMemo(
    () => [
      {
        label: "requests/s",
        values: points.map((p) => perSecond(p.requests, p, data.step_s)),
        stroke: "p50",
        fill: "fill",
        bars: true,
      },
      {
        label: "errors/s",
        values: points.map((p) => perSecond(p.errors, p, data.step_s)),
        stroke: "bad",
        fill: "bad",
        bars: true,
      },
    ],
    [points],
  );
  return html`<${Chart}
      title="Latency"
      t=${t}
      step=${data.step_s}
      series=${series}
      format=${ns}
      deploys=${deploys}
      incidents=${incidents}
      ...${shared}
    />
    <${Chart}
      title=${`Throughput, by ${data.step_s} s`}
      t=${t}
      series=${rate}
      format=${rated}
      step=${data.step_s}
      height=${110}
      deploys=${deploys}
      incidents=${incidents}
      ...${shared}
    />`;
}

function Stacked({ title, data, names, of, prefix, ...shared }) {
  const { points } = data;
  const t = useMemo(() => points.map((p) => p.t), [points]);
  const series = useMemo(() => {
    const used = worthShowing(
      names,
      points.map((p) => p[of]),
    );
    const rest = names.filter((n) => !used.includes(n) && points.some((p) => p[of][n] > 0));
    const layer = (label, tint, parts) => ({
      label,
      values: points.map((p) =>
        p.requests ? parts.reduce((sum, n) => sum + p[of][n], 0) / p.requests : null,
      ),
      stroke: tint,
      fill: tint,
      width: 0.5,
    });
    const layers = used.map((n) => layer(n.replace("_", " "), `${prefix}-${n}`, [n]));
    if (rest.length) layers.push(layer("the rest", "quiet", rest));
    return stack(layers);
  }, [points]);
  if (!series.length) return null;
  const step = data.step_s;
  return html`<${Chart}
    title=${title}
    t=${t}
    series=${series}
    format=${ns}
    step=${step}
    ...${shared}
  />`;
}

const WHERE = [
  {
    key: "frame",
    label: "Where",
    value: (r) => r.frame ?? r.cause ?? r.kind,
    show: (r) => html`<${Where} of=${r} />`,
    class: "wide",
  },
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
// A change is for the worse or the better only where its interval leaves zero out.
function tone(r) {
  const measured = typeof r.share_low === "number" && typeof r.share_high === "number";
  if (measured && r.share_low <= 0 && r.share_high >= 0) return "quiet";
  if (r.delta_ns === 0) return "quiet";
  return r.delta_ns > 0 ? "worse" : "better";
}

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
    show: (r) => html`<span class=${tone(r)}>${signedNs(r.delta_ns)}</span>`,
  },
  {
    key: "share",
    label: "Share of the growth",
    value: (r) => r.share,
    class: "num",
    show: (r) => (r.share === null ? "–" : between(r.share, [r.share_low, r.share_high])),
  },
];

function growthText(data) {
  const before = data.baseline;
  const span = `${time(before.from)} to ${time(before.to)} UTC`;
  const verdict = data.rows[0]?.verdict
    ? ` The first row is ${VERDICT[data.rows[0].verdict]}.`
    : "";
  const growth = `Mean time ${signedNs(data.growth_ns)} against ${span}`;
  return `${growth} (${count(before.requests)} requests).${verdict}`;
}

const VERDICT = {
  named: "the cause: it stands clear of the second",
  likely: "likely the cause",
  "not enough requests": "not certain: there are not enough requests",
};

function Causes({ data }) {
  const differ = data.baseline !== null;
  const rows = data.rows.slice(0, 100);
  return html`${differ && html`<p>${growthText(data)}</p>`}
    <${Table}
      name="rows"
      caption=${differ ? "What made it differ" : "What a request's time is made of"}
      columns=${differ ? [...WHERE, ...DIFFERENCE] : WHERE}
      rows=${rows}
    />`;
}

// The old answer, until that of another path is there.
function useKept(answer) {
  const kept = useRef(null);
  if (answer.data) kept.current = answer.data;
  return { ...answer, data: answer.data ?? kept.current };
}

export function FlameView({ id, from, to, baselineFrom, baselineTo, title, query, rows = true }) {
  const all = query.frames === "all";
  const answer = useKept(
    useApi(
      `/api/v1/routes/${id}/flame` +
        search({ from, to, baseline_from: baselineFrom, baseline_to: baselineTo }),
    ),
  );
  return html`<div class="bar">
      <h2 id="frames" tabindex="-1">${title}</h2>
      <${Search}
        what="frames"
        main=${false}
        value=${query.find}
        onChange=${(find) => setQuery({ find }, true)}
      />
      <${AllFrames} on=${all} />
    </div>
    <${Answer} of=${answer}
      >${(data) =>
        data.requests === 0
          ? html`<div class="note">
              <p>
                No requests of this route between ${time(from)} and ${time(to)} UTC. Choose another
                span.
              </p>
            </div>`
          : html`<p class="quiet">
                ${count(data.requests)} requests; ${percent(data.coverage?.joined_ratio, 0)} of
                those sent to the app have a profile
              </p>
              <${Flame}
                tree=${data.tree}
                differ=${data.baseline !== null}
                search=${query.find ?? ""}
                all=${all}
                zoom=${query.zoom}
                title=${data.baseline ? "Difference" : "Flame graph, mean per request"}
              />
              ${rows && html`<${Causes} data=${data} />`}`}<//
    >`;
}

const REQUESTS = [TRACE, TOTAL, STATUS, STARTED, PROFILE];

function Requests({ route, query }) {
  const sort = query.requests === "latest" ? "latest" : "slowest";
  const answer = useApi(`/api/v1/requests${search({ route, sort, limit: 50 })}`, 10000);
  const other = sort === "latest" ? "slowest" : "latest";
  return html`<div class="bar">
      <h2 id="requests" tabindex="-1">Requests</h2>
      <button onClick=${() => setQuery({ requests: other }, true)}>
        ${other === "latest" ? "Newest instead" : "Slowest instead"}
      </button>
    </div>
    <${Answer} of=${answer}
      >${(data) =>
        html`<${Table}
          name="requests"
          main=${true}
          caption=${sort === "slowest" ? "Slowest kept" : "Newest kept"}
          columns=${REQUESTS}
          rows=${data.requests}
          rowKey=${requestKey}
          href=${requestHref}
        />`}<//
    >`;
}

const WHOLE = { from: "", to: "", base_from: "", base_to: "", zoom: "" };

function IncidentLink({ of }) {
  const text = `${of.status} since ${time(of.since)}`;
  return html`<a class="state firing" href=${link(["incident", of.id])}>${text}</a>`;
}

// Whether what is below is of the newest data; the button stays where it is, and with it the focus.
function Newest({ is, show }) {
  return html`<button class=${is ? "quiet" : "main"} aria-disabled=${is} onClick=${show}>
    ${is ? "The newest data is shown" : "Newer data: show"}
  </button>`;
}

function Span({ query, from, to, newest, show }) {
  const length = to - from;
  const base = { base_from: from - length, base_to: from };
  return html`<div class="bar">
    <span>Span: <strong>${time(from)}</strong> to <strong>${time(to)}</strong> UTC</span>
    ${!query.from && html`<${Newest} is=${newest} show=${show} />`}
    <span class="quiet">drag over a chart to choose another</span>
    ${
      query.base_from
        ? html`<button onClick=${() => setQuery({ base_from: "", base_to: "" })}>
            Without comparison
          </button>`
        : html`<button onClick=${() => setQuery({ from, to, ...base })}>
            Compare with the span before
          </button>`
    }
    ${query.from && html`<button onClick=${() => setQuery(WHOLE)}>Whole window</button>`}
  </div>`;
}

// What there is of a young route fills the charts: emptiness before its first request is cut.
function trimmed(data) {
  const first = data.points.findIndex((p) => p.requests > 0);
  if (first < data.points.length / 2) return data;
  return { ...data, points: data.points.slice(Math.max(first - 1, 0)) };
}

function headline(points) {
  const sum = (of) => points.reduce((a, p) => a + of(p), 0);
  const requests = sum((p) => p.requests),
    errors = sum((p) => p.errors);
  const mean = requests ? sum((p) => p.phases_ns && total(p.phases_ns)) / requests : null;
  const sent = sum((p) => p.joined);
  return [
    ["Requests", count(requests), "in the span above"],
    ["Errors", errors ? percent(errors / requests) : "0", "5xx, cut off", errors ? "worse" : ""],
    ["Mean", ns(mean), "first byte in to last byte out"],
    ["Slowest", ns(Math.max(0, ...points.map((p) => p.max_ns ?? 0))), ""],
    ["Profiled", requests ? percent(sent / requests, 0) : "–", "requests with a profile"],
  ];
}

const total = (phases) => Object.values(phases).reduce((a, b) => a + b, 0);

function Charts({ data, onSpan, chosen }) {
  const shown = useMemo(() => trimmed(data), [data]);
  return html`<div class="charts">
    <${Latency} data=${shown} onSpan=${onSpan} chosen=${chosen} />
    <${Stacked}
      title="Inside the app, mean per request"
      data=${shown}
      names=${KINDS}
      of="kinds_ns"
      prefix="kind"
      onSpan=${onSpan}
      chosen=${chosen}
    />
    <${Stacked}
      title="Gateway's phases, mean per request"
      data=${shown}
      names=${PHASES}
      of="phases_ns"
      prefix="phase"
      onSpan=${onSpan}
      chosen=${chosen}
    />
    <${HeatMap} points=${shown.points} title="Requests by latency" />
  </div>`;
}

// The span that the address names, if it names one.
function chosenOf({ from, to }) {
  const span = { from: Number(from), to: Number(to) };
  return span.from > 0 && span.to > span.from ? span : null;
}

const within = (inner, outer) => outer && inner.from >= outer.from && inner.to <= outer.to;

// Where the charts lie: in the window up to now; where a span was chosen that has left it, in as
// long a one round that. `drawn` is where they lay before: no choice in it moves them.
function pathOf(id, window, chosen, drawn) {
  const base = `/api/v1/routes/${id}/series`;
  const length = WINDOWS[window] ?? 3600,
    now = Math.floor(Date.now() / 1000);
  if (chosen && within(chosen, drawn)) return drawn.path;
  if (!chosen || chosen.from >= now - length) return base + search({ window });
  const size = chosen.to - chosen.from;
  const rest = Math.ceil(Math.max((length - size) / 2, size / 8));
  return base + search({ from: chosen.from - rest, to: Math.min(now, chosen.to + rest) });
}

// As long as a step is.
const often = (data) => Math.min(Math.max(data.step_s, 10), 60) * 1000;

// The series, following the time unless a span is chosen.
function useSeries(id, window, chosen) {
  const held = useRef(null); // {from, to, path, window, data}: what is drawn
  const path = useMemo(
    () => pathOf(id, window, chosen, held.current?.window === window && held.current),
    [id, window, chosen?.from, chosen?.to],
  );
  const answer = useApi(path, chosen ? 0 : often, upToNow);
  if (answer.data && !(chosen && held.current?.path === path))
    held.current = { ...answer.data, path, window, data: answer.data };
  const data = held.current?.path === path ? held.current.data : null;
  return { ...answer, data };
}

// Past the charts, which are higher than a phone.
function Jump({ to, children }) {
  const jump = () => {
    const head = document.getElementById(to);
    head.scrollIntoView();
    head.focus({ preventScroll: true });
  };
  return html`<button onClick=${jump}>${children}</button>`;
}

// The flame graph is of the span that was the newest when it was asked for: whoever reads it is not
// disturbed, and told that there is more.
function Shown({ id, window, query, data, chosen }) {
  const [read, setRead] = useState(null);
  const newest = { from: data.from, to: data.to };
  const show = () => setRead(newest);
  const whole = chosen === null;
  useEffect(show, [whole]);
  const span = chosen ?? read ?? newest;
  const choose = (from, to) => setQuery({ from, to: Math.min(to, data.to), window });
  const inside = (p) => p.t >= span.from && p.t < span.to;
  return html`<div class="bar">
      <h1>${data.route}</h1>
      <${Window} value=${window} clears=${WHOLE} />
      <${Jump} to="frames">Frames ↓</${Jump}>
      <${Jump} to="requests">Requests ↓</${Jump}>
      ${data.incidents.map((i) => html`<${IncidentLink} of=${i} />`)}
    </div>
    <${Tiles} of=${headline(chosen ? data.points.filter(inside) : data.points)} />
    <${Charts} data=${data} onSpan=${choose} chosen=${chosen} />
    <${Span}
      query=${query}
      from=${span.from}
      to=${span.to}
      newest=${!data.points.some((p) => p.t >= span.to && p.requests > 0)}
      show=${show}
    />
    <${FlameView}
      id=${id}
      from=${span.from}
      to=${span.to}
      baselineFrom=${query.base_from}
      baselineTo=${query.base_to}
      title=${query.base_from ? "What made it differ" : "What the time is made of"}
      query=${query}
    />
    <${Requests} route=${data.route} query=${query} />`;
}

function Page({ id, query }) {
  const window = query.window ?? "1h";
  const chosen = chosenOf(query);
  const answer = useSeries(id, window, chosen);
  return html`<${Answer} of=${answer}
    >${(data) =>
      html`<${Shown} id=${id} window=${window} query=${query} data=${data} chosen=${chosen} />`}<//
  >`;
}

// By number, or by name: links from requests and incidents outlive the store.
export function Route({ id, query }) {
  const named = !/^\d+$/.test(id);
  const answer = useApi(named ? "/api/v1/routes?window=7d" : null);
  if (!named) return html`<${Page} id=${id} query=${query} />`;
  return html`<${Answer} of=${answer}
    >${(data) => {
      const found = data.routes.find((r) => r.route === id);
      if (found) return html`<${Page} id=${found.id} query=${query} />`;
      return html`<div class="note">
        <h1>${id}</h1>
        <p>No request of this route in the last 7 days. <a href="#/routes">All routes</a></p>
      </div>`;
    }}<//
  >`;
}

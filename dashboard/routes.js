// All routes, worst first.
import { html, Answer, Legend, matches, PHASES, Search, ShareBar } from "./parts.js";
import { Sparkline, State, useApi, verdict, Window, worthShowing } from "./parts.js";
import { phaseParts } from "./columns.js";
import { Table } from "./table.js";
import { count, ns, percent } from "./format.js";
import { link, setQuery } from "./router.js";
import { query as search } from "./api.js";

const RANK = { firing: 0, pending: 1, resolved: 2, no_data: 3 };
const rank = (r) => RANK[r.state] ?? 4;

// Firing routes first, then whatever costs its users most time.
const cost = (r) => (r.p95_ns ?? 0) * Math.log2(2 + r.requests);
const worstFirst = (a, b) => rank(a) - rank(b) || cost(b) - cost(a);

function Change({ of }) {
  if (!of?.p95_before_ns) return html`<span class="quiet">–</span>`;
  const share = of.p95_ns / of.p95_before_ns - 1;
  const uncertain = of.certain ? "" : "; as much may be chance";
  return html`<span
    class=${verdict(share, of.certain)}
    title=${`p95 ${ns(of.p95_before_ns)} before, ${ns(of.p95_ns)} now${uncertain}`}
  >
    ${share >= 0 ? "+" : ""}${percent(share, 0)}</span
  >`;
}

const total = (r) => PHASES.reduce((sum, p) => sum + r.phases_mean_ns[p], 0);

function learning(r) {
  if (!r.learning) return "";
  return `${r.learning.have} of ${r.learning.need} requests`;
}

const COLUMNS = [
  { key: "route", label: "Route", value: (r) => r.route, class: "wide" },
  {
    key: "state",
    label: "State",
    value: (r) => r.state,
    sort: (r) => -rank(r),
    show: (r) => html`<span title=${learning(r)}><${State} state=${r.state} /></span>`,
  },
  {
    key: "requests",
    label: "Requests",
    value: (r) => r.requests,
    show: (r) => count(r.requests),
    class: "num opt",
  },
  {
    key: "errors",
    label: "Errors",
    value: (r) => r.errors,
    class: "num opt",
    show: (r) =>
      html`<span class=${r.errors ? "worse" : "quiet"}
        >${r.errors ? percent(r.errors / r.requests) : "0"}</span
      >`,
  },
  { key: "p50", label: "p50", value: (r) => r.p50_ns, show: (r) => ns(r.p50_ns), class: "num mid" },
  { key: "p95", label: "p95", value: (r) => r.p95_ns, show: (r) => ns(r.p95_ns), class: "num" },
  { key: "p99", label: "p99", value: (r) => r.p99_ns, show: (r) => ns(r.p99_ns), class: "num mid" },
  {
    key: "change",
    label: "Change",
    title: "p95 against the detector's baseline; coloured where it is certain",
    class: "num",
    value: (r) => (r.change?.p95_before_ns ? r.change.p95_ns / r.change.p95_before_ns - 1 : null),
    show: (r) => html`<${Change} of=${r.change} />`,
  },
  {
    key: "trend",
    label: "p95 over time",
    value: (r) => r.p95_ns,
    class: "chartcell opt",
    show: (r) => html`<${Sparkline} values=${r.p95_series ?? []} label=${`p95 of ${r.route}`} />`,
  },
  {
    key: "phases",
    label: "Where the time goes",
    title: "the gateway's phases, mean; inside the app: open the route",
    value: total,
    class: "chartcell mid",
    show: (r) =>
      html`<${ShareBar}
        parts=${phaseParts(r.phases_mean_ns)}
        total=${total(r)}
        label=${`phases of ${r.route}`}
      />`,
  },
  {
    key: "joined",
    label: "Profiled",
    title: "share of the requests sent to the app that have a profile",
    value: (r) => r.joined_ratio,
    show: (r) => percent(r.joined_ratio, 0),
    class: "num mid",
  },
];

function Nothing({ window }) {
  return html`<div class="note">
    <h2>No requests in the last ${window}</h2>
    <p>
      Choose a longer span, or send one through the gateway, and put the hook into the app to see
      inside it:
    </p>
    <pre>
curl -i http://127.0.0.1:8080/
export TAILRACE_CALLBACK=unix:/run/tailrace/control.sock
python -m tailrace uvicorn app:app --port 8000</pre>
  </div>`;
}

function NoMatch() {
  return html`<div class="note">
    <p>No route fits the filter. <button onClick=${() => setQuery({ q: "" })}>Show all</button></p>
  </div>`;
}

function List({ all, query, window }) {
  const rows = all.filter((r) => matches(r.route, query.q)).sort(worstFirst);
  if (!rows.length) return html`<${NoMatch} />`;
  const used = worthShowing(
    PHASES,
    rows.map((r) => r.phases_mean_ns),
  );
  const firing = rows.filter((r) => r.state === "firing").length;
  const caption = `${rows.length} ${rows.length === 1 ? "route" : "routes"}, worst first`;
  return html`<${Table}
      name="routes"
      caption=${firing ? `${caption}; ${firing} firing` : caption}
      columns=${COLUMNS}
      rows=${rows}
      main=${true}
      sort="sort"
      query=${query}
      rowKey=${(r) => r.id}
      href=${(r) => link(["route", r.id], { window })}
    />
    <${Legend} names=${used} prefix="phase" look="mid" />`;
}

export function Routes({ query }) {
  const window = query.window ?? "1h";
  const answer = useApi(`/api/v1/routes${search({ window })}`, 10000);
  return html`<div class="bar">
      <h1>Routes</h1>
      <${Search} what="routes" value=${query.q} />
      <${Window} value=${window} />
    </div>
    <${Answer} of=${answer}
      >${(data) =>
        data.routes.length
          ? html`<${List} all=${data.routes} query=${query} window=${window} />`
          : html`<${Nothing} window=${window} />`}<//
    >`;
}

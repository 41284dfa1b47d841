// Regressions: the list, and one with its evidence and cause.
import { useState } from "preact/hooks";
import { html, Answer, Failure, matches, Search, State, useApi } from "./parts.js";
import { differs, verdict, Where } from "./parts.js";
import { Table } from "./table.js";
import { FlameView } from "./route.js";
import { between, count, ns, percent, time, toSeconds } from "./format.js";
import { link, setQuery } from "./router.js";
import { postJson } from "./api.js";

const COLUMNS = [
  { key: "title", label: "What", value: (i) => i.title, class: "wide" },
  {
    key: "status",
    label: "Status",
    value: (i) => i.status,
    show: (i) => html`<${State} state=${i.status} />`,
  },
  {
    key: "cause",
    label: "Cause",
    value: (i) => i.cause?.rows?.[0]?.frame ?? i.cause?.verdict ?? "",
  },
  { key: "route", label: "Route", value: (i) => i.route, class: "opt" },
  {
    key: "since",
    label: "Since (UTC)",
    value: (i) => i.since,
    class: "opt",
    show: (i) => time(toSeconds(i.since)),
  },
];

function None() {
  return html`<div class="note">
    <h2>No incidents</h2>
    <p>
      Each route is compared with its own past once it has enough of it; what it still needs stands
      at its state on the <a href="#/routes">routes</a>. Fixed thresholds (alerts.rules) work from
      the first minute, and <code>tailrace deploy VERSION</code> marks what to look behind.
    </p>
  </div>`;
}

const STATUSES = ["firing", "resolved", "accepted", "merged"];

const showAll = () => setQuery({ q: "", status: "" });

function Fits({ query, all }) {
  const rows = all.filter(
    (i) =>
      (!query.status || i.status === query.status) && matches(`${i.title} ${i.route}`, query.q),
  );
  const others = all.length === 1 ? "There is one that does" : `There are ${all.length} that do`;
  if (!rows.length)
    return html`<div class="note">
      <h2>No incident fits</h2>
      <p>
        ${others} not.
        <button onClick=${showAll}>Show all</button>
      </p>
    </div>`;
  return html`<${Table}
    name="incidents"
    caption=${`${rows.length} incident${rows.length === 1 ? "" : "s"}, newest first`}
    main=${true}
    sort="sort"
    query=${query}
    columns=${COLUMNS}
    rows=${rows}
    rowKey=${(i) => i.id}
    href=${(i) => link(["incident", i.id])}
  />`;
}

export function Incidents({ query }) {
  const answer = useApi("/api/v1/incidents?limit=500", 10000);
  return html`<div class="bar">
      <h1>Incidents</h1>
      <${Search} what="incidents" value=${query.q} />
      <label
        >Status
        <select value=${query.status ?? ""} onChange=${(e) => setQuery({ status: e.target.value })}>
          <option value="">all</option>
          ${STATUSES.map((s) => html`<option value=${s}>${s}</option>`)}
        </select></label
      >
    </div>
    <${Answer} of=${answer}
      >${(data) =>
        data.incidents.length
          ? html`<${Fits} query=${query} all=${data.incidents} />`
          : html`<${None} />`}<//
    >`;
}

const ms = (v) => (v === null || v === undefined ? "–" : ns(v * 1e6));

// How much it became; nothing is said where one side was not measured.
function Became({ before, after, sides }) {
  if (!before || typeof after !== "number") return html`<td class="num quiet">–</td>`;
  const share = after / before - 1;
  const sign = share >= 0 ? "+" : "";
  const certain = sides && differs(sides.before, sides.after, before * 1e6);
  return html`<td class=${`num ${verdict(share, certain)}`}>${sign}${percent(share, 0)}</td>`;
}

function Before({ of: incident }) {
  const rows = Object.entries(incident.quantiles ?? {});
  return html`<table class="small">
    <caption>
      Latency
    </caption>
    <thead>
      <tr>
        <th>Quantile</th>
        <th>Before</th>
        <th>After</th>
        <th>Change</th>
      </tr>
    </thead>
    <tbody>
      ${rows.map(
        ([q, [before, after]]) =>
          html`<tr>
            <th scope="row">${q}</th>
            <td class="num">${ms(before)}</td>
            <td class="num">${ms(after)}</td>
            <${Became} before=${before} after=${after} sides=${incident.distributions} />
          </tr>`,
      )}
    </tbody>
  </table>`;
}

function Distribution({ of: d }) {
  if (!d?.before?.length && !d?.after?.length) return null;
  const bands = [...d.before, ...d.after];
  const low = Math.min(...bands.map((b) => b[0])),
    high = Math.max(...bands.map((b) => b[1]));
  const x = (v) =>
    (Math.log(Math.max(v, low, 1) / Math.max(low, 1)) / Math.log(high / Math.max(low, 1))) * 600;
  const whole = (list) => list.reduce((s, b) => s + b[2], 0) || 1;
  const most = Math.max(
    ...[d.before, d.after].map((list) => Math.max(0, ...list.map((b) => b[2])) / whole(list)),
  );
  const side = (list, name) => {
    const all = whole(list);
    return list.map(
      ([from, to, n]) =>
        html`<rect
          class=${name}
          x=${x(from)}
          width=${Math.max(x(to) - x(from) - 1, 1)}
          y=${100 - (n / all / most) * 100}
          height=${(n / all / most) * 100}
          ><title>${`${name}: ${percent(n / all)} from ${ns(from)} to ${ns(to)}`}</title></rect
        >`,
    );
  };
  return html`<figure class="chart">
    <figcaption>
      Latency of each side, share of its requests
      <span class="key"
        ><span class="swatch before"></span>before <span class="swatch after"></span>after</span
      >
    </figcaption>
    <svg
      class="distribution"
      viewBox="0 0 600 100"
      preserveAspectRatio="none"
      role="img"
      aria-label="Distributions before and after"
    >
      ${side(d.before, "before")}${side(d.after, "after")}
    </svg>
    <div class="ends quiet"><span>${ns(low)}</span><span>${ns(high)}</span></div>
  </figure>`;
}

// A hundredth of the growth, or more.
const matters = (r) => Math.abs(r.share) >= 0.01;

const ROWS = [
  {
    key: "frame",
    label: "Where",
    value: (r) => r.frame ?? r.cause ?? r.kind,
    class: "wide",
    show: (r) => html`<${Where} of=${r} look=${matters(r) ? "" : "quiet"} />`,
  },
  {
    key: "share",
    label: "Share",
    value: (r) => r.share,
    class: "num",
    show: (r) => between(r.share, r.ci90),
  },
  {
    key: "delta",
    label: "Growth",
    value: (r) => r.delta_ms,
    show: (r) => ms(r.delta_ms),
    class: "num",
  },
  { key: "kind", label: "Kind", value: (r) => [r.kind, r.cause].filter(Boolean).join(" · ") },
  {
    key: "waits",
    label: "Times per request",
    value: (r) => r.waits_per_request?.[1],
    class: "num",
    show: (r) =>
      r.waits_per_request
        ? `${count(r.waits_per_request[0])} → ${count(r.waits_per_request[1])}`
        : "–",
  },
];

function Exemplars({ of: exemplars }) {
  const list = (ids) =>
    ids.map((id) => html` <a class="mono" href=${link(["request", id])}>${id.slice(0, 12)}…</a>`);
  return html`<p>
    Requests before: ${exemplars.before?.length ? list(exemplars.before) : "none kept"} · after:
    ${exemplars.after?.length ? list(exemplars.after) : "none kept"}
  </p>`;
}

// The flame's query, as the API gives it: "/api/v1/routes/3/flame?from=…".
function flameOf(text, query) {
  const found = /routes\/(\d+)\/flame\?(.*)/.exec(text ?? "");
  if (!found) return null;
  const q = Object.fromEntries(new URLSearchParams(found[2]));
  return html`<${FlameView}
    id=${found[1]}
    from=${q.from}
    to=${q.to}
    baselineFrom=${q.baseline_from}
    baselineTo=${q.baseline_to}
    title="Where it grew"
    rows=${false}
    query=${query}
  />`;
}

function evidence(e) {
  const p = e.p_deploy ? `, p ${e.p_deploy < 0.001 ? "< 0.001" : e.p_deploy.toFixed(3)}` : "";
  const nats = `evidence ${e.nats?.toFixed(1)} nats of ${e.threshold?.toFixed(1)}`;
  return `${nats}, ${count(e.requests)} requests${p}`;
}

function causeText(c) {
  const growth = c.growth_ms === undefined ? "" : `, ${ms(c.growth_ms)} growth`;
  const covered = `${percent(c.coverage)} of the exchanges have a profile`;
  return `Cause: ${c.verdict}, of the ${c.of}${growth}; ${covered}.`;
}

// Those that matter; the others push the flame graph off the screen.
function CauseRows({ rows }) {
  const [all, setAll] = useState(false);
  const some = rows.filter(matters);
  const shown = all || !some.length ? rows : some;
  const hidden = rows.length - shown.length;
  return html`<${Table}
      name="cause"
      caption="What the growth is made of"
      columns=${ROWS}
      rows=${shown}
      main=${true}
    />
    ${
      hidden > 0 &&
      html`<button onClick=${() => setAll(true)}>
        ${hidden} more, each under a hundredth of the growth
      </button>`
    }`;
}

function Accept({ of: i, done }) {
  const [failed, setFailed] = useState(null);
  const [sure, setSure] = useState(false);
  if (i.status !== "firing") return null;
  const accept = () => postJson(`/api/v1/incidents/${i.id}/accept`).then(done, setFailed);
  return html`<div class="bar">
      ${
        sure
          ? html`<span>The level of now becomes the normal one.</span>
              <button class="main" onClick=${accept}>Accept it</button>
              <button onClick=${() => setSure(false)}>Leave it</button>`
          : html`<button onClick=${() => setSure(true)}>Accept the new level…</button>`
      }
    </div>
    ${failed && html`<${Failure} error=${failed} />`}`;
}

function Routed({ names }) {
  return names.map((name) => html`<a href=${link(["route", name])}>route ${name}</a> `);
}

function History({ of: history }) {
  return html`<h2>What was told</h2>
    <ol class="history">
      ${history.map(
        (e) =>
          html`<li>
            <strong>${time(toSeconds(e.t))} UTC</strong>${" "}
            <${State} state=${e.status} /> ${e.text}
          </li>`,
      )}
    </ol>`;
}

export function Incident({ id, query }) {
  const answer = useApi(`/api/v1/incidents/${id}`, 30000);
  return html`<${Answer} of=${answer}
    >${(i) =>
      html` <div class="bar">
          <h1>${i.title}</h1>
          <${State} state=${i.status} />
        </div>
        <p class="sentence">${i.text}</p>
        <div class="bar">
          <span>Since ${time(toSeconds(i.since))} UTC (± ${i.since_uncertainty_s ?? 0} s)</span>
          ${i.ended && html`<span>ended ${time(toSeconds(i.ended))} UTC</span>`}
          ${i.deploy && html`<span>deploy ${i.deploy.version} ${i.deploy.verdict}</span>`}
          <${Routed} names=${i.routes ?? [i.route]} />
          ${i.evidence && html`<span class="quiet">${evidence(i.evidence)}</span>`}
        </div>
        <${Accept} of=${i} done=${answer.again} />
        <div class="sides"><${Before} of=${i} /><${Distribution} of=${i.distributions} /></div>
        ${i.cause && html`<p>${causeText(i.cause)}</p>`}
        ${i.cause?.rows?.length > 0 && html`<${CauseRows} rows=${i.cause.rows} />`}
        ${i.exemplars && html`<${Exemplars} of=${i.exemplars} />`}
        ${flameOf(i.links?.flame ?? i.flame, query)}
        ${i.history?.length > 0 && html`<${History} of=${i.history} />`}`}<//
  >`;
}

// The app's part of a request: its times on the gateway's axis, what they were made of, who was
// in the way.
import { html, AllFrames, Frame } from "./parts.js";
import { Save, Table } from "./table.js";
import { Lanes } from "./lanes.js";
import { ns, percent } from "./format.js";
import { link } from "./router.js";

const width = (share) => ({ width: `${Math.max(0, Math.min(1, share)) * 100}%` });

export function Bar({ from, size, total, name }) {
  const left = `${(from / total) * 100}%`;
  return html`<span class="track"
    ><span class=${`fill ${name}`} style=${{ marginLeft: left, ...width(size / total) }}></span
  ></span>`;
}

function AppTrack({ of: x }) {
  const p = x.profile;
  const begin = phaseStart(x, "send");
  const rows = [
    ["app_queue", "sent to ASGI call", begin, p.app_queue_ns],
    ["app", "ASGI call to response start", begin + p.app_queue_ns, p.app_ns],
    [
      "app_out",
      "response start to first byte read",
      begin + p.app_queue_ns + p.app_ns,
      p.app_out_ns,
    ],
    [
      "app_stream",
      "response start to last body message",
      begin + p.app_queue_ns + p.app_ns,
      p.app_stream_ns,
    ],
    ["app_tail", "after that: background tasks, never latency", null, p.app_tail_ns],
  ];
  return html`<table class="fall">
    <tbody>
      ${rows
        .filter((r) => r[3] !== null)
        .map(
          ([name, what, from, size]) =>
            html`<tr>
              <th scope="row" title=${what}>${name}</th>
              <td class="num">${ns(size)}</td>
              <td class="num quiet">${percent(size / x.total_ns)}</td>
              <td class="rest">
                ${
                  from === null
                    ? html`<span class="quiet">${what}</span>`
                    : html`<${Bar}
                        from=${from}
                        size=${size}
                        total=${x.total_ns}
                        name=${`track-${name}`}
                      />`
                }
              </td>
            </tr>`,
        )}
    </tbody>
  </table>`;
}

function phaseStart(x, name) {
  let at = 0;
  for (const p of x.phases) {
    if (p.name === name) break;
    at += p.ns;
  }
  return at;
}

const where = (frame) => `${frame.module}:${frame.function}`;

// Rows merged into a tree of the app's own frames, library frames only at the leaves.
function treeOf(rows, all) {
  const root = { ns: 0, children: new Map() };
  for (const row of rows) {
    const inner = row.stack.map((f) => f.in_app).lastIndexOf(true);
    const frames = row.stack.filter((f, i) => all || f.in_app || i > inner);
    const kind = row.kind + (row.cause ? ` · ${row.cause}` : "");
    let at = root.children.get(kind);
    if (!at)
      root.children.set(
        kind,
        (at = { label: kind, kind: row.kind, ns: 0, count: 0, exact: true, children: new Map() }),
      );
    for (const step of [
      at,
      ...frames.map((frame) => {
        const key = where(frame);
        let next = at.children.get(key);
        if (!next)
          at.children.set(
            key,
            (next = { frame, kind: row.kind, ns: 0, count: 0, exact: true, children: new Map() }),
          );
        return (at = next);
      }),
    ]) {
      step.ns += row.ns;
      step.count += row.count;
      step.exact &&= row.exact;
    }
    if (row.by) at.by = row.by;
  }
  return root;
}

function Kind({ of }) {
  return html`<span class=${`kind kind-${of.kind}`}>${of.label}</span>`;
}

function Waker({ by }) {
  const name = by.route ?? by.trace_id;
  return by.trace_id
    ? html`<a class="quiet" href=${link(["request", by.trace_id])}>${` woken by ${name}`}</a>`
    : html`<span class="quiet">${` woken by ${name}`}</span>`;
}

// However deep, there is room for a name beside the numbers.
const indent = (depth) => `min(${depth * 1.1 + 0.3}em, 25vw)`;

function Node({ node, total, depth }) {
  const children = [...node.children.values()].sort((a, b) => b.ns - a.ns);
  const estimated = node.exact ? "" : "~";
  return html`<tr class=${`depth${Math.min(depth, 12)}`}>
      <th scope="row" style=${{ paddingLeft: indent(depth) }}>
        ${node.frame ? html`<${Frame} frame=${node.frame} />` : html`<${Kind} of=${node} />`}
        ${node.by && html`<${Waker} by=${node.by} />`}
      </th>
      <td class="num quiet">×${node.count}</td>
      <td class="num" title=${node.exact ? "measured" : "an estimate from samples"}>
        ${estimated}${ns(node.ns)}
      </td>
      <td class="num quiet">${percent(node.ns / total)}</td>
      <td class="rest">
        <span class="track"
          ><span class=${`fill kind-${node.kind}`} style=${width(node.ns / total)}></span
        ></span>
      </td>
    </tr>
    ${children.map((c) => html`<${Node} node=${c} total=${total} depth=${depth + 1} />`)}`;
}

const BREAKDOWN = [
  { key: "kind", label: "Kind", value: (r) => r.kind },
  { key: "cause", label: "Cause", value: (r) => r.cause },
  { key: "ns", label: "ns", value: (r) => r.ns },
  { key: "count", label: "Times", value: (r) => r.count },
  { key: "exact", label: "Exact", value: (r) => r.exact },
  { key: "stack", label: "Stack", value: (r) => r.stack.map(where).join(" > ") },
];

function Breakdown({ name, title, rows, unattributed, total, all }) {
  const kinds = [...treeOf(rows, all).children.values()].sort((a, b) => b.ns - a.ns);
  return html`<h3>
      ${title} <span class="quiet">${ns(total)}</span>
      <${Save} name=${name} caption=${title} columns=${BREAKDOWN} rows=${rows} />
    </h3>
    <table class="fall">
      <thead class="sr">
        <tr>
          <th>What</th>
          <th>Times</th>
          <th>Time</th>
          <th>Share</th>
          <th>Bar</th>
        </tr>
      </thead>
      <tbody>
        ${kinds.map((k) => html`<${Node} node=${k} total=${total || 1} depth=${0} />`)}
        <tr>
          <th scope="row">unattributed</th>
          <td></td>
          <td class="num">${ns(unattributed)}</td>
          <td class="num quiet">${percent(total ? unattributed / total : 0)}</td>
          <td></td>
        </tr>
      </tbody>
    </table>`;
}

const THREADS = [
  {
    key: "function",
    label: "Function",
    value: (t) => t.stack.map(where).join(" > "),
    show: (t) => (t.stack.length ? html`<${Frame} frame=${t.stack.at(-1)} />` : "others"),
    class: "wide",
  },
  { key: "count", label: "Jobs", value: (t) => t.count, class: "num" },
  ...[
    ["queue_ns", "Waited for a thread"],
    ["run_ns", "Ran"],
    ["cpu_ns", "Of that CPU"],
    ["return_ns", "Result waited for the loop"],
  ].map(([key, label]) => ({
    key,
    label,
    value: (t) => t[key],
    show: (t) => ns(t[key]),
    class: "num",
  })),
];

const STALLS = [
  {
    key: "route",
    label: "Culprit",
    title: "opens the request that held the loop",
    value: (s) => s.route ?? s.trace_id ?? "no request",
    class: "wide",
  },
  { key: "state", label: "The loop was", value: (s) => s.state ?? "unknown" },
  {
    key: "ns",
    label: "Held this request",
    value: (s) => s.ns,
    show: (s) => (s.exact ? "" : "~") + ns(s.ns),
    class: "num",
  },
  {
    key: "where",
    label: "Where",
    value: (s) => s.stack.map(where).join(" > "),
    show: (s) =>
      s.stack.length
        ? html`<${Frame} frame=${s.stack.findLast((f) => f.in_app) ?? s.stack.at(-1)} />`
        : "–",
  },
];

function placeText(p) {
  const clock = p.clock === "shared" ? "same clock" : `placed within ${ns(p.clock_slack_ns)}`;
  return `${p.loop}, Python ${p.python}, pid ${p.pid}; ${clock}`;
}

export function Profile({ of: x, all }) {
  const p = x.profile;
  return html`<h2>
      App
      <span class="quiet">${placeText(p)}</span>
    </h2>
    <${AppTrack} of=${x} />
    <div class="bar"><${AllFrames} on=${all} /></div>
    <${Breakdown}
      name="breakdown"
      title="What app was made of"
      rows=${p.breakdown}
      unattributed=${p.unattributed_ns}
      total=${p.app_ns}
      all=${all}
    />
    ${
      p.stream_breakdown.length > 0 &&
      html`<${Breakdown}
        name="stream-breakdown"
        title="While the body was sent"
        rows=${p.stream_breakdown}
        unattributed=${p.stream_unattributed_ns}
        total=${p.app_stream_ns}
        all=${all}
      />`
    }
    ${
      p.stalls.length > 0 &&
      html`<${Table}
        name="stalls"
        caption="Who held the loop while this request was due"
        columns=${STALLS}
        rows=${p.stalls}
        href=${(s) => s.trace_id && link(["request", s.trace_id])}
      />`
    }
    ${
      p.threads?.length > 0 &&
      html`<${Table}
        name="threads"
        caption="What ran in worker threads"
        columns=${THREADS}
        rows=${p.threads}
      />`
    }
    ${
      p.lanes?.length > 0
        ? html`<${Lanes} lanes=${p.lanes} stacks=${p.stacks ?? []} total=${x.total_ns} />`
        : html`<p class="quiet">${NO_LANES[p.detail] ?? ""}</p>`
    }`;
}

const NO_LANES = {
  absent:
    "No lanes: detail is kept of the slowest requests of each route, and comes a moment later.",
  gone: "No lanes: the hook did not have this request's detail any more.",
};

// One request: the waterfall, the app's part unfolded, lanes, stalls.
import { html, Answer, Frame, Table, useApi } from "./parts.js";
import { bytes, download, isoTime, ns, percent } from "./format.js";
import { link, setQuery } from "./router.js";
import { query as search } from "./api.js";

const width = (share) => ({ width: `${Math.max(0, Math.min(1, share)) * 100}%` });

function Bar({ from, size, total, name }) {
  const left = `${(from / total) * 100}%`;
  return html`<span class="track"
    ><span class=${`fill ${name}`} style=${{ marginLeft: left, ...width(size / total) }}></span
  ></span>`;
}

// Phases of zero length are named in one line: twelve rows of nothing help nobody.
function Phases({ of: x }) {
  let at = 0;
  const rows = x.phases.map((p) => ({ ...p, from: (at += p.ns) - p.ns }));
  const shown = rows.filter((p) => p.ns > 0),
    zero = rows.filter((p) => p.ns === 0);
  return html`<h2>
      Gateway
      <span class="quiet"
        >first byte in to last byte out: ${ns(x.total_ns)}, the sum of its phases</span
      >
    </h2>
    <table class="fall">
      <tbody>
        ${shown.map(
          (p) =>
            html`<tr>
              <th scope="row">${p.name}</th>
              <td class="num">${ns(p.ns)}</td>
              <td class="num quiet">${percent(p.ns / x.total_ns)}</td>
              <td class="rest">
                <${Bar} from=${p.from} size=${p.ns} total=${x.total_ns} name=${`phase-${p.name}`} />
              </td>
            </tr>`,
        )}
      </tbody>
    </table>
    ${zero.length > 0 && html`<p class="quiet">0: ${zero.map((p) => p.name).join(", ")}</p>`}`;
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
export function treeOf(rows, all) {
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
  return html`<a class="quiet" href=${link(["request", by.trace_id])}>${` woken by ${name}`}</a>`;
}

function Node({ node, total, depth }) {
  const children = [...node.children.values()].sort((a, b) => b.ns - a.ns);
  const estimated = node.exact ? "" : "~";
  return html`<tr class=${`depth${Math.min(depth, 12)}`}>
      <th scope="row" style=${{ paddingLeft: `${depth * 1.1 + 0.3}em` }}>
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

function Breakdown({ title, rows, unattributed, total, all }) {
  const kinds = [...treeOf(rows, all).children.values()].sort((a, b) => b.ns - a.ns);
  return html`<h3>${title} <span class="quiet">${ns(total)}</span></h3>
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
    value: (s) => s.route ?? s.trace_id ?? "no request",
    class: "wide",
  },
  { key: "state", label: "The loop was", value: (s) => s.state ?? "unknown" },
  {
    key: "ns",
    label: "Held this request",
    value: (s) => s.ns,
    show: (s) => ns(s.ns),
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

function segmentText(kind, length, waker) {
  return `${kind} ${ns(length)}${waker >= 0 ? `, woken by lane ${waker}` : ""}`;
}

function laneText(lane) {
  const times = `run ${ns(lane.run_ns)}, ready ${ns(lane.ready_ns)}, wait ${ns(lane.wait_ns)}`;
  return `lane ${lane.id}: ${times}`;
}

function Lanes({ lanes, total }) {
  const colors = {
    run: "kind-run",
    ready: "kind-ready",
    wait: "kind-wait",
    thread_queue: "kind-thread_queue",
    thread_run: "kind-thread_run",
  };
  return html`<h3>
      Lanes
      <span class="quiet"
        >tasks and thread jobs that worked for this request, from its first byte</span
      >
    </h3>
    <table class="fall lanes">
      <tbody>
        ${lanes.map(
          (lane) =>
            html`<tr>
              <th scope="row">
                ${lane.id} ${lane.name ?? lane.kind}
                ${lane.parent !== null && html`<span class="quiet"> of ${lane.parent}</span>`}
              </th>
              <td class="rest">
                <svg
                  viewBox="0 0 1000 12"
                  preserveAspectRatio="none"
                  role="img"
                  aria-label=${laneText(lane)}
                >
                  ${(lane.timeline ?? []).map(
                    ([from, to, kind, , waker]) =>
                      html`<rect
                        class=${colors[kind] ?? "kind-run"}
                        x=${(from / total) * 1000}
                        width=${Math.max(((to - from) / total) * 1000, 0.5)}
                        y=${kind === "wait" ? 4 : 0}
                        height=${kind === "wait" ? 4 : 12}
                      >
                        <title>${segmentText(kind, to - from, waker)}</title></rect
                      >`,
                  )}
                </svg>
              </td>
            </tr>`,
        )}
      </tbody>
    </table>`;
}

const MISSING = {
  no_hook: "The app has no hook (tailrace.wrap, TAILRACE_CALLBACK), or was not reached.",
  late: "The profile did not come within profile.join_timeout_ms.",
  dropped:
    "The hook or a table of the gateway was full, and this profile was lost (it is counted).",
  refused: "A profile came that cannot be true of this exchange, and was refused.",
  pending: "The profile is on its way; this page asks again.",
};

function placeText(p) {
  const clock = p.clock === "shared" ? "same clock" : `placed within ${ns(p.clock_slack_ns)}`;
  return `${p.loop}, Python ${p.python}, pid ${p.pid}; ${clock}`;
}

function Profile({ of: x, all }) {
  const p = x.profile;
  return html`<h2>
      App
      <span class="quiet">${placeText(p)}</span>
    </h2>
    <${AppTrack} of=${x} />
    <label class="bar"
      ><input
        type="checkbox"
        checked=${all}
        onChange=${(e) => setQuery({ frames: e.target.checked ? "all" : "" }, true)}
      />
      library frames too</label
    >
    <${Breakdown}
      title="What app was made of"
      rows=${p.breakdown}
      unattributed=${p.unattributed_ns}
      total=${p.app_ns}
      all=${all}
    />
    ${
      p.stream_breakdown.length > 0 &&
      html`<${Breakdown}
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
        href=${(s) => (s.trace_id ? link(["request", s.trace_id]) : location.hash)}
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
    ${p.lanes?.length > 0 && html`<${Lanes} lanes=${p.lanes} total=${x.total_ns} />`}`;
}

const OVERLAY_HELP = {
  kernel_in_ns: "in the kernel before the gateway read it",
  idle_before_ns: "the client's pause before this request",
  backpressure_ns: "reading the app was paused: the client was slow",
  client_body_ns: "waiting for the client's bytes",
};

function Facts({ of: x }) {
  const c = x.connection;
  const overlays = Object.entries(x.overlays).filter(([, v]) => typeof v === "number" && v > 0);
  const facts = [
    ["Started", `${isoTime(x.start)} UTC`],
    ["Client", `${c.client}${c.client_reused ? " (kept alive)" : ""}`],
    [
      "Server",
      `${c.server ?? "none"}${c.server_reused ? " (kept alive)" : ""}, attempt ${c.attempts}`,
    ],
    ["Bodies", `${bytes(c.request_body_bytes)} in, ${bytes(c.response_body_bytes)} out`],
    ...(x.died_in ? [["Ended in", `${x.died_in}: ${x.cause}`]] : []),
    ...(x.tunnel ? [["Tunnel", JSON.stringify(x.tunnel)]] : []),
    ...overlays.map(([k, v]) => [
      k.replace(/_ns$/, "").replaceAll("_", " "),
      `${ns(v)}${OVERLAY_HELP[k] ? `, ${OVERLAY_HELP[k]}` : ""}`,
    ]),
  ];
  return html`<dl class="facts">
    ${facts.map(
      ([k, v]) =>
        html`<dt>${k}</dt>
          <dd>${v}</dd>`,
    )}
  </dl>`;
}

const quote = (text) => `'${text.replaceAll("'", "'\\''")}'`;

const FORMATS = ["speedscope", "collapsed", "chrome"];

function Export({ trace, format }) {
  const path = `/api/v1/requests/${trace}/profile${search({ format })}`;
  return html`<a href=${path} download=${`${trace}.${format}`}>${format}</a>`;
}

function Others({ of }) {
  const spans = of.others.map((o) => o.span_id ?? o);
  const links = spans.map((span) => {
    return html`<a class="mono" href=${link(["request", of.trace_id], { span })}>${span}</a> `;
  });
  return html`<p>${"Others of this trace: "}${links}</p>`;
}

function Tools({ of: x }) {
  const curl = `curl -i -X ${quote(x.method)} ${quote(`http://127.0.0.1:8080${x.path}`)}`;
  return html`<div class="bar">
    <button onClick=${() => navigator.clipboard.writeText(curl)} title=${curl}>Copy as curl</button>
    <button onClick=${() => download(`${x.trace_id}.json`, "application/json", JSON.stringify(x))}>
      JSON
    </button>
    ${x.profile && FORMATS.map((f) => html`<${Export} trace=${x.trace_id} format=${f} />`)}
    <span class="mono quiet">trace ${x.trace_id} · span ${x.span_id}</span>
  </div>`;
}

export function Request({ trace, query }) {
  const answer = useApi(`/api/v1/requests/${trace}${search({ span: query.span })}`);
  return html`<${Answer} of=${answer}
    >${(x) =>
      html` <div class="bar">
          <h1><span class="mono">${x.method}</span> ${x.path}</h1>
          <span class=${x.status >= 500 || x.status === null ? "state firing" : "state ok"}
            >${x.status ?? "no answer"}</span
          >
          <strong>${ns(x.total_ns)}</strong><span class="quiet">route ${x.route}</span>
        </div>
        <${Tools} of=${x} /><${Facts} of=${x} /><${Phases} of=${x} /> ${
          x.profile
            ? html`<${Profile} of=${x} all=${query.frames === "all"} />`
            : html`<div class="note">
                <h2>No profile</h2>
                <p>${MISSING[x.profile_missing] ?? x.profile_missing}</p>
              </div>`
        }
        ${x.others?.length > 0 && html`<${Others} of=${x} />`}`}<//
  >`;
}

// One request: the waterfall of its phases, the app's part unfolded (profile.js), exports.
import { useState } from "preact/hooks";
import { html, Answer, useApi } from "./parts.js";
import { Bar, Profile } from "./profile.js";
import { Save } from "./table.js";
import { bytes, download, isoTime, ns, percent } from "./format.js";
import { link } from "./router.js";
import { query as search } from "./api.js";

const PHASE_COLUMNS = [
  { key: "name", label: "Phase", value: (p) => p.name },
  { key: "ns", label: "ns", value: (p) => p.ns },
];

const PHASE_HELP = {
  head: "the client's first byte to the end of its head",
  admit: "route, trace and limits",
  queue: "waiting for a free slot at a server",
  retry: "attempts before the last",
  connect: "connecting to the server",
  dispatch: "to the first byte sent to it",
  send: "sending the request",
  wait: "to the app's first byte",
  reply_head: "reading its head",
  reply: "to the first byte at the client",
  stream: "the body, as the app sends it",
  drain: "the rest, as the client takes it",
};

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
      <${Save} name="phases" caption="Phases" columns=${PHASE_COLUMNS} rows=${x.phases} />
    </h2>
    <table class="fall">
      <tbody>
        ${shown.map(
          (p) =>
            html`<tr>
              <th scope="row" title=${PHASE_HELP[p.name]}>${p.name}</th>
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

const MISSING = {
  no_hook: "The app has no hook (tailrace.wrap, TAILRACE_CALLBACK), or was not reached.",
  late: "The profile did not come within profile.join_timeout_ms.",
  dropped:
    "The hook or a table of the gateway was full, and this profile was lost (it is counted).",
  refused: "A profile came that cannot be true of this exchange, and was refused.",
  pending: "The profile is on its way; this page asks again.",
};

const OVERLAY_HELP = {
  kernel_in_ns: "in the kernel before the gateway read it",
  idle_before_ns: "the client's pause before this request",
  backpressure_ns: "reading the app was paused: the client was slow",
  client_body_ns: "waiting for the client's bytes",
};

function tunnelText(t) {
  const moved = `${bytes(t.client_bytes)} from the client, ${bytes(t.server_bytes)} from the app`;
  return `${ns(t.ns)}, ${moved}${t.cause ? `, ended by ${t.cause}` : ""}`;
}

function Facts({ of: x }) {
  const c = x.connection;
  const overlays = Object.entries(x.overlays).filter(([, v]) => typeof v === "number" && v > 0);
  const facts = [
    ["Trace", html`<span class="mono">${x.trace_id}</span>`],
    ["Span", html`<span class="mono">${x.span_id}</span>`],
    ["Started", `${isoTime(x.start)} UTC`],
    ["Client", `${c.client}${c.client_reused ? " (kept alive)" : ""}`],
    [
      "Server",
      `${c.server ?? "none"}${c.server_reused ? " (kept alive)" : ""}, attempt ${c.attempts}`,
    ],
    ["Bodies", `${bytes(c.request_body_bytes)} in, ${bytes(c.response_body_bytes)} out`],
    ...(x.died_in ? [["Ended in", `${x.died_in}: ${x.cause}`]] : []),
    ...(x.tunnel ? [["Tunnel", tunnelText(x.tunnel)]] : []),
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

// For a shell: quoted whole, whatever a client put into the path.
const quote = (text) => `'${text.replaceAll("'", "'\\''")}'`;

const EXPORTS = [
  ["speedscope", "speedscope.json", "of this site below /speedscope/, and of speedscope.app"],
  ["chrome", "trace.json", "Perfetto, chrome://tracing"],
  ["collapsed", "collapsed.txt", "flame graph tools"],
];

function exportPath(x, format) {
  return `/api/v1/requests/${x.trace_id}/profile${search({ format, span: x.span_id })}`;
}

function Exports({ of: x }) {
  if (!x.profile) return null;
  const deep = x.profile.deep !== null;
  const viewer = `/speedscope/#profileURL=${encodeURIComponent(exportPath(x, "speedscope"))}`;
  return html`<a class="button" href=${viewer} target="_blank" rel="noopener">Open in speedscope</a>
    <span class="quiet">Download</span>
    ${EXPORTS.map(
      ([format, file, what]) =>
        html`<a href=${exportPath(x, format)} download=${`${x.trace_id}.${file}`} title=${what}
          >${format}</a
        >`,
    )}
    ${deep && html`<${DeepExports} of=${x} />`}`;
}

// These are made by the hook's package: the page gives the command.
function DeepExports({ of: x }) {
  return ["pstats", "callgrind", "html"].map((format) => {
    const command = `tailrace export ${x.trace_id} --format ${format} >${x.trace_id}.${format}`;
    return html`<${Copy} text=${command} label=${`${format} (copy command)`} />`;
  });
}

function Copy({ text, label }) {
  const [done, setDone] = useState("");
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text);
      setDone("copied");
    } catch {
      setDone("not allowed here: see the title");
    }
    setTimeout(() => setDone(""), 2000);
  };
  return html`<span
    ><button onClick=${copy} title=${text}>${label}</button
    ><span class="quiet" role="status">${done && ` ${done}`}</span></span
  >`;
}

// The gateway's first listener as the configuration says it; "any address" is the host we are at.
function useBase() {
  const answer = useApi("/api/v1/config");
  const listener = answer.data?.config.listeners[0];
  if (!listener || listener.address.startsWith("unix:")) return "http://127.0.0.1:8080";
  const any = /^(0\.0\.0\.0|\[::\]|\*)(?=:)/;
  const address = listener.address.replace(any, location.hostname || "127.0.0.1");
  return `${listener.tls ? "https" : "http"}://${address}`;
}

function Others({ of }) {
  const spans = of.others.map((o) => o.span_id ?? o);
  const links = spans.map((span) => {
    return html`<a class="mono" href=${link(["request", of.trace_id], { span })}>${span}</a> `;
  });
  return html`<p>${"Others of this trace: "}${links}</p>`;
}

function Tools({ of: x }) {
  const curl = `curl -i -X ${quote(x.method)} ${quote(useBase() + x.path)}`;
  const json = () => download(`${x.trace_id}.json`, "application/json", JSON.stringify(x, null, 1));
  return html`<div class="bar">
    <${Copy} text=${curl} label="Copy as curl" />
    <${Copy} text=${x.trace_id} label="Copy trace ID" />
    <button onClick=${json}>JSON</button>
    <${Exports} of=${x} />
  </div>`;
}

function Missing({ of: x }) {
  return html`<div class="note">
    <h2>No profile</h2>
    <p>${MISSING[x.profile_missing] ?? x.profile_missing}</p>
  </div>`;
}

// A profile on its way is asked for again.
const againMs = (x) => (x.profile_missing === "pending" || x.provisional ? 1000 : 0);

export function Request({ trace, query }) {
  const answer = useApi(`/api/v1/requests/${trace}${search({ span: query.span })}`, againMs);
  return html`<${Answer} of=${answer}
    >${(x) =>
      html` <div class="bar">
          <h1><span class="mono">${x.method}</span> ${x.path}</h1>
          <span class=${x.status >= 500 || x.status === null ? "state firing" : "state ok"}
            >${x.status ?? "no answer"}</span
          >
          <strong class="big">${ns(x.total_ns)}</strong>
          <a href=${link(["route", x.route])}>route ${x.route}</a>
        </div>
        <${Tools} of=${x} /><${Facts} of=${x} /><${Phases} of=${x} /> ${
          x.profile
            ? html`<${Profile} of=${x} all=${query.frames === "all"} />`
            : html`<${Missing} of=${x} />`
        }
        ${x.others?.length > 0 && html`<${Others} of=${x} />`}`}<//
  >`;
}

// Columns of requests, wherever they are listed.
import { html, PHASES, ShareBar } from "./parts.js";
import { isoTime, ns } from "./format.js";
import { link } from "./router.js";

export const requestHref = (r) => link(["request", r.trace_id], { span: r.span_id });
export const requestKey = (r) => r.trace_id + r.span_id;

const ended = (r) => (r.status === null || r.status >= 500 ? "worse" : "");

export const TRACE = {
  key: "trace",
  label: "Trace",
  value: (r) => r.trace_id,
  show: (r) => html`<span class="mono" title=${r.trace_id}>${r.trace_id.slice(0, 16)}…</span>`,
};
export const STARTED = {
  key: "start",
  label: "Started (UTC)",
  value: (r) => r.start,
  show: (r) => html`<span title=${r.start}>${isoTime(r.start)}</span>`,
};
export const CLOCK = {
  ...STARTED,
  show: (r) => html`<span title=${r.start}>${isoTime(r.start).slice(11)}</span>`,
};
export const ROUTE = { key: "route", label: "Route", value: (r) => r.route, class: "wide" };
export const PATH = { key: "path", label: "Path", value: (r) => r.path, class: "path" };
export const STATUS = {
  key: "status",
  label: "Status",
  value: (r) => r.status,
  class: "num",
  show: (r) => html`<span class=${ended(r)}>${r.status ?? "none"}</span>`,
};
export const TOTAL = {
  key: "total",
  label: "Total",
  value: (r) => r.total_ns,
  show: (r) => ns(r.total_ns),
  class: "num",
};
export const PROFILE = {
  key: "profile",
  label: "Profile",
  value: (r) => r.has_profile,
  show: (r) => (r.has_profile ? "yes" : html`<span class="quiet">no</span>`),
};

export const phaseParts = (ns_by_phase) =>
  PHASES.map((p) => ({ name: p, class: `phase-${p}`, value: ns_by_phase[p] ?? 0 }));

export const PHASE_BAR = {
  key: "phases",
  label: "Where the time went",
  value: (r) => r.total_ns,
  class: "chartcell",
  show: (r) =>
    html`<${ShareBar} parts=${phaseParts(r.phases_ns)} total=${r.total_ns} label="phases" />`,
};

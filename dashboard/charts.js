// Charts on canvas (uPlot), the heat map, flame graphs (d3-flame-graph).
import { useEffect, useRef } from "preact/hooks";
import uPlot from "uplot";
import flamegraph from "d3-flame-graph";
import { select } from "d3-selection";
import { html } from "./parts.js";
import { ns, percent, signedNs, time } from "./format.js";

export const color = (name) =>
  getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

function axes(format) {
  const line = {
    stroke: color("quiet"),
    grid: { stroke: color("grid"), width: 1 },
    ticks: { show: false },
    font: "11px system-ui",
  };
  return [
    { ...line, values: (_, ts) => ts.map((t) => time(t, false)), space: 80 },
    { ...line, values: (_, vs) => vs.map(format), size: 64 },
  ];
}

// Vertical lines for deploys, shaded spans for incidents.
function marks(deploys, incidents) {
  return {
    hooks: {
      draw: [
        (u) => {
          const { left, top, width, height } = u.bbox;
          const at = (t) => Math.min(Math.max(u.valToPos(t, "x", true), left), left + width);
          u.ctx.save();
          for (const i of incidents) {
            const from = at(i.since),
              until = at(i.until ?? u.scales.x.max);
            u.ctx.fillStyle = color("incident");
            if (until > from) u.ctx.fillRect(from, top, until - from, height);
          }
          u.ctx.strokeStyle = color("deploy");
          u.ctx.fillStyle = color("deploy");
          u.ctx.font = `${11 * devicePixelRatio}px system-ui`;
          for (const d of deploys) {
            if (d.t < u.scales.x.min || d.t > u.scales.x.max) continue;
            u.ctx.beginPath();
            u.ctx.moveTo(at(d.t), top);
            u.ctx.lineTo(at(d.t), top + height);
            u.ctx.stroke();
            u.ctx.fillText(d.version, at(d.t) + 3, top + 11 * devicePixelRatio);
          }
          u.ctx.restore();
        },
      ],
    },
  };
}

// One chart; `series` are {label, values, stroke, fill, width, bars}; a drag selects a span.
export function Chart({
  title,
  t,
  series,
  format,
  height = 160,
  deploys = [],
  incidents = [],
  onSpan,
}) {
  const box = useRef(null);
  const theme = window.matchMedia("(prefers-color-scheme: dark)").matches;
  useEffect(() => {
    const options = {
      width: box.current.clientWidth || 600,
      height,
      padding: [8, 8, 0, 0],
      cursor: { drag: { x: true, y: false, setScale: false }, sync: { key: "route" } },
      scales: { x: { time: true }, y: { range: (_, min, max) => [0, Math.max(max, 1e-9) * 1.05] } },
      axes: axes(format),
      legend: { live: true },
      plugins: [marks(deploys, incidents)],
      tzDate: (s) => uPlot.tzDate(new Date(s * 1e3), "Etc/UTC"),
      hooks: {
        setSelect: [
          (u) => {
            if (!onSpan || u.select.width < 5) return;
            onSpan(
              Math.floor(u.posToVal(u.select.left, "x")),
              Math.ceil(u.posToVal(u.select.left + u.select.width, "x")),
            );
          },
        ],
      },
      series: [
        { label: "UTC", value: (_, v) => (v === null ? "–" : time(v)) },
        ...series.map((s) => ({
          label: s.label,
          stroke: s.stroke,
          fill: s.fill,
          width: s.width ?? 1.5,
          spanGaps: false,
          points: { show: s.values.filter((v) => v !== null).length < 40, size: 4 },
          paths: s.bars ? uPlot.paths.bars({ size: [0.9, 40] }) : undefined,
          value: (_, v) => (v === null ? "–" : format(v)),
        })),
      ],
    };
    const plot = new uPlot(options, [t, ...series.map((s) => s.values)], box.current);
    const watch = new ResizeObserver(() =>
      plot.setSize({ width: box.current.clientWidth, height }),
    );
    watch.observe(box.current);
    return () => {
      watch.disconnect();
      plot.destroy();
    };
  }, [t, series, theme]);
  return html`<figure class="chart">
    <figcaption>${title}</figcaption>
    <div ref=${box} role="img" aria-label=${title}></div>
  </figure>`;
}

// Sums that lie on each other, the last on top.
export function stack(parts) {
  const base = new Array(parts[0]?.values.length ?? 0).fill(0);
  return parts
    .map((p) => ({ ...p, values: p.values.map((v, i) => (base[i] += v ?? 0)) }))
    .reverse();
}

// How many requests lay where: time across, latency upwards (logarithmic, as the bands are).
export function HeatMap({ points, title }) {
  const canvas = useRef(null);
  const bands = points.flatMap((p) => p.bands);
  const low = Math.min(...bands.map((b) => b[0] || b[1] / 1.19)),
    high = Math.max(...bands.map((b) => b[1]));
  useEffect(() => {
    const node = canvas.current;
    if (!node || !bands.length) return;
    const width = (node.width = node.clientWidth * devicePixelRatio);
    const height = (node.height = node.clientHeight * devicePixelRatio);
    const context = node.getContext("2d");
    const y = (v) =>
      height - (Math.log(Math.max(v, low) / low) / Math.log(high / low || 2)) * height;
    const most = Math.max(...bands.map((b) => b[2]));
    points.forEach((p, i) => {
      for (const [from, to, n] of p.bands) {
        context.globalAlpha = 0.15 + 0.85 * Math.sqrt(n / most);
        context.fillStyle = color("heat");
        const top = y(to);
        context.fillRect(
          (i * width) / points.length,
          top,
          Math.max(width / points.length - 0.5, 1),
          Math.max(y(from) - top - 0.5, 1),
        );
      }
    });
  }, [points]);
  if (!bands.length) return null;
  return html`<figure class="chart">
    <figcaption>${title}</figcaption>
    <div class="heat">
      <span class="quiet">${ns(high)}</span
      ><canvas
        ref=${canvas}
        role="img"
        aria-label=${`${title}, from ${ns(low)} to ${ns(high)}`}
      ></canvas
      ><span class="quiet">${ns(low)}</span>
    </div>
  </figure>`;
}

const leadsToApp = (tree) => (tree.children ?? []).some((c) => c.in_app || leadsToApp(c));

// Children, those of the server's and the framework's frames above the app's own in their place.
const below = (tree, all) =>
  (tree.children ?? []).flatMap((c) =>
    !all && !c.in_app && !c.kind && leadsToApp(c) ? below(c, all) : [c],
  );

function node(tree, all) {
  return {
    name: tree.name,
    kind: tree.kind,
    inApp: tree.in_app,
    value: tree.ns,
    before: tree.baseline_ns,
    count: tree.count,
    children: below(tree, all).map((c) => node(c, all)),
  };
}

// What the app's own code is stands out; differences are red where it grew, blue where it shrank.
function paint(d, differ, whole) {
  const { inApp, kind, value, before } = d.data;
  if (!differ) return color(kind ? `kind-${kind}` : inApp ? "flame-app" : "flame-lib");
  if (!before) return color("flame-new");
  const part = Math.max(-1, Math.min(1, ((value - before) / whole) * 3));
  const strength = Math.round(Math.abs(part) * 100);
  const hue = part >= 0 ? color("grew") : color("shrank");
  return `color-mix(in srgb, ${hue} ${strength}%, ${color("flame-lib")})`;
}

function label(d, differ, whole) {
  const text = `${d.data.name}  ${ns(d.data.value)} per request, ${percent(d.data.value / whole)}`;
  return differ
    ? `${text}; before ${ns(d.data.before ?? 0)}, ${signedNs(d.data.value - (d.data.before ?? 0))}`
    : text;
}

export function Flame({ tree, differ = false, title, search = "", all = false }) {
  const box = useRef(null);
  const told = useRef(null);
  const graph = useRef(null);
  useEffect(() => {
    const whole = tree.ns || 1;
    graph.current = flamegraph()
      .width(box.current.clientWidth || 800)
      .cellHeight(18)
      .minFrameSize(2)
      .inverted(true)
      .transitionDuration(0)
      .sort((a, b) => b.value - a.value)
      .tooltip(false)
      .title("")
      .setColorMapper((d) => paint(d, differ, whole))
      .setLabelHandler((d) => label(d, differ, whole))
      .getName((d) => d.data.name)
      .setDetailsElement(told.current);
    const root = select(box.current);
    root.datum(node(tree, all)).call(graph.current);
    const watch = new ResizeObserver(() => {
      graph.current?.width(box.current.clientWidth);
      graph.current?.update();
    });
    watch.observe(box.current);
    return () => {
      watch.disconnect();
      graph.current.destroy();
      graph.current = null;
    };
  }, [tree, differ, all]);
  useEffect(() => {
    if (search) graph.current?.search(search);
    else graph.current?.clear();
  }, [search, tree, all]);
  return html`<figure class="chart">
    <figcaption>
      ${title}${
        differ &&
        html`<span class="key">
          <span class="swatch grew"></span>grew <span class="swatch shrank"></span>shrank
          <span class="swatch new"></span>new</span
        >`
      } <button onClick=${() => graph.current?.resetZoom()}>Reset zoom</button>
    </figcaption>
    <div class="flame" ref=${box} role="img" aria-label=${title}></div>
    <p class="told" ref=${told} aria-live="polite"></p>
  </figure>`;
}

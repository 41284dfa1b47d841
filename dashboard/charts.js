// Charts on canvas (uPlot), the heat map.
import { useEffect, useRef, useState } from "preact/hooks";
import uPlot from "uplot";
import { html } from "./parts.js";
import { ns, time } from "./format.js";

export const color = (name) =>
  getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

// Whole minutes need no seconds, whole days no clock.
function clock(t) {
  const text = time(t);
  if (t % 86400 === 0) return text.slice(5, 10);
  return t % 60 === 0 ? text.slice(11, 16) : text.slice(11);
}

function axes(format) {
  const line = {
    stroke: color("quiet"),
    grid: { stroke: color("grid"), width: 1 },
    ticks: { show: false },
    font: "11px system-ui",
  };
  return [
    { ...line, values: (_, ts) => ts.map(clock), space: 70, size: 26 },
    { ...line, values: (_, vs) => vs.map(format), size: 64 },
  ];
}

// Vertical lines for deploys, shaded spans for incidents and for what was chosen: what `now` holds
// of them when it is drawn.
function marks(now) {
  return {
    hooks: {
      draw: [
        (u) => {
          const { deploys, incidents, chosen } = now.current;
          const { left, top, width, height } = u.bbox;
          const at = (t) => Math.min(Math.max(u.valToPos(t, "x", true), left), left + width);
          u.ctx.save();
          if (chosen) {
            const from = at(chosen.from);
            u.ctx.fillStyle = color("chosen");
            u.ctx.fillRect(from, top, Math.max(at(chosen.to) - from, 1), height);
          }
          for (const i of incidents) {
            const from = at(i.since),
              until = at(i.until ?? u.scales.x.max);
            u.ctx.fillStyle = color("incident");
            if (until > from) u.ctx.fillRect(from, top, until - from, height);
          }
          u.ctx.fillStyle = color("deploy");
          u.ctx.font = `${11 * devicePixelRatio}px system-ui`;
          for (const d of deploys) {
            if (d.t < u.scales.x.min || d.t > u.scales.x.max) continue;
            u.ctx.fillRect(Math.round(at(d.t)), top, devicePixelRatio, height); // whole pixels
            const right = at(d.t) > left + width / 2; // there is more room on the other side
            u.ctx.textAlign = right ? "right" : "left";
            u.ctx.fillText(d.version, at(d.t) + (right ? -3 : 3), top + 11 * devicePixelRatio);
          }
          u.ctx.restore();
        },
      ],
    },
  };
}

// Which theme is on: canvases have to be drawn again when it changes.
export function useTheme() {
  const media = window.matchMedia("(prefers-color-scheme: dark)");
  const [dark, setDark] = useState(media.matches);
  useEffect(() => {
    const changed = () => setDark(media.matches);
    media.addEventListener("change", changed);
    return () => media.removeEventListener("change", changed);
  }, []);
  return dark;
}

// What lies on others is drawn above them, and told as what it is.
const ownOf = (s) => s.own ?? s.values;

const isKnown = (v) => v !== null && v !== undefined;

// For who cannot see it: the last value and the highest of each line.
function told(series, format) {
  return series
    .map((s) => {
      const known = ownOf(s).filter(isKnown);
      if (!known.length) return `${s.label}: none`;
      return `${s.label}: last ${format(known.at(-1))}, at most ${format(Math.max(...known))}`;
    })
    .join("; ");
}

// What a plot is made for: all else of a series are its values, which it takes as they come.
const shapeOf = (series) =>
  series.map((s) => [s.label, s.stroke, s.fill, s.width, s.bars].join()).join(";");

// Few values are seen better with points.
const scattered = (u, i) => u.data[i].filter(isKnown).length < 40;

// The value under the cursor; where there is none, the newest.
function shownOf(values, at) {
  return isKnown(at) ? values[at] : values.findLast(isKnown);
}

function line(s, format, now) {
  return {
    label: s.label,
    stroke: color(s.stroke),
    fill: s.fill && color(s.fill),
    width: s.width ?? 1.5,
    spanGaps: false,
    points: { show: s.fill ? false : scattered, size: 4 },
    paths: s.bars ? uPlot.paths.bars({ size: [0.9, 80], align: 1 }) : undefined,
    value: (_u, _v, i, at) => {
      const shown = shownOf(now.current.own[i - 1], at);
      return isKnown(shown) ? format(shown) : "–";
    },
  };
}

// `now` holds what changes while a plot lives: marks, and what a drag leads to.
function plotOptions(width, height, series, format, now) {
  const select = (u) => {
    const { left, width: wide } = u.select;
    if (!now.current.onSpan || wide < 5) return;
    u.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false); // shaded is what is shown
    now.current.onSpan(
      Math.floor(u.posToVal(left, "x")),
      Math.ceil(u.posToVal(left + wide, "x")),
    );
  };
  return {
    width,
    height,
    padding: [8, 26, 0, 0], // half of the last time below the axis
    cursor: { drag: { x: true, y: false, setScale: false }, sync: { key: "route" } },
    scales: {
      x: { time: true, range: (_, min, max) => [min, max + now.current.step] }, // to the step's end
      y: { range: (_, min, max) => [0, Math.max(max, 1e-9) * 1.05] },
    },
    axes: axes(format),
    legend: { live: true },
    plugins: [marks(now)],
    tzDate: (s) => uPlot.tzDate(new Date(s * 1e3), "Etc/UTC"),
    hooks: { setSelect: [select] },
    series: [
      { label: "UTC", value: (u, _v, _i, at) => time(shownOf(u.data[0], at) ?? 0) },
      ...series.map((s) => line(s, format, now)),
    ],
  };
}

// While a span is dragged over one chart the others show it too: all hold still until it is done.
const drag = { on: false, late: new Set() };
window.addEventListener("mouseup", () => {
  drag.on = false;
  for (const chart of drag.late) chart.current.update();
  drag.late.clear();
});

const NO_MARKS = [];

// One chart; `series` are {label, values, own, stroke, fill, width, bars}, colours by their names,
// `own` what is told instead of the values; each value holds for `step` seconds. `chosen` is a span
// {from, to} that is shaded; a drag selects one, and no newer data moves what is dragged over.
// `format` is the same as long as the series are.
export function Chart({
  title,
  t,
  series,
  format,
  step,
  height = 160,
  deploys = NO_MARKS,
  incidents = NO_MARKS,
  chosen = null,
  onSpan,
}) {
  const box = useRef(null);
  const theme = useTheme();
  const shape = shapeOf(series);
  const now = useRef({});
  const plotted = useRef(null);
  const data = [t, ...series.map((s) => s.values)];
  Object.assign(now.current, { deploys, incidents, chosen, onSpan, step, data });
  now.current.own = series.map(ownOf);
  useEffect(() => {
    const width = box.current.clientWidth || 600;
    const options = plotOptions(width, height, series, format, now);
    const plot = new uPlot(options, now.current.data, box.current);
    plotted.current = plot;
    plot.over.addEventListener("mousedown", () => (drag.on = true));
    const watch = new ResizeObserver(() =>
      plot.setSize({ width: box.current.clientWidth, height }),
    );
    watch.observe(box.current);
    return () => {
      watch.disconnect();
      drag.late.delete(now);
      plot.destroy();
      plotted.current = null;
    };
  }, [shape, theme]);
  useEffect(() => {
    now.current.update = () => {
      if (plotted.current.data[0] === t) plotted.current.redraw(false);
      else plotted.current.setData(now.current.data);
    };
    if (drag.on) drag.late.add(now);
    else now.current.update();
  }, [t, series, deploys, incidents, chosen?.from, chosen?.to]);
  return html`<figure class="chart">
    <figcaption>${title}</figcaption>
    <div ref=${box} role="img" aria-label=${`${title}: ${told(series, format)}`}></div>
  </figure>`;
}

// Sums that lie on each other, the last on top.
export function stack(parts) {
  const base = new Array(parts[0]?.values.length ?? 0).fill(0);
  return parts
    .map((p) => {
      const values = p.values.map((v, i) => (v === null ? null : (base[i] += v)));
      return { ...p, own: p.values, values };
    })
    .reverse();
}

// How many requests lay where: time across, latency upwards (logarithmic, as the bands are).
export function HeatMap({ points, title }) {
  const canvas = useRef(null);
  const theme = useTheme();
  const bands = points.flatMap((p) => p.bands);
  const low = Math.min(...bands.map((b) => b[0] || b[1] / 1.19)),
    high = Math.max(...bands.map((b) => b[1]));
  const draw = (node) => {
    const width = (node.width = node.clientWidth * devicePixelRatio);
    const height = (node.height = node.clientHeight * devicePixelRatio);
    const context = node.getContext("2d");
    const y = (v) =>
      height - (Math.log(Math.max(v, low) / low) / Math.log(high / low || 2)) * height;
    const most = Math.max(...bands.map((b) => b[2]));
    context.fillStyle = color("heat");
    points.forEach((p, i) => {
      for (const [from, to, n] of p.bands) {
        context.globalAlpha = 0.15 + 0.85 * Math.sqrt(n / most);
        const top = y(to);
        context.fillRect(
          (i * width) / points.length,
          top,
          Math.max(width / points.length - 0.5, 1),
          Math.max(y(from) - top - 0.5, 1),
        );
      }
    });
  };
  useEffect(() => {
    if (!canvas.current || !bands.length) return;
    const watch = new ResizeObserver(() => draw(canvas.current)); // tells the first size too
    watch.observe(canvas.current);
    return () => watch.disconnect();
  }, [points, theme]);
  if (!bands.length) return null;
  return html`<figure class="chart wide-chart">
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
    <div class="ends quiet">
      <span>${time(points[0].t)} UTC</span><span>${time(points.at(-1).t)}</span>
    </div>
  </figure>`;
}

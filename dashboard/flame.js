// Flame graphs (d3-flame-graph): zoomed and searched by the address, drawn no finer than the eye
// sees.
import { useEffect, useRef } from "preact/hooks";
import flamegraph from "d3-flame-graph";
import { select } from "d3-selection";
import { html, matches } from "./parts.js";
import { color, useTheme } from "./charts.js";
import { ns, percent, signedNs } from "./format.js";
import { setQuery } from "./router.js";

const FRAMES_MAX = 400; // drawn at a time
const FRAME_MIN_PX = 2;

const leadsToApp = (tree) => (tree.children ?? []).some((c) => c.in_app || leadsToApp(c));

// Children, those of the server's and the framework's frames above the app's own in their place.
const below = (tree, all) =>
  (tree.children ?? []).flatMap((c) =>
    !all && !c.in_app && !c.kind && leadsToApp(c) ? below(c, all) : [c],
  );

// A frame is drawn a trifle narrower than the one it stands on, so that where many are equally wide
// the upper ones are drawn (see finest()).
const NARROWER = 1e-6;

function treeOf(tree, all, depth = 0) {
  return {
    name: tree.name,
    kind: tree.kind,
    inApp: tree.in_app,
    value: tree.ns * (1 - depth * NARROWER),
    ns: tree.ns,
    before: tree.baseline_ns,
    count: tree.count,
    children: below(tree, all).map((c) => treeOf(c, all, depth + 1)),
  };
}

// What the app's own code is stands out; differences are red where it grew, blue where it shrank.
function paint(d, differ, whole, tint) {
  const { inApp, kind, ns: value, before } = d.data;
  if (d.highlight) return tint("found"); // by the search
  if (!differ) return tint(kind ? `kind-${kind}` : inApp ? "flame-app" : "flame-lib");
  if (!before) return tint("flame-new");
  const part = Math.max(-1, Math.min(1, ((value - before) / whole) * 3));
  const strength = Math.round(Math.abs(part) * 100);
  const hue = part >= 0 ? tint("grew") : tint("shrank");
  return `color-mix(in srgb, ${hue} ${strength}%, ${tint("flame-lib")})`;
}

// Asking the page for a colour between two changes of it lays it out anew: each is asked for once.
function tints() {
  const known = new Map();
  return (name) => {
    if (!known.has(name)) known.set(name, color(name));
    return known.get(name);
  };
}

function label(d, differ, whole) {
  const text = `${d.data.name}  ${ns(d.data.ns)} per request, ${percent(d.data.ns / whole)}`;
  return differ
    ? `${text}; before ${ns(d.data.before ?? 0)}, ${signedNs(d.data.ns - (d.data.before ?? 0))}`
    : text;
}

// The narrowest frame that is drawn, so that there are FRAMES_MAX at most below `top`.
function finest(top, width) {
  const sizes = [];
  const walk = (n) => {
    sizes.push(n.value);
    n.children.forEach(walk);
  };
  walk(top);
  if (sizes.length <= FRAMES_MAX) return FRAME_MIN_PX;
  sizes.sort((a, b) => b - a);
  return Math.max(FRAME_MIN_PX, (sizes[FRAMES_MAX] / (top.value || 1)) * width);
}

// A frame's place, short enough for an address: a hash of the names above it and its own.
function placeOf(names) {
  let hash = 5381;
  for (const c of names.join("\u0000")) hash = (hash * 33 + c.codePointAt(0)) >>> 0;
  return hash.toString(36);
}

function names(d) {
  const found = [];
  for (let at = d; at; at = at.parent) found.unshift(at.data.name);
  return found;
}

function find(d, place) {
  if (placeOf(names(d)) === place) return d;
  for (const child of d.children ?? []) {
    const found = find(child, place);
    if (found) return found;
  }
  return null;
}

// `told` takes what a frame under the pointer is, and `found`, what fits the search, under none.
function make(box, told, found, differ, whole) {
  const tint = tints();
  return flamegraph()
    .width(box.clientWidth || 800)
    .cellHeight(18)
    .minFrameSize(FRAME_MIN_PX)
    .resetHeightOnZoom(true) // what is too narrow for the whole may be deeper
    .inverted(true)
    .transitionDuration(0)
    .sort((a, b) => b.value - a.value)
    .tooltip(false)
    .title("")
    .setColorMapper((d) => paint(d, differ, whole, tint))
    .setLabelHandler((d) => label(d, differ, whole))
    .getName((d) => d.data.name)
    .setSearchMatch((d, wanted) => wanted !== "" && matches(d.data.name, wanted))
    .setDetailsHandler((text) => (told.textContent = text ?? found.current));
}

// The frame that an arrow leads to from `at`: what it called, who called it, its neighbours.
function stepped(frames, at, key) {
  if (!frames.includes(at)) return frames[0];
  if (key === "ArrowUp") return at.parent ?? at;
  if (key === "ArrowDown") return frames.find((d) => d.parent === at) ?? at; // the widest is first
  const row = frames.filter((d) => d.depth === at.depth).sort((a, b) => a.x0 - b.x0);
  return row[row.indexOf(at) + (key === "ArrowRight" ? 1 : -1)] ?? at;
}

// Marks the frame that was chosen by keys.
function mark(box, chosen) {
  for (const g of box.querySelectorAll("g.frame"))
    g.toggleAttribute("data-chosen", g.__data__ === chosen);
}

function Key({ differ }) {
  if (!differ)
    return html`<span class="key"
      ><span class="swatch flame-app"></span>the app's own code
      <span class="swatch flame-lib"></span>libraries <span class="swatch kind-wait"></span>wait
      <span class="swatch kind-run"></span>run <span class="swatch kind-ready"></span>ready</span
    >`;
  return html`<span class="key"
    ><span class="swatch grew"></span>grew <span class="swatch shrank"></span>shrank
    <span class="swatch new"></span>new</span
  >`;
}

export function Flame({ tree, differ = false, title, search = "", all = false, zoom = "" }) {
  const box = useRef(null);
  const told = useRef(null);
  const found = useRef("");
  const graph = useRef(null);
  const chosen = useRef(null); // by keys
  const theme = useTheme();
  const mean = tree.ns || 1;
  useEffect(() => {
    const data = treeOf(tree, all);
    const node = box.current;
    const made = (graph.current = make(box.current, told.current, found, differ, mean));
    let top = data;
    const draw = (to) => {
      top = to;
      made.minFrameSize(finest(top, node.clientWidth || 800));
    };
    draw(data);
    // How fine is settled before the graph's own handler draws.
    const before = (event) => {
      const frame = event.target.closest("g.frame");
      if (frame) draw(frame.__data__.data);
    };
    box.current.addEventListener("click", before, true);
    made.onClick((d) => setQuery({ zoom: d.parent ? placeOf(names(d)) : "" }, true));
    graph.zoomTo = (d) => {
      draw(d.data);
      made.zoomTo(d);
    };
    graph.whole = () => {
      draw(data);
      made.resetZoom();
    };
    select(box.current).datum(data).call(made);
    const drawn = select(box.current).datum();
    const at = zoom && drawn ? find(drawn, zoom) : null;
    if (at) graph.zoomTo(at);
    let width = box.current.clientWidth;
    const watch = new ResizeObserver(() => {
      if (box.current.clientWidth === width) return;
      width = box.current.clientWidth;
      made.width(width);
      draw(top);
      made.update();
    });
    watch.observe(box.current);
    return () => {
      watch.disconnect();
      node.removeEventListener("click", before, true);
      made.destroy();
      graph.current = chosen.current = null;
    };
  }, [tree, differ, all, theme]);
  useEffect(() => {
    const say = (_, sum) => {
      const text = `“${search}”: ${ns(sum)} per request, ${percent(sum / mean)}`;
      told.current.textContent = found.current = search && text;
    };
    graph.current.setSearchHandler(say).search(search);
  }, [search, tree, differ, all, theme]);
  const whole = () => {
    graph.whole?.();
    setQuery({ zoom: "" }, true);
  };
  const press = (event) => {
    const frames = [...box.current.querySelectorAll("g.frame")].map((g) => g.__data__);
    if (event.key === "Enter" && frames.includes(chosen.current)) graph.zoomTo(chosen.current);
    else if (event.key === "Escape") whole();
    else if (event.key.startsWith("Arrow") && frames.length) {
      chosen.current = stepped(frames, chosen.current, event.key);
      told.current.textContent = label(chosen.current, differ, mean);
    } else return;
    event.preventDefault();
    mark(box.current, chosen.current);
  };
  return html`<figure class="chart">
    <figcaption>
      ${title} <${Key} differ=${differ} />
      <button onClick=${whole}>Reset zoom</button>
    </figcaption>
    <div
      tabindex="0"
      role="group"
      aria-label="Frames: arrow keys choose one, Enter zooms to it, Escape shows all"
      onKeyDown=${press}
    >
      <div
        class="flame"
        ref=${box}
        role="img"
        aria-label=${`${title}; the table below says the same`}
      ></div>
    </div>
    <p class="told" ref=${told} aria-live="polite"></p>
  </figure>`;
}

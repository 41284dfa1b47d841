// Lanes on a time axis from the request's first byte: what each did, and who woke whom.
import { useState } from "preact/hooks";
import { html, Frame, Legend } from "./parts.js";
import { Save } from "./table.js";
import { ns } from "./format.js";

const WIDE = 1000; // units of the drawing: the request's time
const ROW = 22;
const KINDS = ["run", "ready", "wait", "thread_queue", "thread_run"];
const SHOWN = 60; // lanes; more are behind a button

const COLUMNS = [
  { key: "id", label: "Lane", value: (l) => l.id },
  { key: "parent", label: "Of", value: (l) => l.parent },
  { key: "kind", label: "Kind", value: (l) => l.kind },
  { key: "name", label: "Name", value: (l) => l.name },
  { key: "created", label: "Created ns", value: (l) => l.created_ns },
  { key: "ended", label: "Ended ns", value: (l) => l.ended_ns },
  { key: "run", label: "Run ns", value: (l) => l.run_ns },
  { key: "ready", label: "Ready ns", value: (l) => l.ready_ns },
  { key: "wait", label: "Wait ns", value: (l) => l.wait_ns },
];

function laneText(lane) {
  const times = `run ${ns(lane.run_ns)}, ready ${ns(lane.ready_ns)}, wait ${ns(lane.wait_ns)}`;
  return `lane ${lane.id} ${lane.name ?? lane.kind}: ${times}`;
}

function Segment({ of: [from, to, kind], y, x, chosen, choose }) {
  const thin = kind === "wait" || kind === "thread_queue";
  return html`<rect
    class=${`seg kind-${KINDS.includes(kind) ? kind : "run"}${chosen ? " chosen" : ""}`}
    x=${x(from)}
    width=${Math.max(x(to) - x(from), 0.7)}
    y=${y + (thin ? 6 : 3)}
    height=${thin ? 6 : 12}
    onClick=${choose}
    ><title>${`${kind} ${ns(to - from)}, from ${ns(from)}`}</title></rect
  >`;
}

// Who woke a lane: a line from the waker's lane down or up to the end of the wait.
function wakeups(lanes, x) {
  const row = new Map(lanes.map((lane, i) => [lane.id, i]));
  return lanes.flatMap((lane, i) =>
    (lane.timeline ?? [])
      .filter(([, , , , waker]) => waker >= 0 && waker !== lane.id && row.has(waker))
      .map(([, to, , , waker]) => ({ at: x(to), from: row.get(waker), to: i })),
  );
}

function Wakeup({ of: w }) {
  const middle = (i) => i * ROW + ROW / 2 - 1;
  return html`<line class="wake" x1=${w.at} x2=${w.at} y1=${middle(w.from)} y2=${middle(w.to)} />`;
}

function Axis({ height }) {
  const parts = [0, 0.25, 0.5, 0.75, 1];
  return parts.map(
    (p) => html`<line class="grid" x1=${p * WIDE} x2=${p * WIDE} y1="0" y2=${height} />`,
  );
}

function Chosen({ lane, segment, stacks, name }) {
  const [from, to, kind, stack, waker] = segment;
  const frames = stacks[stack] ?? [];
  return html`<div class="chosen" aria-live="polite">
    <p>
      <strong>${kind} ${ns(to - from)}</strong> of lane ${lane.id} ${lane.name ?? lane.kind}, from
      ${" "}${ns(from)} to ${ns(to)}${waker >= 0 ? `, ended by ${name(waker)}` : ""}
    </p>
    ${
      frames.length > 0 &&
      html`<ol class="stack">
        ${frames.map((frame) => html`<li><${Frame} frame=${frame} /></li>`)}
      </ol>`
    }
  </div>`;
}

const STEPS = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] };

// The next segment of the lane, or the one at that time of the next lane.
function stepped(lanes, at, [down, right]) {
  if (!at) return lanes[0]?.timeline?.length ? [0, 0] : null;
  const [row, place] = at;
  if (right) {
    const last = lanes[row].timeline.length - 1;
    return [row, Math.min(Math.max(place + right, 0), last)];
  }
  const next = lanes[row + down];
  if (!next?.timeline?.length) return at;
  const from = lanes[row].timeline[place][0];
  const found = next.timeline.findLastIndex(([begin]) => begin <= from);
  return [row + down, Math.max(found, 0)];
}

export function Lanes({ lanes, stacks, total }) {
  const [all, setAll] = useState(false);
  const [at, setAt] = useState(null); // [lane's place, segment's place]
  const shown = all ? lanes : lanes.slice(0, SHOWN);
  const x = (t) => (t / (total || 1)) * WIDE;
  const height = shown.length * ROW;
  const name = (id) => {
    const lane = lanes.find((l) => l.id === id);
    return lane ? `lane ${id} ${lane.name ?? lane.kind}` : `lane ${id}`;
  };
  const lane = at && shown[at[0]];
  const walk = (event) => {
    const step = STEPS[event.key];
    if (!step) return;
    event.preventDefault();
    setAt(stepped(shown, at, step));
  };
  return html`<h3>
      Lanes
      <span class="quiet"
        >tasks and thread jobs that worked for this request, from its first byte; vertical lines:
        who woke whom</span
      ><${Save} name="lanes" caption="Lanes" columns=${COLUMNS} rows=${lanes} />
    </h3>
    <${Legend} names=${KINDS} prefix="kind" />
    <div class="lanes">
      <ul class="names">
        ${shown.map(
          (l) =>
            html`<li title=${laneText(l)} style=${{ height: `${ROW}px` }}>
              <span class="quiet">${l.id}</span> ${l.name ?? l.kind}
            </li>`,
        )}
      </ul>
      <div
        class="drawing"
        tabindex="0"
        role="group"
        aria-label="Segments: arrow keys choose one"
        onKeyDown=${walk}
      >
        <svg
          viewBox=${`0 0 ${WIDE} ${height}`}
          preserveAspectRatio="none"
          style=${{ height: `${height}px` }}
          role="img"
          aria-label=${shown.map(laneText).join("; ")}
        >
          <${Axis} height=${height} />
          ${shown.map((l, i) =>
            (l.timeline ?? []).map(
              (segment, k) =>
                html`<${Segment}
                  of=${segment}
                  x=${x}
                  y=${i * ROW}
                  chosen=${at?.[0] === i && at?.[1] === k}
                  choose=${() => setAt([i, k])}
                />`,
            ),
          )}
          ${wakeups(shown, x).map((w) => html`<${Wakeup} of=${w} />`)}
        </svg>
        <div class="ends quiet">
          <span>0</span><span>${ns(total / 2)}</span><span>${ns(total)}</span>
        </div>
      </div>
    </div>
    ${
      shown.length < lanes.length &&
      html`<button onClick=${() => setAll(true)}>All ${lanes.length} lanes</button>`
    }
    ${
      lane
        ? html`<${Chosen}
            lane=${lane}
            segment=${lane.timeline[at[1]]}
            stacks=${stacks}
            name=${name}
          />`
        : html`<p class="quiet">Click a segment for its stack, or walk by the arrow keys.</p>`
    }`;
}

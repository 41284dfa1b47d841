// Tables: sorted by their heads, walked by keys, saved as files.
import { useEffect, useRef, useState } from "preact/hooks";
import { html } from "./parts.js";
import { download, toCsv } from "./format.js";
import { setQuery } from "./router.js";

function sorted(rows, columns, order) {
  const column = columns.find((c) => c.key === order.key);
  if (!column) return rows;
  const value = column.sort ?? column.value;
  const compare = (a, b) => {
    const x = value(a),
      y = value(b);
    if (x === y) return 0;
    if (x === null || x === undefined) return 1;
    if (y === null || y === undefined) return -1;
    return (x < y ? -1 : 1) * (order.down ? -1 : 1);
  };
  return [...rows].sort(compare);
}

function direction(order, column) {
  if (order.key !== column.key) return "none";
  return order.down ? "descending" : "ascending";
}

const turned = (order, c) => ({ key: c.key, down: direction(order, c) !== "descending" });

// j and k move through rows, Enter opens one: the view's main table listens. `keys` are the rows':
// the chosen one stays so wherever newer rows put it; where it is gone, the row in its place is.
function useRowKeys(keys, open, onMove) {
  const [turn, setTurn] = useState(0);
  // A key may come before the page has drawn what the last one chose.
  const own = useRef({ at: -1 }).current;
  const moved = own.at >= 0 && keys[own.at] !== own.key ? keys.indexOf(own.key) : own.at;
  if (moved >= 0) own.at = moved;
  Object.assign(own, { keys, open, onMove });
  useEffect(() => {
    const choose = (row) => {
      Object.assign(own, { at: row, key: own.keys[row] });
      setTurn((n) => n + 1);
      own.onMove?.();
    };
    const pressed = (event) => {
      const held = event.metaKey || event.ctrlKey || event.altKey;
      if (event.target.matches("input, select, textarea") || held) return;
      const { at: chosen, open: go } = own;
      const rows = own.keys.length;
      if (!rows) return; // none, or another table listens
      const row = Math.min(chosen, rows - 1); // there may be fewer now
      if (event.key === "j") choose(Math.min(row + 1, rows - 1));
      else if (event.key === "k") choose(Math.max(row - 1, 0));
      else if (event.key === "Enter" && row >= 0 && !event.target.matches("a, button")) go(row);
    };
    window.addEventListener("keydown", pressed);
    return () => window.removeEventListener("keydown", pressed);
  }, []);
  return [own.at, turn];
}

// The rows as a file, in the order and selection that is shown.
export function Save({ name, caption, columns, rows }) {
  const csv = () => download(`${name}.csv`, "text/csv", toCsv(columns, rows));
  const json = () => download(`${name}.json`, "application/json", JSON.stringify(rows, null, 1));
  return html`<span class="save">
    <button onClick=${csv} aria-label=${`${caption} as CSV`}>CSV</button>
    <button onClick=${json} aria-label=${`${caption} as JSON`}>JSON</button>
  </span>`;
}

// The order in the address: "p95", or "-p95" for downwards.
function orderOf(text) {
  if (!text) return {};
  return text[0] === "-" ? { key: text.slice(1), down: true } : { key: text, down: false };
}

const FIRST_ROWS = 60; // more than a screen shows
const MORE_ROWS = 150; // in each frame after that

// How many rows are drawn: a screenful at once, the rest while it is looked at.
function useDrawn(count) {
  const [drawn, setDrawn] = useState(FIRST_ROWS);
  useEffect(() => {
    if (drawn >= count) return undefined;
    const frame = requestAnimationFrame(() => setDrawn(drawn + MORE_ROWS));
    return () => cancelAnimationFrame(frame);
  }, [drawn, count]);
  return drawn;
}

// `sort`: the order stands in the address under this name. `main`: j, k and Enter are this table's.
// `rowKey` tells rows apart where they move. `onMove` is told when a row is chosen by key.
export function Table({ name, columns, rows, href, caption, main, sort, query, rowKey, onMove }) {
  const [own, setOwn] = useState({});
  const order = sort ? orderOf(query?.[sort]) : own;
  const setOrder = (next) =>
    sort ? setQuery({ [sort]: (next.down ? "-" : "") + next.key }, true) : setOwn(next);
  const body = useRef(null);
  const shown = sorted(rows, columns, order);
  const drawn = useDrawn(shown.length);
  const go = (i) => href && href(shown[i]) && (location.hash = href(shown[i]));
  const keys = main ? shown.map((row, i) => rowKey?.(row) ?? i) : [];
  const [at, turn] = useRowKeys(keys, go, onMove);
  useEffect(() => {
    if (turn) body.current?.children[at]?.scrollIntoView({ block: "nearest" });
  }, [turn]); // by key only: newer rows scroll nothing
  return html`<div class="tablewrap">
    <div class="tablehead">
      <span>${caption}</span>
      <${Save} name=${name} caption=${caption} columns=${columns} rows=${shown} />
    </div>
    <div class="tablebox" tabindex="0" role="region" aria-label=${caption}>
      <table aria-label=${caption}>
        <thead>
          <tr>
            ${columns.map(
              (c) =>
                html`<th scope="col" class=${c.class} aria-sort=${direction(order, c)}>
                  <button class="sort" onClick=${() => setOrder(turned(order, c))} title=${c.title}>
                    ${c.label}${order.key === c.key ? (order.down ? " ↓" : " ↑") : ""}
                  </button>
                </th>`,
            )}
          </tr>
        </thead>
        <tbody ref=${body}>
          ${shown.slice(0, drawn).map(
            (row, i) =>
              html`<tr
                key=${rowKey?.(row)}
                class=${i === at ? "at" : ""}
                aria-current=${main && i === at ? "true" : undefined}
              >
                ${columns.map(
                  (c, n) =>
                    html`<td class=${c.class}>
                      ${
                        n === 0 && href?.(row)
                          ? html`<a href=${href(row)}>${(c.show ?? c.value)(row)}</a>`
                          : (c.show ?? c.value)(row)
                      }
                    </td>`,
                )}
              </tr>`,
          )}
        </tbody>
      </table>
    </div>
  </div>`;
}

// Numbers with units, times with their zone, tables as files.

const UNITS = [
  [1e9, "s"],
  [1e6, "ms"],
  [1e3, "µs"],
  [1, "ns"],
];

export function ns(value) {
  if (value === null || value === undefined) return "–";
  if (value === 0) return "0";
  const size = Math.abs(value);
  const [scale, unit] = UNITS.find(([s]) => size >= s) ?? [1, "ns"];
  const number = value / scale;
  const digits = Math.abs(number) >= 100 ? 0 : Math.abs(number) >= 10 ? 1 : 2;
  return `${number.toFixed(digits)} ${unit}`;
}

export function signedNs(value) {
  return value > 0 ? `+${ns(value)}` : ns(value);
}

export function count(value) {
  if (value === null || value === undefined) return "–";
  if (value >= 1e6) return `${(value / 1e6).toFixed(2)} M`;
  if (value >= 1e4) return `${(value / 1e3).toFixed(1)} k`;
  if (value > 0 && value < 0.005) return "<0.01";
  return Number.isInteger(value) ? String(value) : value.toFixed(2);
}

export function bytes(value) {
  if (value === null || value === undefined) return "–";
  for (const [scale, unit] of [
    [2 ** 30, "GiB"],
    [2 ** 20, "MiB"],
    [2 ** 10, "KiB"],
  ])
    if (value >= scale) return `${(value / scale).toFixed(1)} ${unit}`;
  return `${value} B`;
}

// "42 s", "17 min", "5 h", "3 d".
export function age(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  for (const [scale, unit] of [
    [86400, "d"],
    [3600, "h"],
    [60, "min"],
  ])
    if (seconds >= 2 * scale) return `${Math.floor(seconds / scale)} ${unit}`;
  return `${Math.round(seconds)} s`;
}

export function percent(share, digits = 1) {
  if (share === null || share === undefined) return "–";
  return `${(share * 100).toFixed(digits).replace(/^-(0(\.0*)?)$/, "$1")} %`;
}

// A share and its interval: "82 % (71 % to 93 %)".
export function between(share, interval) {
  const [low, high] = interval ?? [];
  if (low === undefined || low === null) return percent(share, 0);
  return `${percent(share, 0)} (${percent(low, 0)} to ${percent(high, 0)})`;
}

const two = (n) => String(n).padStart(2, "0");

// Unix seconds, milliseconds where wanted, always UTC: the page says so once, in its foot.
export function time(seconds, withDate = true) {
  const d = new Date(seconds * 1000);
  const day = `${d.getUTCFullYear()}-${two(d.getUTCMonth() + 1)}-${two(d.getUTCDate())} `;
  return (
    (withDate ? day : "") +
    `${two(d.getUTCHours())}:${two(d.getUTCMinutes())}:${two(d.getUTCSeconds())}`
  );
}

export function isoTime(text) {
  return text ? text.slice(0, 10) + " " + text.slice(11, 23) : "–";
}

// Unix seconds, of ISO text or of themselves.
export function toSeconds(iso) {
  return typeof iso === "number" ? iso : Math.floor(Date.parse(iso) / 1000);
}

// A cell that a spreadsheet would take for a formula is made a text.
function cell(value) {
  const text = value === null || value === undefined ? "" : String(value);
  const safe = /^[=+\-@\t\r]/.test(text) && Number.isNaN(Number(text)) ? `'${text}` : text;
  return /[",\n\r]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

export function toCsv(columns, rows) {
  const lines = [columns.map((c) => cell(c.label))];
  for (const row of rows) lines.push(columns.map((c) => cell(c.value(row))));
  return lines.map((l) => l.join(",")).join("\r\n") + "\r\n";
}

export function download(name, type, text) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

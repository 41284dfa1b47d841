// node measure.mjs PLAN_JSON: what Chromium takes for the dashboard's pages. Prints one JSON object.
import { chromium } from "playwright-core";

const plan = JSON.parse(process.argv[2]);
const browser = await chromium.launch({
  executablePath: "/usr/bin/chromium",
  args: ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"],
});
const page = await browser.newPage({ viewport: { width: 1280, height: 900 } });
page.setDefaultTimeout(60000);

// The time from the navigation's start to the first row, and the bytes of it over the wire.
async function first() {
  const session = await page.context().newCDPSession(page);
  let bytes = 0;
  await session.send("Network.enable");
  const kept = new Map();
  session.on("Network.responseReceived", (e) => kept.set(e.requestId, e.response.url));
  session.on("Network.loadingFinished", (e) => {
    if (!kept.get(e.requestId)?.includes("/api/")) bytes += e.encodedDataLength;
  });
  await page.addInitScript(() => {
    new MutationObserver(() => {
      if (!window.firstRow && document.querySelector("tbody tr"))
        requestAnimationFrame(() => (window.firstRow ??= performance.now()));
    }).observe(document, { childList: true, subtree: true });
  });
  await page.goto(`${plan.base}/#/routes?window=1h`);
  await page.waitForFunction((n) => document.querySelectorAll("tbody tr").length >= n, plan.routes);
  const first_ms = await page.evaluate(() => window.firstRow);
  const rows = await page.$$eval("tbody tr", (r) => r.length);
  const filter_ms = await timed(async () => {
    await page.fill("#search", "resource42/");
    await page.waitForFunction(() => document.querySelectorAll("tbody tr").length === 1);
  });
  return { first_ms, rows, bytes, filter_ms };
}

async function timed(what) {
  const begun = performance.now();
  await what();
  return performance.now() - begun;
}

// A tree of so many nodes as the API would tell it: it fans out for six levels, then goes down in
// chains, as stacks do.
function tree(wanted) {
  let made = 0;
  const node = (ns) => {
    const name = `app.module${made % 97}:function_${made}`;
    return { name, kind: null, in_app: made++ % 3 > 0, ns, baseline_ns: null, count: 1, children: [] };
  };
  const root = node(2e9);
  for (let level = [root], depth = 0; made < wanted; depth++) {
    const next = [];
    for (const parent of level)
      for (let i = 0, width = depth < 6 ? 3 : 1; i < width && made < wanted; i++) {
        parent.children.push(node(parent.ns / width));
        next.push(parent.children[i]);
      }
    level = next;
  }
  return { root, made };
}

async function flame() {
  const { root, made } = tree(plan.nodes);
  const body = {
    ...{ id: 1, route: "GET /x", from: 0, to: 1, requests: 100, joined: 100, baseline: null },
    ...{ coverage: { joined_ratio: 1 }, rows: [], tree: root, moved: [] },
  };
  await page.route("**/flame?**", (route) => route.fulfill({ json: body }));
  await page.goto(`${plan.base}/#/route/1`);
  await page.waitForSelector(".flame svg g");
  const draw_ms = await inPage(page, () => document.querySelectorAll("label input[type=checkbox]")[0].click());
  const drawn = await page.$$eval(".flame svg g.frame", (g) => g.length);
  const zoom_ms = await inPage(page, () => {
    const frames = [...document.querySelectorAll(".flame svg g.frame")];
    frames[Math.min(3, frames.length - 1)].dispatchEvent(new MouseEvent("click", { bubbles: true }));
  });
  const search_ms = await inPage(page, () => {
    const field = document.querySelector("[aria-label='Filter frames']");
    field.value = "function_1";
    field.dispatchEvent(new InputEvent("input", { bubbles: true }));
  });
  return { nodes: made, drawn, draw_ms, zoom_ms, search_ms };
}

// From an action to the end of the second frame after it: what a person waits for.
function inPage(on, action) {
  return on.evaluate(`(async () => {
    const begun = performance.now();
    (${action})();
    await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
    return performance.now() - begun;
  })()`);
}

async function live() {
  const session = await page.context().newCDPSession(page);
  await session.send("HeapProfiler.enable");
  await page.goto(`${plan.base}/#/live`);
  await page.waitForSelector("tbody tr");
  const samples = [];
  let rate = 0;
  for (let i = 0; i < plan.seconds / 5; i++) {
    await page.waitForTimeout(5000);
    await session.send("HeapProfiler.collectGarbage");
    const { usedSize } = await session.send("Runtime.getHeapUsage");
    const { nodes } = await session.send("Memory.getDOMCounters");
    const rows = await page.$$eval("tbody tr", (r) => r.length);
    const text = await page.textContent(".rate");
    rate = Math.max(rate, parseFloat(text) * (text.includes(" k") ? 1000 : 1));
    samples.push({ rows, nodes, heap: usedSize });
  }
  return { samples, rate };
}

try {
  console.log(JSON.stringify(await { first, flame, live }[plan.what]()));
} finally {
  await browser.close();
}

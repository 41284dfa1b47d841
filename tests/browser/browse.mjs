// Drives Chromium through the dashboard: node browse.mjs PLAN_JSON. Prints one JSON object of what it
// saw; the test beside it says what that has to be.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { chromium } from "playwright-core";

const plan = JSON.parse(process.argv[2]);
const { base, trace, evil, lanes } = plan;
const axeSource = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const FLAGS = [
  ...["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"],
  ...["--disable-background-networking", "--disable-component-update", "--disable-sync"],
  ...["--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"],
];
const seen = { errors: [], foreign: [], axe: {}, pages: {} };

async function open(page, hash, wanted) {
  await page.goto(`${base}/${hash}`);
  await page.waitForSelector(wanted, { timeout: 20000 });
}

// axe runs in the page's world through the debugger: the page's policy lets no script in.
async function axe(page, name) {
  await page.evaluate(axeSource);
  const found = await page.evaluate(() => window.axe.run(document, { resultTypes: ["violations"] }));
  seen.axe[name] = found.violations.map((v) => `${v.id}: ${v.nodes[0].html.slice(0, 160)}`);
}

async function text(page, selector) {
  return page.$$eval(selector, (nodes) => nodes.map((n) => n.textContent.trim()));
}

const hash = (page) => new URL(page.url()).hash;
const hashHas = (page, part) =>
  page.waitForFunction((wanted) => location.hash.includes(wanted), part, { timeout: 10000 });

async function saved(page, selector) {
  const [file] = await Promise.all([page.waitForEvent("download"), page.click(selector)]);
  return readFileSync(await file.path(), "utf8");
}

async function routes(page) {
  await open(page, "#/routes", "tbody tr");
  seen.pages.routes = await text(page, "tbody tr td:first-child");
  await axe(page, "routes");
  await page.keyboard.press("/");
  await page.keyboard.type("gather");
  await page.waitForFunction(() => document.querySelectorAll("tbody tr").length === 1);
  seen.pages.filtered = { rows: await text(page, "tbody tr td:first-child"), hash: hash(page) };
  await page.keyboard.type("zzz");
  await page.click("text=Show all");
  await page.waitForFunction(() => document.querySelectorAll("tbody tr").length > 1);
  await page.click("th >> text=Route");
  await hashHas(page, "sort=-route");
  seen.pages.sorted = await text(page, "tbody tr td:first-child");
  await page.fill("#search", "gather");
  await page.waitForFunction(() => document.querySelectorAll("tbody tr").length === 1);
  seen.pages.csv = (await saved(page, "text=CSV")).split("\r\n");
  seen.pages.json = JSON.parse(await saved(page, "text=JSON")).length;
  await page.evaluate(() => document.activeElement.blur()); // else Enter is the button's
  await page.keyboard.press("j");
  await page.keyboard.press("Enter");
  await page.waitForSelector(".flame svg", { timeout: 20000 });
  seen.pages.opened = hash(page);
}

async function route(page) {
  seen.pages.route = {
    title: (await text(page, "h1"))[0],
    charts: await text(page, ".chart figcaption"),
    flame: await text(page, ".flame .d3-flame-graph-label"),
    rows: await text(page, "table tbody td:first-child"),
    tiles: await text(page, ".tiles dt"),
  };
  await axe(page, "route");
  await page.click("text=Compare with the span before");
  await hashHas(page, "base_from");
  await page.goBack();
  await page.waitForFunction(() => !location.hash.includes("base_from"));
  await page.fill("[aria-label='Filter frames']", "child [(*"); // words, no pattern
  await hashHas(page, "find=child");
  await page.fill("[aria-label='Filter frames']", "slowest_child");
  await hashHas(page, "find=slowest_child");
  await page.waitForSelector(".flame svg g");
  seen.pages.found = (await text(page, ".told"))[0];
  const found = await page.evaluate(() => getComputedStyle(document.documentElement).getPropertyValue("--found"));
  seen.pages.lit = await page.locator(`.flame rect[fill="${found.trim()}"]`).count();
  await page.locator(".flame .d3-flame-graph-label", { hasText: "slowest_child" }).first().click({ force: true });
  await hashHas(page, "zoom=");
  const zoomed = hash(page);
  await page.reload();
  await page.waitForSelector(".flame svg g");
  seen.pages.zoomed = { kept: hash(page) === zoomed, faded: await page.$$eval(".flame .fade", (n) => n.length) };
  await page.click("text=Reset zoom");
  await page.waitForFunction(() => !location.hash.includes("zoom="));
  await page.focus("[aria-label^='Frames: arrow keys']");
  for (const key of ["ArrowDown", "ArrowDown", "ArrowRight", "ArrowLeft", "ArrowUp", "ArrowDown"]) await page.keyboard.press(key);
  seen.pages.pressed = { told: (await text(page, ".told"))[0], marked: await page.locator(".flame g[data-chosen]").getAttribute("name") };
  await page.keyboard.press("Enter");
  await hashHas(page, "zoom=");
  await page.keyboard.press("Escape");
  await page.waitForFunction(() => !location.hash.includes("zoom="));
  await open(page, "#/route/GET%20%2Fgather", ".flame svg"); // by name
  seen.pages.byName = (await text(page, "h1"))[0];
  await page.selectOption("select", "15m");
  await hashHas(page, "window=15m");
}

// A route that is read while requests come: what is marked here has to be there when it has moved on.
const KEPT = [".chart:nth-child(-n+2) .uplot", ".flame svg", ".flame g[data-chosen]", "tr.at"];

async function readRoute(browser) {
  const page = watch(await browser.newPage({ viewport: { width: 1280, height: 900 } }));
  await open(page, "#/route/GET%20%2Fasync", ".flame svg g.frame");
  await page.waitForSelector("main .tablebox tbody tr");
  await page.keyboard.press("j");
  await page.focus("[aria-label^='Frames: arrow keys']");
  await page.keyboard.press("ArrowDown");
  await page.evaluate((KEPT) => {
    window.scrollTo(0, 400);
    for (const selector of KEPT) for (const node of document.querySelectorAll(selector)) node.marked = true;
  }, KEPT);
  const fixed = watch(await browser.newPage({ viewport: { width: 1280, height: 900 } }));
  const now = Math.floor(Date.now() / 1000);
  await open(fixed, `#/route/GET%20%2Fasync?from=${now - 60}&to=${now}`, ".flame svg g.frame");
  await fetch(`${base}/api/v1/deploys`, { method: "POST", body: JSON.stringify({ version: "v-page" }) });
  return { page, fixed, first: await read(page), firstFixed: await read(fixed) };
}

const read = async (page) => ({
  charts: await page.$$eval(".chart [role=img][aria-label]", (n) => n.map((c) => c.ariaLabel)),
  tiles: await text(page, ".tiles dd"),
  flame: (await text(page, "main > p.quiet")).join(),
  span: (await text(page, ".bar strong")).join(" to "),
  y: await page.evaluate(() => window.scrollY),
});

// How many pixels of the first chart are of a colour that has a name.
const pixels = (page, name) =>
  page.evaluate((wanted) => {
    const probe = document.createElement("canvas").getContext("2d");
    probe.fillStyle = getComputedStyle(document.documentElement).getPropertyValue(`--${wanted}`);
    probe.fillRect(0, 0, 1, 1);
    const [r, g, b] = probe.getImageData(0, 0, 1, 1).data;
    const canvas = document.querySelector(".uplot canvas");
    const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    let found = 0;
    for (let i = 0; i < data.length; i += 4)
      found += data[i] === r && data[i + 1] === g && data[i + 2] === b && data[i + 3] === 255;
    return found;
  }, name);

async function movedOn({ page, fixed, first, firstFixed }) {
  await page.waitForSelector("text=Newer data: show", { timeout: 30000 });
  const kept = await page.evaluate((KEPT) => ({
    marked: KEPT.map((selector) => [...document.querySelectorAll(selector)].map((node) => node.marked === true)),
    focus: document.activeElement.ariaLabel,
  }), KEPT);
  seen.pages.follow = { first, kept, then: await read(page), deploy: await pixels(page, "deploy") };
  await page.click("text=Newer data: show");
  await page.waitForSelector("text=The newest data is shown");
  await page.waitForFunction((old) => !document.body.textContent.includes(old), first.flame);
  const focus = await page.evaluate(() => document.activeElement.textContent.trim());
  seen.pages.follow.shown = { ...(await read(page)), focus };
  await fixed.waitForTimeout(500);
  seen.pages.fixed = { first: firstFixed, then: await read(fixed), newer: await fixed.locator("text=Newer data").count() };
  // A span of yesterday: it stays, and the charts show what lies around it.
  const day = Math.floor(Date.now() / 1000) - 86400;
  const asked = fixed.waitForRequest((r) => r.url().includes("/series"));
  await fixed.goto(`${base}/#/route/GET%20%2Fasync?from=${day}&to=${day + 300}&window=15m`);
  const around = new URL((await asked).url()).searchParams;
  await fixed.waitForSelector("text=No requests of this route");
  seen.pages.yesterday = { hash: hash(fixed), asked: day, from: Number(around.get("from")), to: Number(around.get("to")) };
  await page.close();
  await fixed.close();
}

// The colour of a change, of the real routes with what a detector would say of them.
async function tones(browser) {
  const page = watch(await browser.newPage());
  const said = [[150, true], [150, false], [50, true], [50, false], [103, true]];
  await page.route("**/api/v1/routes?*", async (asked) => {
    const answer = await asked.fetch();
    const json = await answer.json();
    json.routes.forEach((r, i) => {
      const [p95, certain] = said[i % said.length];
      r.change = { p95_before_ns: 100e6, p95_ns: p95 * 1e6, certain };
      r.route = `${p95} ${certain}`;
    });
    await asked.fulfill({ response: answer, json });
  });
  await open(page, "#/routes", "tbody tr");
  const column = (await text(page, "thead th")).findIndex((name) => name.startsWith("Change"));
  seen.pages.tones = await page.$$eval(
    "main tbody tr",
    (rows, at) => rows.map((row) => [row.cells[0].textContent.trim(), getComputedStyle(row.cells[at].querySelector("span")).color]),
    column,
  );
  const known = (name) => page.evaluate((n) => {
    const probe = document.body.appendChild(document.createElement("i"));
    probe.className = n;
    const { color } = getComputedStyle(probe);
    probe.remove();
    return color;
  }, name);
  seen.pages.colors = { worse: await known("worse"), better: await known("better"), quiet: await known("quiet") };
  await page.close();
}

// What is too narrow to be drawn at first, and deep: zoomed to it stands there to its last frame.
async function deep(browser) {
  const page = watch(await browser.newPage({ viewport: { width: 1280, height: 900 } }));
  await page.route("**/flame?*", async (asked) => {
    const answer = await asked.fetch();
    const json = await answer.json();
    const frame = (name, ns, children) => ({ name, kind: null, in_app: true, ns, count: 1, children });
    const chain = (n, ns) => frame(`deep${n}`, ns, n < 40 ? [chain(n + 1, ns)] : []);
    const { tree } = json;
    tree.children.push(frame("narrow", tree.ns / 100, Array.from({ length: 8 }, () => chain(0, tree.ns / 800))));
    await asked.fulfill({ response: answer, json });
  });
  await open(page, "#/route/GET%20%2Fgather", ".flame g[name=narrow]");
  const before = await page.locator(".flame g[name=deep0]").count();
  await page.locator(".flame g[name=narrow]").dispatchEvent("click");
  await page.waitForSelector(".flame g[name=deep40]", { state: "attached" });
  seen.pages.deep = await page.evaluate((before) => {
    const svg = document.querySelector(".flame").getBoundingClientRect();
    const last = document.querySelector(".flame g[name=deep40] rect").getBoundingClientRect();
    return { before, inside: last.bottom <= svg.bottom + 0.5 && last.height > 10 };
  }, before);
  await page.close();
}

async function request(page) {
  await open(page, `#/request/${trace}`, ".fall");
  seen.pages.request = { title: (await text(page, "h1"))[0], rows: await text(page, ".fall th") };
  seen.pages.curl = await page.getAttribute("text=Copy as curl", "title");
  seen.pages.downloads = await page.$$eval("a[download]", (links) => links.map((a) => a.getAttribute("href")));
  await axe(page, "request");
  await open(page, `#/request/${evil}`, ".fall");
  await page.waitForFunction((id) => document.body.textContent.includes(id), evil);
  seen.pages.evil = {
    title: (await text(page, "h1"))[0],
    ran: await page.evaluate(() => window.ran ?? null),
    curl: await page.getAttribute("text=Copy as curl", "title"),
  };
  const before = (await text(page, ".fall th")).length;
  await page.click("text=library frames too");
  await hashHas(page, "frames=all");
  seen.pages.frames = [before, (await text(page, ".fall th")).length];
  await open(page, "#/request/00000000000000000000000000000001", ".note");
  seen.pages.missing = (await text(page, ".note"))[0];
  await open(page, `#/request/${lanes}`, ".lanes svg");
  seen.pages.lanes = {
    names: await text(page, ".lanes .names li"),
    wakes: await page.$$eval(".lanes .wake", (n) => n.length),
  };
  await page.locator(".lanes rect.kind-wait").first().click();
  await page.waitForSelector("div.chosen");
  seen.pages.lanes.chosen = (await text(page, "div.chosen"))[0];
  await axe(page, "lanes");
}

// A function's name that is markup.
async function names(page) {
  await open(page, `#/request/${plan.named}`, ".fall .frame");
  const frames = await text(page, ".fall .frame");
  await open(page, "#/route/GET%20%2Fnamed", ".flame svg g.frame");
  await page.locator(".flame .d3-flame-graph-label", { hasText: "onerror" }).first().hover({ force: true });
  await page.waitForFunction(() => document.querySelector(".told").textContent.includes("onerror"));
  seen.pages.named = {
    frames,
    labels: await text(page, ".flame .d3-flame-graph-label"),
    told: (await text(page, ".told"))[0],
    ran: await page.evaluate(() => window.ran ?? null),
  };
}

async function others(page) {
  await open(page, "#/live", "tbody tr");
  await axe(page, "live");
  await page.click("text=Pause");
  await page.waitForSelector("text=Go on");
  const held = await text(page, "tbody tr");
  await page.waitForTimeout(1500);
  seen.pages.paused = JSON.stringify(held) === JSON.stringify(await text(page, "tbody tr"));
  await page.fill("#search", "gather");
  await page.click("text=Go on");
  await page.waitForFunction(() => !document.querySelector("tbody tr") || document.querySelector(".rate.on"));
  await page.fill("#search", "");
  await page.waitForSelector(".rate.on");
  await page.waitForTimeout(2500);
  seen.pages.live = { rows: (await text(page, "tbody tr")).length, rate: (await text(page, ".rate"))[0] };
  await page.keyboard.press("Escape");
  await page.evaluate(() => document.activeElement.blur());
  await page.keyboard.press("j"); // who walks through rows wants them to stand still
  await hashHas(page, "paused=1");
  await open(page, "#/health", ".tiles");
  seen.pages.health = { tiles: await text(page, ".tiles dt"), text: (await text(page, "main"))[0] };
  await axe(page, "health");
  await page.click("text=Configuration");
  await page.waitForSelector("tbody tr");
  await page.fill("#search", "join_timeout");
  await page.waitForFunction(() => document.querySelectorAll("tbody tr").length === 1);
  seen.pages.config = await text(page, "tbody td");
  await axe(page, "config");
  await page.click(".tabs >> text=Metrics");
  await page.waitForFunction(() => document.querySelectorAll("tbody tr").length > 100);
  seen.pages.metrics = (await text(page, "tbody tr")).length;
  await page.evaluate(() => document.activeElement.blur());
  await page.keyboard.press("?");
  await page.waitForSelector("[role=dialog]");
  await axe(page, "help");
  await page.keyboard.press("Escape");
  await page.keyboard.press("g");
  await page.keyboard.press("l");
  await page.waitForFunction(() => location.hash === "#/live");
  await open(page, "#/nowhere/%E0%A4%A", "h1");
  seen.pages.nowhere = (await text(page, "h1"))[0];
}

async function speedscope(page) {
  await open(page, `#/request/${trace}`, ".fall");
  const [popup] = await Promise.all([page.waitForEvent("popup"), page.click("text=Open in speedscope")]);
  watch(popup);
  await popup.waitForLoadState();
  await popup.waitForFunction(() => document.title.includes("GET /gather"), { timeout: 20000 });
  const error = await popup.evaluate(() => document.body.innerText.includes("error"));
  const font = await popup.evaluate(() => getComputedStyle(document.querySelector("body div")).position);
  seen.pages.speedscope = { title: await popup.title(), error, styled: font };
  if (plan.shots) await popup.screenshot({ path: `${plan.shots}/speedscope.png` });
  await popup.close();
}

async function shapes(browser) {
  seen.pages.overflow = {};
  for (const [width, scheme] of [[390, "light"], [820, "dark"], [1280, "dark"]]) {
    const page = await browser.newPage({ viewport: { width, height: 800 }, colorScheme: scheme });
    await page.route("**/api/v1/requests/*", async (asked) => { // as a first request has, that imports
      const answer = await asked.fetch();
      const json = await answer.json();
      for (let line = 1; line <= 30; line++)
        json.profile.breakdown[0].stack.push({ module: "library", function: "deep" + line, file: "library.py", line, in_app: false });
      await asked.fulfill({ response: answer, json });
    });
    for (const place of [`request/${lanes}`, "routes", "health", "live", "route/GET%20%2Fgather"]) {
      await page.goto(`${base}/#/${place}`);
      await page.waitForSelector("main table, main .note");
      const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
      seen.pages.overflow[`${place} ${width}`] = wide;
      if (width === 1280) await axe(page, `${place} ${scheme}`);
    }
    await open(page, `#/request/${lanes}`, ".fall");
    await axe(page, `request ${width} ${scheme}`);
    await page.close();
  }
}

// The listener on TCP: token, cookie, an incident accepted by it, log-out.
async function login(browser) {
  const context = await browser.newContext();
  const page = watch(await context.newPage());
  await page.goto(`${plan.tcp}/#/incidents`);
  await page.waitForSelector("form.login");
  await axe(page, "login");
  await page.keyboard.type("wrong"); // the field has the focus
  await page.keyboard.press("Enter");
  await page.waitForFunction(() => document.querySelector("#login-error").textContent !== "");
  seen.pages.wrong = (await text(page, "#login-error"))[0];
  await page.fill("#token", plan.token);
  await page.click("form button");
  await page.waitForSelector("tbody tr", { timeout: 30000 });
  const [cookie] = await context.cookies();
  seen.pages.cookie = { http: cookie.httpOnly, site: cookie.sameSite, script: await page.evaluate(() => document.cookie) };
  await axe(page, "incidents");
  await page.waitForSelector("nav .count", { timeout: 30000 }); // asked for every 15 s
  seen.pages.incidents = await text(page, "tbody td:first-child");
  seen.pages.firing = await text(page, "nav .count");
  await page.selectOption("select", "merged"); // that there are none of
  await page.waitForSelector("text=No incident fits");
  await page.click("text=Show all");
  await page.waitForSelector("tbody a");
  const captioned = () => page.$eval("main table", (table) => [table.ariaLabel, table.tBodies[0].rows.length]);
  seen.pages.captions = [await captioned()];
  await page.route("**/api/v1/incidents?limit=500", async (asked) => {
    const answer = await asked.fetch();
    const json = await answer.json();
    json.incidents.push(...json.incidents.map((i) => ({ ...i, id: `${i.id}-again` })));
    await asked.fulfill({ response: answer, json });
  });
  await page.reload();
  await page.waitForSelector("tbody a");
  seen.pages.captions.push(await captioned());
  await page.unroute("**/api/v1/incidents?limit=500");
  await page.click("tbody a");
  await page.waitForSelector("text=Accept the new level");
  await axe(page, "incident");
  await page.emulateMedia({ colorScheme: "dark" });
  await page.waitForTimeout(300); // what fades has faded
  await axe(page, "incident dark");
  await page.emulateMedia({ colorScheme: "light" });
  seen.pages.incident = { title: (await text(page, "h1"))[0], text: (await text(page, ".sentence"))[0], told: await text(page, ".history li") };
  await page.click("text=Accept the new level");
  await page.click("button >> text=Accept it");
  await page.waitForSelector("h1 + .state.accepted, .state.accepted");
  seen.pages.accepted = true;
  await page.reload();
  await page.waitForSelector(".sentence"); // still in
  await page.click("text=Log out");
  await page.waitForSelector("form.login");
  seen.pages.loggedOut = (await context.cookies()).length;
  await context.close();
}

function watch(page) {
  page.setDefaultTimeout(20000);
  // What a page asks for may well not be there, or need a log-in; speedscope would read Java's
  // recordings by WebAssembly, which its policy does not allow. Nothing else is said.
  const known = /status of (404|401)|WebAssembly/;
  page.on("pageerror", (error) => known.test(error.message) || seen.errors.push(error.message));
  page.on("console", (m) => {
    if (m.type() === "error" && !known.test(m.text())) seen.errors.push(m.text());
  });
  page.on("request", (r) => {
    if (/^(http|ws)/.test(r.url()) && !r.url().startsWith(base) && !r.url().startsWith(plan.tcp))
      seen.foreign.push(r.url());
  });
  return page;
}

const browser = await chromium.launch({ executablePath: "/usr/bin/chromium", args: FLAGS });
try {
  const page = watch(await browser.newPage({ viewport: { width: 1280, height: 900 } }));
  const reading = await readRoute(browser); // goes on beside the others
  for (const part of [routes, route, request, names, others, speedscope]) await part(page);
  await movedOn(reading);
  await deep(browser);
  await tones(browser);
  await shapes(browser);
  await login(browser);
} finally {
  await browser.close();
  console.log(JSON.stringify(seen));
}

// Drives Chromium through the dashboard: node browse.mjs BASE STATE_JSON. Prints one JSON object of
// what it saw; the test beside it says what that has to be.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { chromium } from "playwright-core";

const [base, trace, evil] = process.argv.slice(2);
const axeSource = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const FLAGS = [
  ...["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"],
  ...["--disable-background-networking", "--disable-component-update", "--disable-sync"],
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

async function routes(page) {
  await open(page, "#/routes", "tbody tr");
  seen.pages.routes = await text(page, "tbody tr td:first-child");
  await axe(page, "routes");
  await page.keyboard.press("/");
  await page.keyboard.type("gather");
  await page.waitForFunction(() => document.querySelectorAll("tbody tr").length === 1);
  seen.pages.filtered = { rows: await text(page, "tbody tr td:first-child"), hash: new URL(page.url()).hash };
  await page.keyboard.press("Escape");
  const [file] = await Promise.all([page.waitForEvent("download"), page.click("text=CSV")]);
  seen.pages.csv = readFileSync(await file.path(), "utf8").split("\r\n");
  await page.evaluate(() => document.activeElement.blur()); // else Enter is the button's
  await page.keyboard.press("j");
  await page.keyboard.press("Enter");
  await page.waitForSelector(".flame svg", { timeout: 20000 });
  seen.pages.opened = new URL(page.url()).hash;
}

async function route(page) {
  seen.pages.route = {
    title: (await text(page, "h1"))[0],
    charts: await text(page, ".chart figcaption"),
    flame: await text(page, ".flame .d3-flame-graph-label"),
    rows: await text(page, "table tbody td:first-child"),
  };
  await axe(page, "route");
  await page.click("text=Compare with the span before");
  await page.waitForFunction(() => location.hash.includes("base_from"));
  await page.goBack();
  await page.waitForFunction(() => !location.hash.includes("base_from"));
}

async function request(page) {
  await open(page, `#/request/${trace}`, ".fall");
  seen.pages.request = { title: (await text(page, "h1"))[0], rows: await text(page, ".fall th") };
  await axe(page, "request");
  await open(page, `#/request/${evil}`, ".fall");
  await page.waitForFunction((id) => document.body.textContent.includes(id), evil);
  seen.pages.evil = { title: (await text(page, "h1"))[0], ran: await page.evaluate(() => window.ran ?? null) };
  const before = (await text(page, ".fall th")).length;
  await page.click("text=library frames too");
  await page.waitForFunction(() => location.hash.includes("frames=all"));
  seen.pages.frames = [before, (await text(page, ".fall th")).length];
  await open(page, "#/request/00000000000000000000000000000001", ".note");
  seen.pages.missing = (await text(page, ".note"))[0];
}

async function others(page) {
  await open(page, "#/incidents", ".note, tbody tr");
  seen.pages.incidents = await text(page, "main");
  await axe(page, "incidents");
  await open(page, "#/live", "tbody tr");
  seen.pages.live = (await text(page, "tbody tr")).length;
  await page.click("text=Pause");
  await page.waitForSelector("text=Go on");
  await axe(page, "live");
  await open(page, "#/health", ".tiles");
  seen.pages.health = await text(page, ".tiles dt");
  await axe(page, "health");
  await page.keyboard.press("?");
  await page.waitForSelector("[role=dialog]");
  await page.keyboard.press("Escape");
  await page.keyboard.press("g");
  await page.keyboard.press("l");
  await page.waitForFunction(() => location.hash === "#/live");
}

async function shapes(browser) {
  seen.pages.overflow = {};
  for (const [width, scheme] of [[390, "light"], [820, "dark"], [1280, "dark"]]) {
    const page = await browser.newPage({ viewport: { width, height: 800 }, colorScheme: scheme });
    await open(page, `#/request/${trace}`, ".fall");
    const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
    seen.pages.overflow[`${width} ${scheme}`] = wide;
    await axe(page, `request ${width} ${scheme}`);
    await page.close();
  }
}

const browser = await chromium.launch({ executablePath: "/usr/bin/chromium", args: FLAGS });
try {
  const page = await browser.newPage({ viewport: { width: 1280, height: 900 } });
  page.setDefaultTimeout(20000);
  page.on("pageerror", (error) => seen.errors.push(error.message));
  page.on("console", (m) => m.type() === "error" && !/status of 404/.test(m.text()) && seen.errors.push(m.text()));
  page.on("request", (r) => /^(http|ws)/.test(r.url()) && !r.url().startsWith(base) && seen.foreign.push(r.url()));
  await routes(page);
  await route(page);
  await request(page);
  await others(page);
  await shapes(browser);
} finally {
  await browser.close();
  console.log(JSON.stringify(seen));
}

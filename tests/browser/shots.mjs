// node shots.mjs BASE FOLDER NAME=HASH…: each page at three widths in both themes.
import { chromium } from "playwright-core";

const [base, folder, ...pages] = process.argv.slice(2);
const browser = await chromium.launch({
  executablePath: "/usr/bin/chromium",
  args: ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"],
});
for (const width of [390, 820, 1280])
  for (const colorScheme of ["light", "dark"]) {
    const page = await browser.newPage({ viewport: { width, height: 860 }, colorScheme });
    for (const [name, hash] of pages.map((p) => p.split(/=(.*)/s))) {
      await page.goto(`${base}/${hash}`);
      await page.waitForSelector("table, .note");
      await page.waitForTimeout(1500); // charts and flame graph draw themselves
      await page.screenshot({ path: `${folder}/${name}-${width}-${colorScheme}.png` });
    }
    await page.close();
  }
await browser.close();

// node shots.mjs BASE FOLDER NAME=HASH…: each page, as high as it is, at three widths in both themes.
import { chromium } from "playwright-core";

const HEIGHT_MAX = 2600;
const [base, folder, ...pages] = process.argv.slice(2);
const browser = await chromium.launch({
  executablePath: "/usr/bin/chromium",
  args: ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"],
});
for (const width of [390, 820, 1280])
  for (const colorScheme of ["light", "dark"]) {
    const page = await browser.newPage({ viewport: { width, height: 860 }, colorScheme });
    for (const [name, hash] of pages.map((p) => p.split(/=(.*)/s))) {
      await page.setViewportSize({ width, height: 860 });
      await page.goto(`${base}/${hash}`);
      await page.waitForSelector("main table, main .note, main form");
      await page.waitForTimeout(1200); // charts and flame graph draw themselves
      const height = await page.evaluate(() => document.documentElement.scrollHeight);
      await page.setViewportSize({ width, height: Math.min(Math.max(height, 860), HEIGHT_MAX) });
      await page.waitForTimeout(200);
      await page.screenshot({ path: `${folder}/${name}-${width}-${colorScheme}.png` });
    }
    await page.close();
  }
await browser.close();

// Pictures of the desk: `node end2end/shots.mjs FOLDER`.

import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { Warren, hydrated, id, launch, live, open, signIn, until } from "./lib.mjs";

const folder = process.argv[2] ?? "target/shots";
mkdirSync(folder, { recursive: true });
const sizes = { wide: [1440, 900], middle: [900, 1000], phone: [390, 844] };
const warren = await Warren.start({ args: ["--demo"] });
const browser = await launch();
try {
  for (const colorScheme of ["light", "dark"]) {
    const page = await open(browser, { colorScheme });
    await signIn(page, warren.web, "ada", "warren-demo");
    await live(page);
    await until("rows", async () => (await page.locator(id("row")).count()) >= 8);
    for (const [name, [width, height]] of Object.entries(sizes)) {
      await page.setViewportSize({ width, height });
      await page.goto(`${warren.web}/inbox`);
      await hydrated(page);
      await live(page);
      await page.screenshot({ path: join(folder, `${colorScheme}-${name}-list.png`) });
      await page.click(`${id("row")}[data-channel="chat"]`);
      await page.waitForSelector(id("thread"));
      if (await page.isVisible(id("action-take"))) await page.click(id("action-take"));
      await page.waitForSelector(id("entry"));
      await page.screenshot({ path: join(folder, `${colorScheme}-${name}-thread.png`) });
    }
    await page.context().close();
  }
  const page = await open(browser);
  await signIn(page, warren.web, "ben", "warren-demo");
  await live(page);
  await warren.kill();
  await page.waitForSelector(`${id("connection-pill")}:not([data-state="live"])`);
  await page.screenshot({ path: join(folder, "gone.png") });
} finally {
  await browser.close();
  await warren.stop();
}
const empty = await Warren.start();
const second = await launch();
try {
  empty.addAgent("ana", "admin");
  const page = await open(second);
  await signIn(page, empty.web, "ana");
  await live(page);
  await page.screenshot({ path: join(folder, "empty.png") });
} finally {
  await second.close();
  await empty.stop();
}

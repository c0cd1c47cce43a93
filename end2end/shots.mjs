// Pictures of the desk: `node end2end/shots.mjs FOLDER`.

import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { Warren, hydrated, id, launch, live, open, signIn, smuggle, until } from "./lib.mjs";

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
  await page.goto(`${empty.web}/admin/dead-letters`);
  await page.screenshot({ path: join(folder, "admin-empty.png") });
  await empty.kill();
  smuggle(empty, [["junk-1", "{no json"], ["01a20db6-61bb-707c-a9a7-e0c16c7132df", '{"type":"chat.what","chat":"c-7"}']]);
  await empty.begin();
  for (const colorScheme of ["light", "dark"]) {
    await page.emulateMedia({ colorScheme });
    for (const [name, [width, height]] of Object.entries(sizes)) {
      await page.setViewportSize({ width, height });
      await page.goto(`${empty.web}/admin/dead-letters`);
      await hydrated(page);
      await until("letters", async () => (await page.locator(id("dead-letter")).count()) === 2);
      await page.locator(id("dead-show")).last().click();
      await page.waitForSelector(id("dead-body"));
      await page.screenshot({ path: join(folder, `${colorScheme}-${name}-admin.png`) });
    }
  }
} finally {
  await second.close();
  await empty.stop();
}

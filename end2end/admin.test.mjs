// What an admin sees to: dead letters.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Warren, hydrated, id, launch, live, open, signIn, smuggle, until } from "./lib.mjs";

let browser;
before(async () => (browser = await launch()));
after(() => browser.close());

test("an admin reads, replays and drops dead letters; nobody else does", async (t) => {
  const warren = await Warren.start();
  t.after(() => warren.stop());
  warren.addAgent("ada", "admin");
  warren.addAgent("ana");
  await warren.kill();
  smuggle(warren, [["junk-1", "{no json"], ["junk-2", "[]"]]);
  await warren.begin();

  const ana = await open(browser);
  await signIn(ana, warren.web, "ana");
  await live(ana);
  assert.equal(await ana.locator(id("admin")).count(), 0);
  await ana.goto(`${warren.web}/admin/dead-letters`);
  await ana.getByRole("alert").waitFor();
  assert.match(await ana.getByRole("alert").innerText(), /Only an admin/);

  const page = await open(browser);
  await signIn(page, warren.web, "ada");
  await live(page);
  await page.click(id("admin"));
  const letters = page.locator(id("dead-letter"));
  const letter = (name) => letters.filter({ hasText: name });
  await until("two letters", async () => (await letters.count()) === 2);
  await letter("junk-1").locator(id("dead-show")).click();
  await page.waitForSelector(id("dead-body"));
  assert.match(await page.locator(id("dead-body")).innerText(), /\{no json/);

  // It dies again, and remembers it.
  await letter("junk-1").locator(id("dead-replay")).click();
  await until("a second death", async () =>
    (await letter("junk-1").innerText().catch(() => "")).includes("died 2 times"));
  // Dropping is asked twice.
  await letter("junk-1").locator(id("dead-drop")).click();
  await letter("junk-1").locator(id("dead-drop-sure")).click();
  await until("one letter", async () => (await letters.count()) === 1);
  await page.reload();
  await hydrated(page);
  await until("one letter", async () => (await letters.count()) === 1);
  assert.match(await page.locator(id("dead-count")).innerText(), /1 dead letter/);

  // The desk goes on in this room, and every hop agrees.
  await live(page);
  await page.getByRole("link", { name: "Loss auditor" }).click();
  await page.getByText("None: all hops agree.").waitFor();
  await page.click(id("room-inbox"));
  await page.waitForSelector(".list");
  assert.deepEqual(page.faults, []);
});

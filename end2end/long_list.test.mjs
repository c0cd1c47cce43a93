// A list that is longer than the screen, and grows while it is read.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Warren, id, launch, live, open, signIn, until } from "./lib.mjs";

let browser;
before(async () => (browser = await launch()));
after(() => browser.close());

const TICKETS = 300;

test("a long list draws what is in sight, by wheel and by key, and follows what comes", async (t) => {
  const warren = await Warren.start();
  t.after(() => warren.stop());
  warren.addAgent("ana");
  const tickets = Array.from({ length: TICKETS }, (_, number) => ({
    type: "ticket.opened", ticket: `t${number}`, subject: `Number ${number}`, body: "x", requester: {},
  }));
  await warren.post("tickets", tickets);
  const page = await open(browser);
  await signIn(page, warren.web, "ana");
  await live(page);
  const first = page.locator(id("row")).first();
  const texts = () => page.locator(id("row")).allInnerTexts();
  await until("every ticket", async () =>
    (await page.locator(".views a").nth(2).innerText()).includes(String(TICKETS)));
  const scroller = page.locator(".list-scroll");
  assert.ok((await page.locator(id("row")).count()) < 60, "only some are drawn");
  const height = await scroller.evaluate((it) => it.scrollHeight);
  assert.equal(height, TICKETS * 56);

  // From top to bottom, each of them once.
  const seen = new Set();
  const look = async () => {
    for (const text of await texts()) seen.add(/Number (\d+)/.exec(text)?.[1]);
  };
  for (let top = 0; top <= height; top += 400) {
    await scroller.evaluate((it, top) => (it.scrollTop = top), top);
    // Drawn when the lowest row reaches the lower edge.
    await until("the rows in sight", () => scroller.evaluate((it) => {
      const last = it.querySelector(".rows li:last-child").getBoundingClientRect();
      const first = it.querySelector(".rows li").getBoundingClientRect();
      const edge = it.getBoundingClientRect();
      return last.bottom >= edge.bottom - 1 && first.top <= edge.top + 1;
    }));
    await look();
  }
  assert.equal(seen.size, TICKETS);
  assert.ok((await page.locator(id("row")).count()) < 60);
  // What comes meanwhile moves nothing: a pill says so.
  await warren.post("tickets", { ...tickets[0], ticket: "late", subject: "Late one" });
  await page.locator(".new-pill").waitFor();
  assert.ok(!(await texts()).some((text) => text.includes("Late one")));
  await page.click(".new-pill");
  await until("the new one on top", async () => (await first.innerText()).includes("Late one"));

  // By key, far beyond what was drawn at first; the open one stays in sight.
  for (let step = 0; step < 60; step += 1) await page.keyboard.press("j");
  const selected = page.locator(`${id("row")}[aria-current="true"]`);
  await selected.waitFor();
  assert.equal(await selected.count(), 1);
  const box = await selected.boundingBox();
  const frame = await scroller.boundingBox();
  assert.ok(box.y >= frame.y - 1 && box.y + box.height <= frame.y + frame.height + 1, "in sight");
  assert.deepEqual(page.faults, []);
});

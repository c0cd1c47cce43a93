// The redundancy scenario: three RabbitMQ nodes, PostgreSQL, two aggregators,
// two backends; one of each dies under a page that is in use.

import assert from "node:assert/strict";
import { test } from "node:test";
import { assertStored, cluster, openChat, writer } from "./cluster.mjs";
import { id, launch, live, open, snapshot, until } from "./lib.mjs";

test("an aggregator, a backend and a broker node die; the page goes on, nothing is missing", async (t) => {
  const all = await cluster();
  t.after(() => all.stop());
  const browser = await launch();
  t.after(() => browser.close());
  const page = await open(browser);
  let socket = "";
  page.on("websocket", (one) => (socket = one.url()));
  const interaction = await openChat(all, page, "s-1");
  await page.waitForSelector(id("thread"));

  const customer = writer(all, "s-1");
  const { accepted } = customer;
  const shown = async (text) =>
    page.locator(id("entry"), { hasText: text }).first().waitFor({ state: "attached" });
  const more = async (what) => {
    const from = accepted.length;
    await until(`words after ${what}`, () => accepted.length > from + 25);
    await shown(accepted[from + 20]);
    await live(page);
  };

  await more("the start");
  const mine = all.aggregator(socket);
  assert.ok(mine, `the page is on none of the aggregators: ${socket}`);
  all.kill(mine.name);
  await more("the aggregator's death");
  assert.ok(!mine.address.includes(new URL(socket).host), "the page is on the other one");
  all.kill("backend 1");
  await more("the backend's death");
  all.kill("rabbitmq 1");
  await more("the broker node's death");

  await customer.stop();
  await shown(accepted.at(-1));
  assertStored(await snapshot(page, interaction), accepted);
  const seen = await page.locator(`${id("entry")}[data-type="chat.message"]`).allTextContents();
  const words = seen.map((text) => /word \d+;/.exec(text)?.[0]).filter(Boolean);
  assert.deepEqual(words, accepted.slice(-words.length), "shown: each once, in order");
  assert.ok(words.length >= Math.min(accepted.length, 400), `${words.length} shown`);
});

// An aggregator is stopped under a page that is in use, as for an upgrade: the
// page moves, and nobody sees that.

import assert from "node:assert/strict";
import { test } from "node:test";
import { assertStored, cluster, openChat, writer } from "./cluster.mjs";
import { id, launch, live, open, snapshot, until } from "./lib.mjs";

/// Writes down each state of the pill, those that last for one microtask too,
/// and each message in the order in which it comes onto the screen.
function watch() {
  const pill = document.querySelector('[data-testid="connection-pill"]');
  window.states = [pill.dataset.state];
  window.words = [];
  new MutationObserver((changes) => {
    window.states.push(...changes.map((change) => change.oldValue), pill.dataset.state);
  }).observe(pill, { attributes: true, attributeFilter: ["data-state"], attributeOldValue: true });
  const said = (node) => {
    const text = node.nodeType === 1 ? /word \d+;/.exec(node.textContent)?.[0] : undefined;
    if (text) window.words.push(text);
  };
  new MutationObserver((changes) => {
    for (const change of changes) change.addedNodes.forEach(said);
  }).observe(document.querySelector(".timeline ol"), { childList: true });
}

test("an aggregator drains; the page moves without a word, each event comes once", async (t) => {
  const all = await cluster();
  t.after(() => all.stop());
  const browser = await launch();
  t.after(() => browser.close());
  const page = await open(browser);
  const sockets = [];
  page.on("websocket", (socket) => {
    const one = { url: socket.url(), closed: false };
    one.beside = sockets.filter((other) => !other.closed).length;
    sockets.push(one);
    socket.on("close", () => (one.closed = true));
  });
  const interaction = await openChat(all, page, "s-1");
  await page.locator(id("entry"), { hasText: "Hello?" }).waitFor();
  await page.evaluate(watch);

  const customer = writer(all, "s-1");
  const more = async (what) => {
    const from = customer.accepted.length;
    await until(`words after ${what}`, () => customer.accepted.length > from + 25);
  };
  await more("the start");
  const first = sockets.at(-1);
  const drained = all.aggregator(first.url);
  assert.ok(drained, `the page is on none of the aggregators: ${first.url}`);
  all.drain(drained.name);
  await until("the old socket to be closed", () => first.closed);
  await more("the drain");
  const accepted = await customer.stop();
  await page.locator(id("entry"), { hasText: accepted.at(-1) }).waitFor({ state: "attached" });
  await live(page);

  const { states, words } = await page.evaluate(() => ({ states: window.states, words: window.words }));
  const told = [...new Set(states)].filter((state) => !["live", "catching-up"].includes(state));
  assert.deepEqual(told, [], "the pill never said that the line was gone");
  const last = sockets.at(-1);
  assert.notEqual(all.aggregator(last.url)?.name, drained.name, "the page is on the other one");
  assert.ok(last.beside > 0, "the new socket was opened before the old one was closed");
  assert.deepEqual(words, accepted, "shown: each once, in order");
  assertStored(await snapshot(page, interaction), accepted);
  assert.deepEqual(page.faults, []);
});

// What an agent isn't looking at calls for the agent: by sound, by a mark, by
// the tab's title and icon; and what the hands do without a mouse.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Warren, id, launch, live, open, row, rowOf, signIn, snapshot, state, until } from "./lib.mjs";

let browser;
before(async () => (browser = await launch()));
after(() => browser.close());

async function desk(t, role = "agent") {
  const warren = await Warren.start();
  t.after(() => warren.stop());
  warren.addAgent("ana", role);
  const page = await open(browser);
  // Counts the tones instead of hearing them.
  await page.addInitScript(() => {
    window.tones = 0;
    const create = BaseAudioContext.prototype.createOscillator;
    BaseAudioContext.prototype.createOscillator = function () {
      window.tones += 1;
      return create.call(this);
    };
  });
  await signIn(page, warren.web, "ana");
  await live(page);
  const tones = () => page.evaluate(() => window.tones);
  // Browsers let no sound out before somebody has pressed something, and take
  // their time for the first: switched on, it is tried.
  await until("a first sound", async () => {
    await page.click(id("alerts"));
    if ((await page.getAttribute(id("alerts"), "aria-pressed")) === "false") return false;
    return (await tones()) > 0;
  });
  return { warren, page, tones };
}

const ticket = (name) => ({
  type: "ticket.opened", ticket: name, subject: name, body: "x", requester: { name },
});

test("an offer rings again and again until it is answered, and the tab says so", async (t) => {
  const { warren, page, tones } = await desk(t);
  const icon = () => page.locator("link[rel=icon]").getAttribute("href");
  const plain = await icon();
  await warren.post("voice", { type: "call.queued", call: "c-1", from: "+351210000101", to: "+18005550100" });
  await warren.post("voice", { type: "call.ringing", call: "c-1", agent: "ana" });
  const before = await tones();
  await page.waitForSelector(id("offer"));
  // Two tones a ring: three rings.
  await until("three rings", async () => (await tones()) >= before + 6);
  assert.match(await page.title(), /^\(1\) /);
  assert.match(await icon(), /^data:/);
  await page.keyboard.press("Shift+A");
  await until("no offer", async () => (await page.locator(id("offer")).count()) === 0);
  await until("a quiet title", async () => (await page.title()) === "Warren");
  assert.equal(await icon(), plain);
  assert.deepEqual(page.faults, []);
});

test("what comes while one looks elsewhere is marked until it is looked at", async (t) => {
  const { warren, page, tones } = await desk(t);
  await warren.post("chat", {
    type: "chat.started", chat: "s-1", contact: { name: "Hiro Tanaka" }, text: "Hello?",
  });
  await warren.post("tickets", ticket("Another one"));
  const chat = await rowOf(page, "Hiro Tanaka");
  const other = await rowOf(page, "Another one");
  await page.click(row(chat));
  await page.click(id("action-take"));
  await state(page, chat, "active");
  // Looked at: no mark.
  await warren.post("chat", { type: "chat.message", chat: "s-1", text: "First" });
  await page.locator(id("entry"), { hasText: "First" }).waitFor();
  assert.equal(await page.locator(".row.unread").count(), 0);
  await page.click(row(other));
  await page.waitForSelector(`${id("thread")}[data-id="${other}"]`);
  const before = await tones();
  await warren.post("chat", { type: "chat.message", chat: "s-1", text: "Second" });
  await page.waitForSelector(`${row(chat)}.unread`);
  await until("a sound", async () => (await tones()) > before);
  assert.match(await page.title(), /^\(1\) /);
  // Switched off, nothing is heard; the mark comes all the same.
  await page.click(id("alerts"));
  assert.equal(await page.getAttribute(id("alerts"), "aria-pressed"), "false");
  await page.click(row(chat));
  await until("no mark", async () => (await page.locator(".row.unread").count()) === 0);
  assert.equal(await page.title(), "Warren");
  await page.click(row(other));
  const quiet = await tones();
  await warren.post("chat", { type: "chat.message", chat: "s-1", text: "Third" });
  await page.waitForSelector(`${row(chat)}.unread`);
  assert.equal(await tones(), quiet);
  assert.deepEqual(page.faults, []);
});

test("a day's work by the keys alone", async (t) => {
  const { warren, page } = await desk(t, "admin");
  await warren.post("tickets", ["Broken lamp", "Wrong size"].map(ticket));
  const [size, lamp] = [await rowOf(page, "Wrong size"), await rowOf(page, "Broken lamp")];
  await page.keyboard.press("j");
  const selected = async () => page.locator(`${id("row")}[aria-current="true"]`).getAttribute("data-id");
  const first = await selected();
  const next = first === lamp ? size : lamp;
  await page.waitForSelector(id("thread"));
  const focused = () => page.evaluate(() => document.activeElement?.dataset.testid);
  for (const [key, field] of [["a", "action-assign"], ["s", "action-snooze"], ["p", "action-priority"], ["t", "tag-input"]]) {
    await page.keyboard.press(key);
    await until(`the focus on ${field}`, async () => (await focused()) === field);
    // Once for the open choice, once to leave it.
    await page.keyboard.press("Escape");
    await page.locator(".timeline").focus();
  }
  await page.keyboard.press("i");
  await until("the assignee", async () => (await snapshot(page, first)).assignee === "ana");
  await page.keyboard.press("Shift+E");
  await state(page, first, "resolved");
  await page.waitForSelector(`${id("thread")}[data-id="${next}"]`);
  assert.notEqual((await snapshot(page, next)).state, "resolved");
  await page.keyboard.press("g");
  await page.keyboard.press("a");
  await page.waitForURL("**/admin/dead-letters");
  await page.keyboard.press("g");
  await page.keyboard.press("i");
  await page.waitForURL("**/inbox");
  assert.deepEqual(page.faults, []);
});

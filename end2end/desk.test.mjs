// The main job in a real browser.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import {
  PASSWORD, Warren, entries, hydrated, id, launch, live, open, row, rowOf, signIn, snapshot, state, until,
} from "./lib.mjs";

let browser;
before(async () => (browser = await launch()));
after(() => browser.close());

async function desk(t, login = "ana", role = "agent") {
  const warren = await Warren.start();
  t.after(() => warren.stop());
  warren.addAgent(login, role);
  const page = await open(browser);
  await signIn(page, warren.web, login);
  await live(page);
  return { warren, page };
}

test("the first page makes the first admin, who lands on a live desk", async (t) => {
  const warren = await Warren.start();
  t.after(() => warren.stop());
  const page = await open(browser);
  await page.goto(warren.web);
  await page.waitForURL("**/setup");
  await hydrated(page);
  await page.fill(id("setup-login"), "root");
  await page.fill(id("setup-name"), "Rosa Root");
  await page.fill(id("setup-password"), PASSWORD);
  await page.click(id("setup-submit"));
  await page.waitForURL("**/inbox");
  await live(page);
  const me = await page.evaluate(async () => (await fetch("/api/v1/me")).json());
  assert.equal(me.principal.role, "admin");
  assert.deepEqual(page.faults, []);
});

test("a wrong password is refused in words; signing out ends the session", async (t) => {
  const warren = await Warren.start();
  t.after(() => warren.stop());
  warren.addAgent("ana");
  const page = await open(browser);
  await signIn(page, warren.web, "ana", "not her password");
  await page.waitForSelector(id("error"));
  await page.fill(id("login"), "ana");
  await page.fill(id("password"), PASSWORD);
  await page.click(id("sign-in"));
  await live(page);
  await page.click(id("sign-out"));
  await page.waitForURL("**/sign-in");
  await page.goto(`${warren.web}/inbox`);
  await page.waitForURL("**/sign-in");
});

test("a call rings on the screen, is answered, held, resumed and ended", async (t) => {
  const { warren, page } = await desk(t);
  await warren.post("voice", {
    type: "call.queued", call: "c-1", from: "+351210000101", to: "+18005550100",
    contact: { name: "Ines Duarte" },
  });
  const interaction = await rowOf(page, "Ines Duarte");
  const ringing = await warren.post("voice", { type: "call.ringing", call: "c-1" });
  await page.click(row(interaction));
  await page.click(id("action-answer"));
  await state(page, interaction, "in_progress");
  await page.click(id("action-hold"));
  await state(page, interaction, "on_hold");
  await page.click(id("action-resume"));
  await state(page, interaction, "in_progress");
  // The page may hear of it later than this test.
  await page.waitForSelector(id("action-hold"));
  await page.click(id("action-end"));
  await state(page, interaction, "wrap_up");
  await until("the journey to say acted", async () => {
    const answer = await fetch(`${warren.external}/external/events/${ringing}`, {
      headers: { authorization: `Bearer ${warren.key}` },
    });
    return (await answer.json()).status === "acted";
  });
  assert.deepEqual(page.faults, []);
});

test("a chat is answered: the words go out once, and the customer's come in", async (t) => {
  const { warren, page } = await desk(t);
  await warren.post("chat", {
    type: "chat.started", chat: "s-1", contact: { name: "Hiro Tanaka" }, text: "Hello?",
  });
  const interaction = await rowOf(page, "Hiro Tanaka");
  await page.click(row(interaction));
  await page.click(id("action-take"));
  await page.waitForSelector(`${id("tab-reply")}[aria-selected="true"]`);
  await page.fill(id("composer-text"), "Good morning, how can I help?");
  await page.click(id("composer-send"));
  await entries(page, "chat.message").filter({ hasText: "Good morning" }).waitFor();
  await warren.post("chat", { type: "chat.message", chat: "s-1", text: "My parcel is lost" });
  await entries(page, "chat.message").filter({ hasText: "My parcel is lost" }).waitFor();
  const { timeline } = await snapshot(page, interaction);
  const said = timeline.filter((event) => event.type === "chat.message").map((one) => one.text);
  assert.deepEqual(said, ["Good morning, how can I help?", "My parcel is lost"]);
  // How far the customer's words have got: onto this very screen.
  await entries(page, "chat.message").filter({ hasText: "My parcel is lost" }).locator(".stamp").click();
  for (const stage of ["accepted", "brokered", "decided", "announced", "sent", "received", "rendered"]) {
    await page.waitForSelector(`${id("journey")} li[data-stage="${stage}"]`);
  }
  await page.click(id("action-end-chat"));
  await state(page, interaction, "wrap_up");
  assert.deepEqual(page.faults, []);
});

test("a ticket is assigned, answered and resolved", async (t) => {
  const { warren, page } = await desk(t);
  await warren.post("tickets", {
    type: "ticket.opened", ticket: "t-1", subject: "Wrong invoice", body: "The VAT number.",
    requester: { name: "Sofia Rossi" },
  });
  const interaction = await rowOf(page, "Sofia Rossi");
  await page.click(row(interaction));
  await page.click(id("action-assign-me"));
  await until("the assignee", async () => (await snapshot(page, interaction)).assignee === "ana");
  await page.fill(id("composer-text"), "A corrected one is on its way.");
  await page.click(id("composer-send"));
  await entries(page, "ticket.commented").filter({ hasText: "corrected" }).waitFor();
  await page.selectOption(id("action-priority"), "urgent");
  await until("the priority", async () => (await snapshot(page, interaction)).priority === "urgent");
  await page.selectOption(id("action-status"), "resolved");
  await state(page, interaction, "resolved");
  assert.deepEqual(page.faults, []);
});

test("colleagues see the same; what is direct is seen by the one named", async (t) => {
  const { warren, page: ana } = await desk(t);
  warren.addAgent("ben");
  const ben = await open(browser);
  await signIn(ben, warren.web, "ben");
  await live(ben);
  const ticket = (name, distribution) => ({
    type: "ticket.opened", ticket: name, subject: name, body: "b", requester: { name },
    ...(distribution && { distribution }),
  });
  await warren.post("tickets", ticket("For Ben alone", { direct: "ben" }));
  await warren.post("tickets", ticket("For everybody"));
  await rowOf(ben, "For Ben alone");
  await rowOf(ana, "For everybody");
  assert.equal(await ana.locator(id("row"), { hasText: "For Ben alone" }).count(), 0);
  await ana.reload();
  await live(ana);
  await rowOf(ana, "For everybody");
  assert.equal(await ana.locator(id("row"), { hasText: "For Ben alone" }).count(), 0);
});

test("killed and back, the page goes on by itself and nothing is missing or double", async (t) => {
  const { warren, page } = await desk(t);
  await warren.post("chat", {
    type: "chat.started", chat: "s-1", contact: { name: "Grace Mbeki" }, text: "Hello?",
  });
  const interaction = await rowOf(page, "Grace Mbeki");
  await page.click(row(interaction));
  await page.click(id("action-take"));
  await page.waitForSelector(`${id("tab-reply")}[aria-selected="true"]`);
  await warren.kill();
  await page.waitForSelector(`${id("connection-pill")}:not([data-state="live"])`);
  // Said while nobody listens: it waits in the browser.
  await page.fill(id("composer-text"), "Said while the line was dead");
  await page.click(id("composer-send"));
  await warren.begin();
  const missed = Array.from({ length: 20 }, (_, turn) => `missed ${turn};`);
  for (const text of missed) {
    await warren.post("chat", { type: "chat.message", chat: "s-1", text });
  }
  await live(page);
  for (const text of [...missed, "Said while the line was dead"]) {
    const seen = entries(page, "chat.message").filter({ hasText: text });
    await seen.first().waitFor();
    assert.equal(await seen.count(), 1, text);
  }
  const { timeline } = await snapshot(page, interaction);
  const said = timeline.filter((event) => event.text === "Said while the line was dead");
  assert.equal(said.length, 1);
});

test("what is given while the server is gone outlives a reload and has one effect", async (t) => {
  const { warren, page } = await desk(t);
  await warren.post("chat", {
    type: "chat.started", chat: "s-1", contact: { name: "Noor Aziz" }, text: "Hello?",
  });
  const interaction = await rowOf(page, "Noor Aziz");
  await page.click(row(interaction));
  await page.click(id("action-take"));
  await page.waitForSelector(`${id("tab-reply")}[aria-selected="true"]`);
  const address = page.url();
  await warren.kill();
  await page.waitForSelector(`${id("connection-pill")}:not([data-state="live"])`);
  await page.fill(id("composer-text"), "Said before the reload");
  await page.click(id("composer-send"));
  await page.locator(`${id("outgoing")}[data-state="pending"]`).waitFor();
  // Something with a deadline as well: it is done or told as failed, never dropped.
  await page.click(id("action-end-chat"));
  await page.waitForSelector(`${id("action-end-chat")}[aria-busy="true"]`);
  await assert.rejects(page.reload(), /ERR_CONNECTION_REFUSED/);
  // The browser's own page of the failure comes after the failure is told.
  await page.waitForURL("chrome-error://chromewebdata/", { waitUntil: "commit" });
  await warren.begin();
  await page.goto(address);
  await live(page);
  const said = entries(page, "chat.message").filter({ hasText: "Said before the reload" });
  await said.waitFor();
  await until("the end of the chat, or word of it", async () =>
    (await snapshot(page, interaction)).state === "wrap_up" || (await page.isVisible(id("error"))),
  );
  await until("nothing under way", async () => (await page.locator(id("outgoing")).count()) === 0);
  assert.equal(await said.count(), 1);
  const { timeline } = await snapshot(page, interaction);
  assert.equal(timeline.filter((event) => event.text === "Said before the reload").length, 1);
  // What has its answer is not kept: the next page sends nothing again.
  await page.reload();
  await live(page);
  await said.waitFor();
  assert.equal(await page.locator(id("outgoing")).count(), 0);
});

test("pages can be read and forms be sent without scripts", async (t) => {
  const warren = await Warren.start();
  t.after(() => warren.stop());
  warren.addAgent("ana");
  await warren.post("chat", {
    type: "chat.started", chat: "s-1", contact: { name: "Omar Haddad" }, text: "Hello?",
  });
  await warren.post("chat", { type: "chat.message", chat: "s-1", text: "<b>Anybody</b> there?" });
  const page = await open(browser, { javaScriptEnabled: false });
  await page.goto(`${warren.web}/sign-in`);
  await page.fill(id("login"), "ana");
  await page.fill(id("password"), PASSWORD);
  await page.click(id("sign-in"));
  await until("the desk", async () => {
    await page.goto(`${warren.web}/inbox`);
    return (await page.locator(id("row"), { hasText: "Omar Haddad" }).count()) === 1;
  });
  await page.locator(id("row"), { hasText: "Omar Haddad" }).click();
  await entries(page, "chat.message").filter({ hasText: "<b>Anybody</b> there?" }).waitFor();
});

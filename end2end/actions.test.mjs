// What an agent begins: tickets by hand, transfers, being away; by mouse and by
// key, told while it is under way and where it fails.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Warren, id, launch, live, open, row, rowOf, signIn, snapshot, state, until } from "./lib.mjs";

let browser;
before(async () => (browser = await launch()));
after(() => browser.close());

async function desk(t, logins = ["ana"]) {
  const warren = await Warren.start();
  t.after(() => warren.stop());
  const pages = [];
  for (const login of logins) warren.addAgent(login);
  for (const login of logins) {
    const page = await open(browser);
    await signIn(page, warren.web, login);
    await live(page);
    pages.push(page);
  }
  return { warren, pages };
}

/// Ana talks to Ines.
async function call(warren, page) {
  await warren.post("voice", {
    type: "call.queued", call: "c-1", from: "+351210000101", to: "+18005550100", queue: "support",
    contact: { name: "Ines Duarte" },
  });
  const interaction = await rowOf(page, "Ines Duarte");
  await page.click(row(interaction));
  await page.click(id("action-answer"));
  await state(page, interaction, "in_progress");
  return interaction;
}

const focused = (page) => page.evaluate(() => document.activeElement?.dataset.testid);

test("a ticket is opened by hand with the keyboard alone, for the person on the screen", async (t) => {
  const { warren, pages: [page] } = await desk(t);
  await warren.post("chat", {
    type: "chat.started", chat: "s-1", contact: { name: "Hiro Tanaka", email: "hiro@example.com" },
    text: "Hello?",
  });
  await page.click(row(await rowOf(page, "Hiro Tanaka")));
  await page.waitForSelector(id("thread"));
  await page.locator(".timeline").focus();
  await page.keyboard.press("c");
  await until("the first field", async () => (await focused(page)) === "new-ticket-subject");
  // Escape closes it, and what was written is still there the next time.
  await page.keyboard.type("Parcel lost");
  await page.keyboard.press("Escape");
  await until("no dialog", async () => !(await page.isVisible("#new-ticket")));
  await page.keyboard.press("c");
  await until("the first field", async () => (await focused(page)) === "new-ticket-subject");
  assert.equal(await page.inputValue(id("new-ticket-subject")), "Parcel lost");
  await page.keyboard.press("Tab");
  await page.keyboard.type("Sent on Monday, not there on Friday.");
  await page.selectOption(id("new-ticket-priority"), "high");
  await page.fill(id("new-ticket-tags"), "Parcels, late");
  assert.ok(await page.isChecked(id("new-ticket-for")));
  await page.locator(id("new-ticket-subject")).press("Enter");
  await page.waitForSelector(`${id("thread")}:has-text("Parcel lost")`);
  assert.ok(!(await page.isVisible("#new-ticket")));
  const interaction = new URL(page.url()).pathname.split("/").at(-1);
  const ticket = await snapshot(page, interaction);
  assert.equal(ticket.kind, "ticket");
  assert.equal(ticket.priority, "high");
  assert.deepEqual(ticket.tags, ["parcels", "late"]);
  assert.equal(ticket.contact.name, "Hiro Tanaka");
  // The form is empty again.
  await page.click(id("new-ticket"));
  assert.equal(await page.inputValue(id("new-ticket-subject")), "");
  assert.deepEqual(page.faults, []);
});

test("a ticket given while the server is gone waits, and is opened once", async (t) => {
  const { warren, pages: [page] } = await desk(t);
  await warren.kill();
  await page.waitForSelector(`${id("connection-pill")}:not([data-state="live"])`);
  await page.click(id("new-ticket"));
  await page.fill(id("new-ticket-subject"), "Call back");
  await page.fill(id("new-ticket-body"), "On Monday.");
  await page.click(id("new-ticket-submit"));
  await page.waitForSelector(`${id("new-ticket-submit")}[aria-busy="true"]`);
  await warren.begin();
  // Done, or told as failed with a way to say the same once more.
  await until("the ticket, or word of it", async () => {
    if (await page.isVisible(id("new-ticket-error"))) await page.click(id("new-ticket-submit"), { timeout: 1_000 });
    return page.isVisible(`${id("thread")}:has-text("Call back")`);
  });
  await live(page);
  assert.equal(await page.locator(id("row"), { hasText: "Call back" }).count(), 1);
});

test("a call goes to a colleague, to a queue and back, from thread and call bar", async (t) => {
  const { warren, pages: [ana, ben] } = await desk(t, ["ana", "ben"]);
  const interaction = await call(warren, ana);
  await ana.click(id("call-transfer"));
  const choice = `${id("transfer-agent")}[data-login="ben"]`;
  await ana.waitForSelector(choice);
  assert.equal(await ana.locator(id("transfer-agent")).count(), 1, "not to oneself");
  await until("the colleague to have the focus", async () =>
    ana.evaluate(() => document.activeElement?.dataset.login === "ben"));
  await ana.keyboard.press("Escape");
  await until("no dialog", async () => !(await ana.isVisible("#transfer")));
  assert.equal(await focused(ana), "call-transfer");
  await ana.keyboard.press("Enter");
  await ana.waitForSelector(choice);
  // Closed and opened again before the page hears of the closing, a frame later.
  await ana.evaluate(() => {
    const dialog = document.querySelector("#transfer");
    window.closed = new Promise((done) => dialog.addEventListener("close", done, { once: true }));
    dialog.close();
    document.querySelector("[data-testid=call-transfer]").click();
  });
  await ana.evaluate(() => window.closed);
  await ana.click(choice);
  // Ben answers, and hands it to a queue that he writes.
  await ben.click(id("offer-accept"));
  await until("ben to have it", async () => (await snapshot(ben, interaction)).assignee === "ben");
  await until("no call bar", async () => (await ana.locator(id("call-bar")).count()) === 0);
  await ben.click(row(interaction));
  await ben.click(id("action-transfer"));
  await ben.fill(id("transfer-queue"), "billing");
  await ben.keyboard.press("Enter");
  await until("billing to have it", async () => {
    const now = await snapshot(ben, interaction);
    return now.queue === "billing" && !now.assignee && now.state === "queued";
  });
  // Whoever takes it by mistake puts it back.
  await ana.click(id("action-answer"));
  await ana.click(id("call-transfer"));
  assert.match(await ana.locator(id("transfer-back")).innerText(), /Back to billing/);
  await ana.click(id("transfer-back"));
  await until("it to wait again", async () => !(await snapshot(ana, interaction)).assignee);
  assert.deepEqual([...ana.faults, ...ben.faults], []);
});

test("the transfer dialog goes away with the call", async (t) => {
  const { warren, pages: [page] } = await desk(t);
  await call(warren, page);
  await page.click(id("call-transfer"));
  await page.locator("#transfer").waitFor();
  await warren.post("voice", { type: "call.ended", call: "c-1", reason: "completed" });
  await until("no dialog", async () => !(await page.isVisible("#transfer")));
});

test("what is refused after one has gone on is told where one is", async (t) => {
  const { warren, pages: [ben] } = await desk(t, ["ben"]);
  warren.addAgent("ana");
  const ana = await open(browser);
  // Holds back what ana's page would hear.
  let held;
  await ana.routeWebSocket(/\/ws/, (socket) => {
    const server = socket.connectToServer();
    socket.onMessage((message) => server.send(message));
    server.onMessage((message) => {
      if (held) held.push(() => socket.send(message));
      else socket.send(message);
    });
  });
  await signIn(ana, warren.web, "ana");
  await live(ana);
  await warren.post("chat", { type: "chat.started", chat: "s-1", contact: { name: "Noor Aziz" } });
  const interaction = await rowOf(ana, "Noor Aziz");
  await ana.click(row(interaction));
  await ana.waitForSelector(id("action-take"));
  held = [];
  await ben.click(row(interaction));
  await ben.click(id("action-take"));
  await until("ben to have it", async () => (await snapshot(ben, interaction)).assignee === "ben");
  await ana.click(id("action-take"));
  await ana.waitForSelector(`${id("action-take")}[aria-busy="true"]`);
  await ana.click(id("room-inbox"));
  await until("nothing on the screen", async () => (await ana.locator(id("thread")).count()) === 0);
  const late = held;
  held = undefined;
  for (const deliver of late) deliver();
  const told = ana.locator(".elsewhere").getByRole("alert");
  await told.waitFor();
  assert.match(await told.innerText(), /Take.*Noor Aziz.*ben has it/s);
  await told.getByRole("link").click();
  await ana.waitForSelector(`${id("thread")}[data-id="${interaction}"]`);
  await ana.getByRole("button", { name: "Dismiss" }).click();
  await until("nothing told", async () => (await ana.locator(id("error")).count()) === 0);
  assert.deepEqual([...ana.faults, ...ben.faults], []);
});

test("away with a reason, chosen or written; colleagues see it", async (t) => {
  const { pages: [ana, ben] } = await desk(t, ["ana", "ben"]);
  const shown = (page) => page.locator(`${id("presence")} option:checked`).innerText();
  const known = async (reason) => until(`ben to know of ${reason}`, async () => {
    const agents = await ben.evaluate(async () => (await fetch("/api/v1/agents")).json());
    return JSON.stringify(agents).includes(`"reason":"${reason}"`);
  });
  await ana.selectOption(id("presence"), "away:lunch");
  await until("lunch", async () => (await shown(ana)) === "Away: lunch");
  await known("lunch");
  await ana.selectOption(id("presence"), "other");
  await until("the field", async () => (await focused(ana)) === "away-reason");
  await ana.keyboard.press("Escape");
  await until("no dialog", async () => !(await ana.isVisible("#away")));
  assert.equal(await shown(ana), "Away: lunch");
  await ana.selectOption(id("presence"), "other");
  await ana.fill(id("away-reason"), "dentist");
  await ana.keyboard.press("Enter");
  await until("the dentist", async () => (await shown(ana)) === "Away: dentist");
  await known("dentist");
  await ana.reload();
  await live(ana);
  assert.equal(await shown(ana), "Away: dentist");
  await ana.selectOption(id("presence"), "available");
  await until("back", async () => (await shown(ana)) === "Available");
  assert.deepEqual([...ana.faults, ...ben.faults], []);
});

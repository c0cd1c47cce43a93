// Pictures of every room, to be looked at: `node end2end/shots.mjs FOLDER`.

import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { Warren, hydrated, id, launch, live, open, signIn, smuggle, until } from "./lib.mjs";

const folder = process.argv[2] ?? "target/shots";
mkdirSync(folder, { recursive: true });
const sizes = { wide: [1440, 900], middle: [900, 1000], phone: [390, 844] };
const schemes = ["light", "dark"];

/// A page for each scheme and size.
async function each(page, what) {
  for (const colorScheme of schemes) {
    await page.emulateMedia({ colorScheme });
    for (const [name, [width, height]] of Object.entries(sizes)) {
      await page.setViewportSize({ width, height });
      const shot = (room) => page.screenshot({ path: join(folder, `${room}-${colorScheme}-${name}.png`) });
      await what(shot, name);
    }
  }
}

async function go(page, address) {
  await page.goto(address);
  await hydrated(page);
  await live(page);
}

/// The desk of the demo, at work.
async function atWork(browser) {
  const warren = await Warren.start({ args: ["--demo"] });
  const page = await open(browser);
  await signIn(page, warren.web, "ada", "warren-demo");
  await live(page);
  await page.selectOption(id("presence"), "available");
  await until("rows", async () => (await page.locator(id("row")).count()) >= 8);
  // A chat and a call of our own.
  await warren.post("chat", {
    type: "chat.started", chat: "shot", contact: { name: "Mira Sand", email: "mira@example.com" },
    text: "Good morning! My parcel should have been here on Monday.", queue: "support",
  });
  await page.locator(id("row"), { hasText: "Mira Sand" }).first().click();
  await page.click(id("action-take"));
  await page.waitForSelector(`${id("tab-reply")}[aria-selected="true"]`);
  await page.fill(id("composer-text"), "Good morning, Mira. I am looking for it right now.");
  await page.click(id("composer-send"));
  await page.click(id("tab-note"));
  await page.fill(id("composer-text"), "The second time this month.");
  await page.click(id("composer-send"));
  await page.click(id("tab-reply"));
  await warren.post("chat", { type: "chat.message", chat: "shot", text: "Thank you. It is a birthday present." });
  await page.locator(id("entry"), { hasText: "birthday" }).waitFor();
  const address = page.url();
  await warren.post("voice", {
    type: "call.queued", call: "shot", from: "+351210000101", to: "+18005550100", queue: "support",
    contact: { name: "Ines Duarte" },
  });
  await warren.post("voice", { type: "call.answered", call: "shot", agent: "ada" });
  await page.waitForSelector(id("call-bar"));
  await page.fill(id("tag-input"), "parcel");
  await page.press(id("tag-input"), "Enter");
  await warren.post("voice", {
    type: "call.queued", call: "offered", from: "+4930901820", to: "+18005550100", queue: "sales",
    contact: { name: "Nadia Rahal" },
  });
  await warren.post("voice", { type: "call.ringing", call: "offered", agent: "ada" });
  await page.waitForSelector(id("offer"));
  await page.screenshot({ path: join(folder, "desk.png") });
  await each(page, async (shot, name) => {
    await go(page, `${warren.web}/inbox`);
    await shot("list");
    await go(page, address);
    await page.waitForSelector(id("entry"));
    await shot("thread");
    if (name !== "wide") {
      await page.click(".drawer-toggle");
      await page.locator(id("tag-input")).waitFor();
      await shot("drawer");
      await page.click(".drawer-close");
    }
    await page.keyboard.press("c");
    await page.locator(id("new-ticket-subject")).waitFor();
    await shot("new-ticket");
    await page.keyboard.press("Escape");
    await page.click(id("call-transfer"));
    await page.locator(id("transfer-agent")).first().waitFor();
    await shot("transfer");
    await page.keyboard.press("Escape");
    await page.locator(".timeline").focus();
    await page.keyboard.press("?");
    await shot("keys");
    await page.keyboard.press("Escape");
    await go(page, `${warren.web}/inbox?view=closed&channel=tickets`);
    await shot("closed");
    await go(page, `${warren.web}/admin/audit`);
    await page.waitForSelector(id("audit-members"));
    await shot("audit");
  });
  await go(page, address);
  await warren.kill();
  await page.waitForSelector(`${id("connection-pill")}:not([data-state="live"])`);
  await page.fill(id("composer-text"), "Said while the line was dead");
  await page.click(id("composer-send"));
  await each(page, (shot) => shot("gone"));
  await page.click(id("action-end-chat"));
  await page.waitForSelector(id("error"));
  await each(page, (shot) => shot("failed"));
  await warren.stop();
}

/// A desk where nothing has happened, and one whose messages have died.
async function empty(browser) {
  const warren = await Warren.start();
  warren.addAgent("ana", "admin");
  const page = await open(browser);
  await each(page, async (shot) => {
    await page.goto(`${warren.web}/sign-in`);
    await hydrated(page);
    await shot("sign-in");
  });
  await signIn(page, warren.web, "ana");
  await live(page);
  await each(page, async (shot) => {
    await go(page, `${warren.web}/inbox`);
    await shot("empty");
    await go(page, `${warren.web}/admin/dead-letters`);
    await shot("admin-empty");
  });
  await warren.kill();
  smuggle(warren, [["junk-1", "{no json"], ["01a20db6-61bb-707c-a9a7-e0c16c7132df", '{"type":"chat.what","chat":"c-7"}']]);
  await warren.begin();
  await each(page, async (shot) => {
    await go(page, `${warren.web}/admin/dead-letters`);
    await until("letters", async () => (await page.locator(id("dead-letter")).count()) === 2);
    await page.locator(id("dead-show")).last().click();
    await page.waitForSelector(id("dead-body"));
    await shot("admin");
  });
  await warren.stop();
}

const browser = await launch();
try {
  await atWork(browser);
  await empty(browser);
} finally {
  await browser.close();
}

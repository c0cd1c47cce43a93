// Watches one chat in a real page while the desk is being broken, until its
// standard input ends and the last message is there. Writes what the screen
// shows, each time that it is something new, and what else is wrong, to a
// journal; who reads that decides.
//
//   node end2end/watch.mjs WEB LOGIN PASSWORD INTERACTION JOURNAL MS_ALREADY

import { appendFileSync } from "node:fs";

import { launch, live, open, signIn, snapshot, until } from "./lib.mjs";

const [web, login, password, interaction, journal, already] = process.argv.slice(2);
function write(saw) {
  const t = Number(already) + Math.round(performance.now());
  appendFileSync(journal, `${JSON.stringify({ t, ...saw })}\n`);
}
let over = false;
process.stdin.on("end", () => (over = true)).resume();

const browser = await launch();
const page = await open(browser);
const faults = new Set();
/// What the page's sockets did, and when: told when it is stuck.
const sockets = [];
page.on("websocket", (socket) => {
  const one = { url: socket.url(), begun: Date.now(), frames: 0, answers: 0 };
  sockets.push(one);
  socket.on("framereceived", ({ payload }) => {
    one.frames += 1;
    one.heard = Date.now();
    one.last = String(payload).slice(0, 300);
  });
  socket.on("framesent", ({ payload }) => {
    one.answers += 1;
    one.said = Date.now();
    one.lastSent = String(payload).slice(0, 300);
  });
  socket.on("socketerror", (error) => (one.error = error));
  socket.on("close", () => (one.closed = Date.now()));
});

function story() {
  const ago = (at) => (at ? `${((Date.now() - at) / 1000).toFixed(1)} s ago` : "never");
  return sockets.slice(-3).map((one) =>
    `${one.url} begun ${ago(one.begun)}, ${one.frames} frames heard, the last ${ago(one.heard)} ${one.last}, ${one.answers} said, the last ${ago(one.said)} ${one.lastSent}, ` +
    `${one.error ?? "no error"}, closed ${ago(one.closed)}`);
}

const texts = async () => {
  const all = await page.locator('[data-testid="entry"]').allInnerTexts();
  return all.flatMap((text) => /message (\d+)/.exec(text)?.[1] ?? []).map(Number);
};

let shown = "[]";
async function look() {
  const messages = await texts();
  const now = JSON.stringify(messages);
  if (now !== shown) write({ what: "shown", messages });
  shown = now;
  return messages;
}

try {
  await until("the page", async () => {
    await signIn(page, web, login, password);
    await live(page);
    return true;
  });
  await until("the chat", async () => {
    await page.goto(`${web}/inbox/${interaction}`);
    await live(page);
    return (await texts()).length > 0;
  });
  while (!over) {
    await look();
    await new Promise((resolve) => setTimeout(resolve, 250));
  }
  await until("the last message", async () => {
    const { timeline } = await snapshot(page, interaction);
    if (!timeline) throw new Error("no snapshot");
    const numbers = timeline.flatMap((entry) => /message (\d+)/.exec(JSON.stringify(entry))?.[1] ?? []);
    const wanted = Number(numbers.at(-1));
    return (await look()).at(-1) === wanted;
  });
  for (const fault of page.faults) faults.add(fault);
} catch (error) {
  const pill = await page.locator('[data-testid="connection-pill"]').getAttribute("data-state").catch(() => "none");
  faults.add(`${error.message.split("\n")[0]}; the pill says ${pill}, the address is ${page.url()}, ` +
    `the last message is ${(await texts().catch(() => [])).at(-1)}; sockets: ${story().join("; ")}`);
  for (const fault of page.faults) faults.add(fault);
} finally {
  await browser.close();
}
for (const fault of faults) write({ what: "wrong", why: fault.split("\n")[0] });

// The redundancy scenario: three RabbitMQ nodes, PostgreSQL, two aggregators,
// two backends; one of each dies under a page that is in use.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { id, launch, live, open, post, root, signIn, snapshot, until } from "./lib.mjs";

const xtask = process.env.XTASK_BIN ?? join(root, "target/debug/xtask");
const STEP_MS = 40;

/// A port whose neighbors the cluster takes: nobody listens there now.
async function freeBase() {
  for (let base = 21_000; base < 30_000; base += 10) {
    const ports = [base, base + 1000, ...[1, 2, 3].flatMap((n) => [base + 1000 + n, base + 2000 + n])];
    const tries = await Promise.all(
      ports.map(
        (port) =>
          new Promise((resolve) => {
            const server = createServer();
            server.once("error", () => resolve(false));
            server.listen(port, "127.0.0.1", () => server.close(() => resolve(true)));
          }),
      ),
    );
    if (tries.every(Boolean)) return base;
  }
  throw new Error("no free ports");
}

async function cluster() {
  const folder = mkdtempSync(join(tmpdir(), "cluster-"));
  const file = join(folder, "state.json");
  const base = await freeBase();
  const args = ["cluster", "--no-build", "--web-port", String(base), "--state", file];
  const child = spawn(xtask, args, { cwd: root, stdio: ["ignore", "pipe", "pipe"] });
  let said = "";
  child.stdout.on("data", (chunk) => (said += chunk));
  child.stderr.on("data", (chunk) => (said += chunk));
  const ended = new Promise((resolve) => child.on("exit", resolve));
  const deadline = Date.now() + 180_000;
  while (!existsSync(file)) {
    if (child.exitCode !== null || Date.now() > deadline) throw new Error(`no cluster: ${said}`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  const state = JSON.parse(readFileSync(file, "utf8"));
  const kill = (name) => process.kill(state.members.find((one) => one.name === name).pid, "SIGKILL");
  const stop = async () => {
    child.kill("SIGTERM");
    await ended;
    rmSync(folder, { recursive: true, force: true });
  };
  return { ...state, kill, stop };
}

test("an aggregator, a backend and a broker node die; the page goes on, nothing is missing", async (t) => {
  const all = await cluster();
  t.after(() => all.stop());
  const browser = await launch();
  t.after(() => browser.close());
  const page = await open(browser);
  let socket = "";
  page.on("websocket", (one) => (socket = one.url()));
  await signIn(page, all.web, "ada", "warren-demo");
  await live(page);
  await post(all.external, all.key, "chat", {
    type: "chat.started", chat: "s-1", contact: { name: "Lena Vogt" }, text: "Hello?",
  });
  const row = page.locator(id("row"), { hasText: "Lena Vogt" });
  await row.waitFor();
  const interaction = await row.getAttribute("data-id");
  await row.click();
  await page.waitForSelector(id("thread"));

  // A customer who writes steadily; a 503 or a cut line is sent again under
  // the same id, as any integration does.
  const accepted = [];
  let writing = true;
  const writer = (async () => {
    for (let turn = 0; writing; turn += 1) {
      const event = { type: "chat.message", chat: "s-1", text: `word ${turn};`, event_id: `w-${turn}` };
      await until("a word to be taken", async () => post(all.external, all.key, "chat", event));
      accepted.push(event.text);
      await new Promise((resolve) => setTimeout(resolve, STEP_MS));
    }
  })();
  const shown = async (text) =>
    page.locator(id("entry"), { hasText: text }).first().waitFor({ state: "attached" });
  const more = async (what) => {
    const from = accepted.length;
    await until(`words after ${what}`, () => accepted.length > from + 25);
    await shown(accepted[from + 20]);
    await live(page);
  };

  await more("the start");
  const mine = all.members.find(
    (one) => one.name.startsWith("aggregator") && one.address.includes(new URL(socket).host),
  );
  assert.ok(mine, `the page is on none of the aggregators: ${socket}`);
  all.kill(mine.name);
  await more("the aggregator's death");
  assert.ok(!mine.address.includes(new URL(socket).host), "the page is on the other one");
  all.kill("backend 1");
  await more("the backend's death");
  all.kill("rabbitmq 1");
  await more("the broker node's death");

  writing = false;
  await writer;
  await shown(accepted.at(-1));
  const { timeline } = await snapshot(page, interaction);
  const stored = timeline.filter((one) => one.type === "chat.message").map((one) => one.text);
  assert.deepEqual(stored, accepted, "stored: each once, in order");
  const seen = await page.locator(`${id("entry")}[data-type="chat.message"]`).allTextContents();
  const words = seen.map((text) => /word \d+;/.exec(text)?.[0]).filter(Boolean);
  assert.deepEqual(words, accepted.slice(-words.length), "shown: each once, in order");
  assert.ok(words.length >= Math.min(accepted.length, 400), `${words.length} shown`);
});

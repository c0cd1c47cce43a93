// A cluster of its own for a scenario: three RabbitMQ nodes, PostgreSQL, two
// aggregators, two backends.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { id, live, post, root, signIn, until } from "./lib.mjs";

const xtask = process.env.XTASK_BIN ?? join(root, "target/debug/xtask");
/// Between two of a writer's words.
const STEP_MS = 40;

/// A port whose neighbors the cluster takes: nobody listens there now.
async function freeBase() {
  // Below those of the tests' RabbitMQ nodes and of what programs get by chance.
  for (let base = 11_000; base < 18_000; base += 10) {
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

export async function cluster() {
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
  const signal = (name, what) =>
    process.kill(state.members.find((one) => one.name === name).pid, what);
  const kill = (name) => signal(name, "SIGKILL");
  const drain = (name) => signal(name, "SIGTERM");
  /// The aggregator that a socket of this address is on.
  const aggregator = (url) => state.members.find(
    (one) => one.name.startsWith("aggregator") && one.address.includes(new URL(url).host),
  );
  const stop = async () => {
    child.kill("SIGTERM");
    await ended;
    rmSync(folder, { recursive: true, force: true });
  };
  return { ...state, kill, drain, aggregator, stop };
}

/// Signs in, lets a chat begin, and opens it; gives its interaction.
export async function openChat(all, page, chat) {
  await signIn(page, all.web, "ada", "warren-demo");
  await live(page);
  const event = {
    type: "chat.started", chat, contact: { name: "Lena Vogt" }, text: "Hello?", event_id: chat,
  };
  // A 503 is possible while the nodes find each other.
  await until("the chat to be taken", async () => post(all.external, all.key, "chat", event));
  const row = page.locator(id("row"), { hasText: "Lena Vogt" });
  await row.waitFor();
  const interaction = await row.getAttribute("data-id");
  await row.click();
  return interaction;
}

/// A timeline has the last ones only.
export function assertStored({ timeline }, accepted) {
  const stored = timeline.filter((one) => one.type === "chat.message").map((one) => one.text);
  assert.deepEqual(stored, accepted.slice(-stored.length), "stored: each once, in order");
  assert.ok(stored.length >= Math.min(accepted.length, 490), `${stored.length} stored`);
}

/// A customer who writes steadily; a 503 or a cut line is sent again under the
/// same id, as any integration does. `accepted` grows; `stop` gives all of it.
export function writer(all, chat) {
  const accepted = [];
  let writing = true;
  const done = (async () => {
    for (let turn = 0; writing; turn += 1) {
      const event = { type: "chat.message", chat, text: `word ${turn};`, event_id: `w-${turn}` };
      await until("a word to be taken", async () => post(all.external, all.key, "chat", event));
      accepted.push(event.text);
      await new Promise((resolve) => setTimeout(resolve, STEP_MS));
    }
  })();
  const stop = async () => {
    writing = false;
    await done;
    return accepted;
  };
  return { accepted, stop };
}

// What every scenario stands on: a private warren, a browser, agents who sign in.

import { spawn, spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";

export const root = join(dirname(fileURLToPath(import.meta.url)), "..");
export const binary = process.env.E2E_WARREN ?? join(root, "target/debug/warren");
export const PASSWORD = "correct horse battery";
/// Longer than anything should take on a busy machine, in ms.
export const PATIENCE = 45_000;

/// Calls `attempt` until it gives something, at most `PATIENCE`.
export async function until(what, attempt) {
  const deadline = Date.now() + PATIENCE;
  let last;
  while (Date.now() < deadline) {
    try {
      const found = await attempt();
      if (found) return found;
    } catch (error) {
      last = error;
    }
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new Error(`waited too long for ${what}${last ? `: ${last.message}` : ""}`);
}

/// Rejects with what was said until then if it takes longer than anything should.
export function inTime(promise, said, ms = 4 * PATIENCE) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`not ready: ${said()}`)), ms);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/// Settings of whoever runs the tests don't count.
const env = Object.fromEntries(
  Object.entries(process.env).filter(([name]) => !name.startsWith("WARREN_")),
);

/// A process that prints a line which begins with `ready`; stopped by pid.
function started(command, args) {
  const child = spawn(command, args, { cwd: root, env, stdio: ["ignore", "pipe", "pipe"] });
  let out = "";
  let err = "";
  const ready = new Promise((resolve, reject) => {
    child.stderr.on("data", (chunk) => (err += chunk));
    child.stdout.on("data", (chunk) => {
      out += chunk;
      const line = out.split("\n").find((one) => one.startsWith("ready"));
      if (line && out.includes("\n")) resolve({ child, line });
    });
    child.on("exit", (code) => reject(new Error(`${command} ended with ${code}: ${err}`)));
  });
  return inTime(ready, () => out + err);
}

const ended = (child) =>
  child.exitCode !== null || child.signalCode !== null
    ? Promise.resolve()
    : new Promise((resolve) => child.on("exit", resolve));

/// `warren up` in a folder of its own.
export class Warren {
  static async start({ args = [] } = {}) {
    const warren = new Warren();
    warren.data = mkdtempSync(join(tmpdir(), "warren-"));
    warren.args = args;
    warren.ports = ["127.0.0.1:0", "127.0.0.1:0"];
    await warren.begin();
    return warren;
  }

  /// Starts the process; a second time on the same ports and data.
  async begin() {
    const [web, external] = this.ports;
    const args = ["up", "--data", this.data, "--web", web, "--external", external, ...this.args];
    const { child, line } = await started(binary, args);
    this.child = child;
    this.web = /web=(\S+)/.exec(line)[1];
    this.external = /external=(\S+)/.exec(line)[1];
    this.ports = [new URL(this.web).host, new URL(this.external).host];
  }

  run(args, input = "") {
    const done = spawnSync(binary, [...args, "--data", this.data], { input, env, encoding: "utf8" });
    if (done.status !== 0) throw new Error(done.stderr);
    return done.stdout.trim();
  }

  addAgent(login, role = "agent") {
    this.run(["user", "add", login, "--role", role, "--password-stdin"], PASSWORD);
  }

  /// Posts an event and gives its id.
  async post(channel, event) {
    this.key ??= this.run(["key", "add", "e2e", "--scopes", "voice,chat,tickets"]);
    return post(this.external, this.key, channel, event);
  }

  async kill() {
    this.child.kill("SIGKILL");
    await ended(this.child);
  }

  async stop() {
    this.child.kill("SIGTERM");
    await ended(this.child);
    rmSync(this.data, { recursive: true, force: true });
  }
}

export async function post(external, key, channel, event) {
  const answer = await fetch(`${external}/external/${channel}`, {
    method: "POST",
    headers: { authorization: `Bearer ${key}`, "content-type": "application/json" },
    body: JSON.stringify(event),
  });
  if (answer.status !== 202) throw new Error(`${answer.status} ${await answer.text()}`);
  return (await answer.json()).id;
}

export function launch() {
  return chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: ["--no-sandbox", "--disable-background-networking"],
  });
}

/// Puts chat messages into a stopped desk's queue past its external API, as a
/// client of the broker could: `[[id, body], …]`.
export function smuggle(warren, messages) {
  const script = `
import json, sqlite3, sys
db = sqlite3.connect(sys.argv[1])
for one, body in json.load(sys.stdin):
    message = {"id": one, "kind": "chat.message", "app_id": "site", "at": 1700000000000, "headers": {}}
    db.execute("INSERT INTO inbound (channel, part, expires_at, message, body) VALUES ('chat', 0, ?, ?, ?)",
               (2**53, json.dumps(message), body.encode()))
db.commit()`;
  const file = join(warren.data, "broker/inbound.db");
  const input = JSON.stringify(messages);
  const done = spawnSync("python3", ["-c", script, file], { input, encoding: "utf8" });
  if (done.status !== 0) throw new Error(done.stderr);
}

export const id = (name) => `[data-testid="${name}"]`;

/// A page of its own session; `faults` are errors that a browser reported.
export async function open(browser, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1440, height: 900 }, ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(PATIENCE);
  page.faults = [];
  page.on("pageerror", (error) => page.faults.push(error.message));
  page.on("console", (message) => {
    // What the network does to a page is the network's affair.
    const network = /WebSocket|Failed to load resource|ERR_/.test(message.text());
    if (message.type() === "error" && !network) page.faults.push(message.text());
  });
  return page;
}

export async function signIn(page, web, login, password = PASSWORD) {
  await page.goto(`${web}/sign-in`);
  await hydrated(page);
  await page.fill(id("login"), login);
  await page.fill(id("password"), password);
  await page.click(id("sign-in"));
}

// By selectors alone: the pages' policy forbids what evaluates text.
export const hydrated = (page) =>
  page.waitForSelector('html[data-hydrated="true"]', { state: "attached" });

export const live = (page) => page.waitForSelector(`${id("connection-pill")}[data-state="live"]`);

/// An interaction as the server has it, by the page's own session.
export const snapshot = (page, interaction) =>
  page.evaluate(async (one) => (await fetch(`/api/v1/interactions/${one}`)).json(), interaction);

export const row = (interaction) => `${id("row")}[data-id="${interaction}"]`;
export const entries = (page, type) => page.locator(`${id("entry")}[data-type="${type}"]`);

/// The row that an event has made; it comes without a reload.
export async function rowOf(page, label) {
  const found = page.locator(id("row"), { hasText: label }).first();
  await found.waitFor();
  return found.getAttribute("data-id");
}

export async function state(page, interaction, wanted) {
  await until(`${interaction} to be ${wanted}`, async () => {
    const now = await snapshot(page, interaction);
    return now.state === wanted;
  });
}

// The pages as they are written: `trunk serve` before a running warren.

import { spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { Warren, id, inTime, launch, live, open, root, signIn } from "./lib.mjs";

const free = () =>
  new Promise((resolve) => {
    const server = createServer();
    server.listen(0, "127.0.0.1", () => {
      const { port } = server.address();
      server.close(() => resolve(port));
    });
  });

/// Trunk's own settings with other ports, in a folder of their own.
function settings(folder, port, warren) {
  const text = readFileSync(join(root, "Trunk.toml"), "utf8")
    .replace('target = "csr.html"', 'target = "../../csr.html"')
    .replace('dist = "target/serve"', 'dist = "dist"')
    .replace(/^watch = .*$/m, "ignore = []")
    .replace("port = 3000", `port = ${port}`)
    .replaceAll("127.0.0.1:3001", new URL(warren).host);
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, "Trunk.toml"), text);
  return join(folder, "Trunk.toml");
}

/// Resolves when it listens; `trunk.err` tells why it doesn't.
function served(config) {
  const env = { ...process.env, PATH: `${join(root, "end2end/node_modules/.bin")}:${process.env.PATH}` };
  // Trunk reads it as a truth value and stumbles over others.
  delete env.NO_COLOR;
  const trunk = spawn("trunk", ["--config", config, "serve", "--offline", "--no-autoreload"], { env });
  let said = "";
  const listens = new Promise((resolve, reject) => {
    const hear = (chunk) => {
      said += chunk;
      if (said.includes("server listening at")) resolve(trunk);
    };
    trunk.stdout.on("data", hear);
    trunk.stderr.on("data", hear);
    trunk.on("error", reject);
    trunk.on("exit", (code) => reject(new Error(`trunk ended with ${code}: ${said}`)));
  });
  return inTime(listens, () => said);
}

test("trunk serve mounts the app, and a running warren answers behind it", async (t) => {
  const port = await free();
  const origin = `http://127.0.0.1:${port}`;
  const folder = mkdtempSync(join(tmpdir(), "warren-serve-"));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  writeFileSync(join(folder, "warren.toml"), `[web]\nallowed_origins = ["${origin}"]\n`);
  const warren = await Warren.start({ args: ["--config", join(folder, "warren.toml")] });
  t.after(() => warren.stop());
  warren.addAgent("ana");
  const trunk = await served(settings(join(root, "target/serve-test"), port, warren.web));
  t.after(() => trunk.kill("SIGTERM"));
  const browser = await launch();
  t.after(() => browser.close());
  const page = await open(browser);
  await signIn(page, origin, "ana");
  await live(page);
  await warren.post("voice", { type: "call.ringing", call: "served" });
  await page.locator(id("row")).first().waitFor();
});

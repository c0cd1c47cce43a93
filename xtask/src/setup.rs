//! Installs what is missing, and says what. Quick when all is there.

use std::path::Path;

use clap::ValueEnum;

use crate::run::{Failed, in_root, output, root, run};

const WASM: &str = "wasm32-unknown-unknown";
/// The last one that rustc 1.95 builds.
const TRUNK: &str = "0.21.14";
const DENY: &str = "0.20.2";
const FUZZ: &str = "0.13.2";

/// What it is for.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum For {
    /// Building and running.
    Up,
    /// A private cluster.
    Cluster,
    /// Everything.
    Test,
}

pub(crate) fn bring(purpose: For) -> Result<(), Failed> {
    components(purpose)?;
    trunk()?;
    wasm_bindgen()?;
    node_packages()?;
    if purpose != For::Up {
        servers(purpose)?;
    }
    if purpose == For::Test {
        python()?;
        deny()?;
    }
    Ok(())
}

fn say(what: &str) {
    eprintln!("xtask: installing {what}");
}

fn there(program: &str) -> bool {
    output(in_root("sh").args(["-c", "command -v \"$0\"", program])).is_some()
}

fn components(purpose: For) -> Result<(), Failed> {
    if !there("rustup") {
        return Ok(());
    }
    let targets = output(in_root("rustup").args(["target", "list", "--installed"]));
    if !targets.unwrap_or_default().lines().any(|line| line == WASM) {
        say("the Rust target wasm32-unknown-unknown");
        run_quiet("rustup", &["target", "add", WASM])?;
    }
    if purpose == For::Test {
        let known = output(in_root("rustup").args(["component", "list", "--installed"]));
        let known = known.unwrap_or_default();
        for component in ["clippy", "rustfmt"] {
            if !known.lines().any(|line| line.starts_with(component)) {
                say(component);
                run_quiet("rustup", &["component", "add", component])?;
            }
        }
    }
    Ok(())
}

fn run_quiet(program: &str, args: &[&str]) -> Result<(), Failed> {
    run(in_root(program).args(args))
}

/// From crates.io; without the lock file where that names what isn't there.
fn install(crate_name: &str, version: &str) -> Result<(), Failed> {
    let args = ["install", "--debug", "--force", crate_name, "--version", version];
    // Tools are built beside the workspace's own target directory.
    let mut locked = in_root("cargo");
    locked.args(args).arg("--locked").current_dir(std::env::temp_dir());
    let mut unlocked = in_root("cargo");
    unlocked.args(args).current_dir(std::env::temp_dir());
    run(&mut locked).or_else(|_| run(&mut unlocked))
}

fn trunk() -> Result<(), Failed> {
    if output(in_root("trunk").arg("--version")).is_some_and(|said| said.contains(TRUNK)) {
        return Ok(());
    }
    say(&format!("Trunk {TRUNK} (about three minutes)"));
    install("trunk", TRUNK)
}

/// Exactly the version of the lock file.
fn wasm_bindgen() -> Result<(), Failed> {
    let lock = std::fs::read_to_string(root().join("Cargo.lock"))?;
    let after = lock.split("name = \"wasm-bindgen\"\nversion = \"").nth(1);
    let version = after.and_then(|rest| rest.split('"').next());
    let version = version.ok_or_else(|| Failed("no wasm-bindgen in Cargo.lock".into()))?;
    if output(in_root("wasm-bindgen").arg("--version")).is_some_and(|said| said.ends_with(version))
    {
        return Ok(());
    }
    say(&format!("wasm-bindgen-cli {version} (about two minutes)"));
    install("wasm-bindgen-cli", version)
}

/// wasm-opt, and what drives the browser.
fn node_packages() -> Result<(), Failed> {
    let (lock, stamp) =
        (root().join("end2end/package-lock.json"), root().join("end2end/node_modules/.xtask"));
    let wanted = std::fs::read_to_string(&lock)?;
    if std::fs::read_to_string(&stamp).is_ok_and(|have| have == wanted) {
        return Ok(());
    }
    if !there("npm") {
        return Err(Failed("npm is missing: install Node 20 or newer".into()));
    }
    say("binaryen (wasm-opt) and playwright-core, by npm into end2end/node_modules");
    let args = ["ci", "--prefix", "end2end", "--no-audit", "--no-fund", "--ignore-scripts"];
    run_quiet("npm", &args)?;
    Ok(std::fs::write(stamp, wanted)?)
}

/// RabbitMQ, PostgreSQL and Chromium, from Debian.
fn servers(purpose: For) -> Result<(), Failed> {
    let mut missing = Vec::new();
    if !Path::new("/usr/lib/rabbitmq/bin/rabbitmq-server").exists() {
        missing.push("rabbitmq-server");
    }
    let postgres =
        std::fs::read_dir("/usr/lib/postgresql").is_ok_and(|mut any| any.next().is_some());
    if !postgres {
        missing.push("postgresql");
    }
    if purpose == For::Test {
        if !Path::new("/usr/bin/chromium").exists() {
            missing.push("chromium");
        }
        if output(in_root("python3").args(["-c", "import venv, ensurepip"])).is_none() {
            missing.push("python3-venv");
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    if !there("apt-get") {
        let missing = missing.join(", ");
        return Err(Failed(format!("missing, and there is no apt-get: {missing}")));
    }
    say(&format!("{} by apt-get; their services are not started", missing.join(", ")));
    // A policy that says no keeps Debian from starting what it installs.
    let script = "set -e; policy=/usr/sbin/policy-rc.d; \
        if [ ! -e $policy ]; then printf '#!/bin/sh\\nexit 101\\n' > $policy; chmod +x $policy; \
        trap 'rm -f /usr/sbin/policy-rc.d' EXIT; fi; \
        export DEBIAN_FRONTEND=noninteractive; apt-get update -q; \
        apt-get install -q -y --no-install-recommends \"$@\"";
    let root_already = output(in_root("id").arg("-u")).is_some_and(|id| id == "0");
    let mut command = if root_already { in_root("sh") } else { in_root("sudo") };
    if !root_already {
        command.arg("sh");
    }
    run(command.args(["-c", script, "apt"]).args(missing))
}

/// A private environment with the two clients that tests speak through.
fn python() -> Result<(), Failed> {
    let wanted = std::fs::read_to_string(root().join("end2end/python/requirements.txt"))?;
    let stamp = root().join("target/venv/.xtask");
    if std::fs::read_to_string(&stamp).is_ok_and(|have| have == wanted) {
        return Ok(());
    }
    say("pika and websockets, by pip into target/venv");
    run_quiet("python3", &["-m", "venv", "target/venv"])?;
    let args = ["-q", "--disable-pip-version-check", "install", "-r"];
    run(in_root("target/venv/bin/pip").args(args).arg("end2end/python/requirements.txt"))?;
    Ok(std::fs::write(stamp, wanted)?)
}

/// What checks licences and sources.
fn deny() -> Result<(), Failed> {
    if there("cargo-deny") {
        return Ok(());
    }
    say(&format!("cargo-deny {DENY} (about two minutes)"));
    install("cargo-deny", DENY)
}

/// What feeds mangled input.
pub(crate) fn fuzzer() -> Result<(), Failed> {
    if there("cargo-fuzz") {
        return Ok(());
    }
    say(&format!("cargo-fuzz {FUZZ} (about a minute)"));
    install("cargo-fuzz", FUZZ)
}

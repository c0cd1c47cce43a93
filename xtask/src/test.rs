//! Everything that CI runs, in order; the first failure ends it.

use std::time::{Duration, Instant};

use crate::run::{Failed, cargo, in_root, run};
use crate::setup::{self, For};
use crate::{chaos, front, tidy};

const WASM: &str = "wasm32-unknown-unknown";

/// A name and what is done.
type Step<'a> = (&'a str, &'a dyn Fn() -> Result<(), Failed>);

fn run_all(steps: &[Step<'_>]) -> Result<(), Failed> {
    let mut took: Vec<(&str, Duration)> = Vec::new();
    for (name, step) in steps {
        eprintln!("\n== {name}");
        let begun = now();
        let done = step();
        took.push((name, begun.elapsed()));
        if let Err(Failed(why)) = done {
            return Err(Failed(format!("{name} failed: {why}")));
        }
    }
    eprintln!();
    for (name, took) in took {
        eprintln!("{:>6.1} s  {name}", took.as_secs_f64());
    }
    Ok(())
}

#[allow(clippy::disallowed_methods, reason = "a chore has no clock of its own")]
fn now() -> Instant {
    Instant::now()
}

pub(crate) fn everything() -> Result<(), Failed> {
    run_all(&[
        ("what is missing", &|| setup::bring(For::Test)),
        ("format", &|| cargo(&["fmt", "--all", "--check"])),
        ("tidy", &tidy::run),
        ("licences and sources", &deny),
        ("lints", &|| {
            let args = ["clippy", "--workspace", "--exclude", "frontend", "--all-targets"];
            cargo(&[&args[..], &["--", "-D", "warnings"]].concat())
        }),
        ("lints of the browser's half", &|| {
            ["hydrate", "csr"].into_iter().try_for_each(|feature| {
                let args = ["clippy", "-p", "frontend", "--features", feature, "--target", WASM];
                cargo(&[&args[..], &["--", "-D", "warnings"]].concat())
            })
        }),
        ("front end", &|| front::build(false)),
        ("tests", &|| cargo(&["test", "--workspace", "--exclude", "frontend"])),
        ("documentation", &|| {
            let mut doc = in_root("cargo");
            doc.args([
                "doc",
                "--workspace",
                "--exclude",
                "frontend",
                "--no-deps",
                "--document-private-items",
                "--quiet",
            ]);
            run(doc.env("RUSTDOCFLAGS", "-D warnings -A rustdoc::private_intra_doc_links"))
        }),
        ("browser", &browser),
        ("chaos", &chaos::short),
    ])
}

fn browser() -> Result<(), Failed> {
    // The binary is there since the tests.
    run(in_root("sh").args(["-c", "exec node --test --test-concurrency=1 end2end/*.test.mjs"]))
}

fn deny() -> Result<(), Failed> {
    // The advisories' database is fetched from elsewhere: a run without the
    // network checks the rest.
    cargo(&["deny", "--offline", "check", "bans", "licenses", "sources"])
}

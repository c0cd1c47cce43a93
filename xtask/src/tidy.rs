//! The rules of the house that the compiler doesn't know.

use std::fs;
use std::path::{Path, PathBuf};

use crate::run::{Failed, root};

/// A file over this many lines wants a wall.
const LINES_MAX: usize = 600;
/// Rooms of the server, and what each may import of its own crate.
const LEAVES: &[&str] = &[
    "audit",
    "auth",
    "clock",
    "config",
    "dead_letters",
    "members",
    "metrics",
    "problem",
    "readiness",
    "receipts",
    "shutdown",
    "telemetry",
    "trace",
];
const FLOOR: &[&str] = &["broker", "store"];
const ROOMS: &[&str] = &["aggregator", "backend", "external_api", "web"];

pub(crate) fn run() -> Result<(), Failed> {
    let mut wrong = Vec::new();
    for folder in [
        "app/src",
        "chaos/src",
        "chaos/tests",
        "domain/src",
        "domain/tests",
        "frontend/src",
        "fuzz/fuzz_targets",
        "protocol/src",
        "protocol/tests",
        "server/benches",
        "server/src",
        "server/tests",
        "testkit/src",
        "xtask/src",
    ] {
        for file in files(&root().join(folder))? {
            let text = fs::read_to_string(&file)?;
            let name = file.strip_prefix(root()).unwrap_or(&file).display().to_string();
            wrong.extend(look(&name, &text));
        }
    }
    match wrong.as_slice() {
        [] => Ok(()),
        wrong => Err(Failed(format!("\n  {}", wrong.join("\n  ")))),
    }
}

fn files(folder: &Path) -> Result<Vec<PathBuf>, Failed> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files(&path)?);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// What is wrong with a file.
fn look(name: &str, text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if !text.starts_with("//!") {
        wrong.push(format!("{name}: begins without a //! line that says what it is for"));
    }
    let lines = text.lines().count();
    if lines > LINES_MAX {
        wrong.push(format!("{name}: {lines} lines, more than {LINES_MAX}"));
    }
    let code: Vec<(usize, &str)> = text
        .lines()
        .enumerate()
        .take_while(|(_, line)| !line.starts_with("#[cfg(test)]"))
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
        .collect();
    for (number, line) in &code {
        let place = format!("{name}:{}", number + 1);
        if let Some(room) = server_room(name) {
            for other in imports(line) {
                if !allowed(room, other) {
                    wrong.push(format!("{place}: {room} imports {other}"));
                }
            }
            for (vendor, owners) in
                [("lapin::", &["broker/amqp"][..]), ("sqlx::", &["store", "broker/embedded"][..])]
            {
                let owned =
                    owners.iter().any(|owner| name.starts_with(&format!("server/src/{owner}")));
                if line.contains(vendor) && !owned {
                    wrong.push(format!("{place}: {vendor} belongs to {}", owners.join(", ")));
                }
            }
            let tests = name.ends_with("tests.rs");
            if tests {
                continue;
            }
            if line.contains(".unwrap()") || line.contains(".expect(") {
                wrong.push(format!("{place}: may panic"));
            }
        }
        if name.starts_with("domain/")
            && ["tokio", "std::fs", "std::net", "SystemTime"].iter().any(|word| line.contains(word))
        {
            wrong.push(format!("{place}: the domain has no clock and no I/O"));
        }
    }
    wrong
}

/// The room of the server's library that a file is in; none for the program's own.
fn server_room(name: &str) -> Option<&str> {
    let inside = name.strip_prefix("server/src/")?;
    let room = inside.split('/').next()?.trim_end_matches(".rs");
    [LEAVES, FLOOR, ROOMS].concat().contains(&room).then_some(room)
}

/// Rooms that a line names by `crate::`.
fn imports(line: &str) -> impl Iterator<Item = &str> {
    line.split("crate::").skip(1).map(|rest| {
        rest.split(|letter: char| !letter.is_alphanumeric() && letter != '_')
            .next()
            .unwrap_or_default()
    })
}

fn allowed(room: &str, other: &str) -> bool {
    let down = if ROOMS.contains(&room) {
        LEAVES.contains(&other) || FLOOR.contains(&other)
    } else if FLOOR.contains(&room) {
        other == "clock"
    } else {
        LEAVES.contains(&other) || FLOOR.contains(&other)
    };
    room == other || (down && other != "config")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sideways_and_upward_imports_are_found() {
        for (name, line, wrong) in [
            ("server/src/web/mod.rs", "use crate::store::Store;", 0),
            ("server/src/web/mod.rs", "use crate::backend::Backend;", 1),
            ("server/src/store/mod.rs", "use crate::broker::Message;", 1),
            ("server/src/broker/mod.rs", "use crate::web::State;", 1),
            ("server/src/backend/mod.rs", "use crate::config::Settings;", 1),
            ("server/src/backend/mod.rs", "let x = sqlx::query(y);", 1),
            ("server/src/roles.rs", "use crate::demo;", 0),
        ] {
            assert_eq!(look(name, &format!("//! x\n{line}\n")).len(), wrong, "{name} {line}");
        }
    }

    #[test]
    fn what_may_panic_is_found_outside_of_tests() {
        let text =
            "//! x\nfn f() { g().unwrap() }\n#[cfg(test)]\nmod tests { fn t() { g().unwrap() } }\n";
        assert_eq!(look("server/src/auth.rs", text).len(), 1);
        assert_eq!(look("server/src/auth.rs", "fn f() {}\n").len(), 1);
    }
}

//! Every chore of the house: `cargo xtask NAME`.

use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    let status =
        Command::new("cargo").args(["test", "--workspace", "--exclude", "frontend"]).status();
    if status.is_ok_and(|status| status.success()) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

//! Running other programs.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Why a chore isn't done.
#[derive(Debug)]
pub(crate) struct Failed(pub(crate) String);

impl From<std::io::Error> for Failed {
    fn from(error: std::io::Error) -> Self {
        Self(error.to_string())
    }
}

/// The workspace.
pub(crate) fn root() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own).to_owned()
}

/// A program to be run in the workspace; one with a slash is a file of it.
pub(crate) fn in_root(program: &str) -> Command {
    let path = if program.contains('/') { root().join(program) } else { program.into() };
    let mut command = Command::new(path);
    command.current_dir(root());
    command
}

/// Runs it with its output passed on.
pub(crate) fn run(command: &mut Command) -> Result<(), Failed> {
    let shown = format!("{:?}", command.get_program());
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(Failed(format!("{shown} {:?}: {status}", command.get_args()))),
        Err(error) => Err(Failed(format!("{shown}: {error}"))),
    }
}

/// What it prints; none if it fails or isn't there.
pub(crate) fn output(command: &mut Command) -> Option<String> {
    let output = command.stderr(Stdio::null()).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}

pub(crate) fn cargo(args: &[&str]) -> Result<(), Failed> {
    run(in_root("cargo").args(args))
}

/// Becomes the program: signals go to it.
pub(crate) fn replace(command: &mut Command) -> Result<(), Failed> {
    Err(command.exec().into())
}

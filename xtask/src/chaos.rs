//! Runs the harness in `chaos/` against a build of the program.

use crate::front;
use crate::run::{Failed, cargo, in_root, replace, run};
use crate::setup::{self, For};

const DEBUG: [&str; 2] = ["target/debug/chaos", "target/debug/warren"];
const RELEASE: [&str; 2] = ["target/release/chaos", "target/release/warren"];

/// A long run by hand, with the release build.
pub(crate) fn run_by_hand(args: &[String]) -> Result<(), Failed> {
    setup::bring(For::Test)?;
    front::build(false)?;
    cargo(&["build", "--release", "--package", "warren", "--package", "chaos"])?;
    let [chaos, warren] = RELEASE;
    replace(in_root(chaos).args(["--warren", warren]).args(args))
}

/// Two minutes of each mode, small enough for a machine that tests other
/// things as well.
pub(crate) fn short() -> Result<(), Failed> {
    let [chaos, warren] = DEBUG;
    let load = ["--seed", "1", "--minutes", "2", "--clients", "30", "--rate", "40", "--pages", "1"];
    for mode in ["--embedded", "--cluster"] {
        run(in_root(chaos).args([mode, "--warren", warren]).args(load))?;
    }
    Ok(())
}

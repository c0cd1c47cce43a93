//! What can't be done is said before anything is started.

use std::process::Command;

#[test]
fn a_fault_that_nobody_knows_is_named() {
    let mut chaos = Command::new(env!("CARGO_BIN_EXE_chaos"));
    let output = chaos.args(["--warren", "warren", "--only", "earthquake"]).output().unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("earthquake"));
}

//! Logs on stderr, one line each.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// Begins to log. The level comes from `WARREN_LOG` (default `info`), in the
/// syntax of `tracing`'s `EnvFilter`.
pub fn init() {
    let filter = EnvFilter::try_from_env("WARREN_LOG")
        .unwrap_or_else(|_| EnvFilter::new("info,lapin=off,sqlx=warn,leptos=warn"));
    // A second call, as in tests, changes nothing.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        // A log on a full disk: what doesn't get there is no reason to fail.
        .log_internal_errors(false)
        .try_init();
}

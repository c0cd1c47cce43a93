//! The reconnecting client: a pure state machine, and a thin driver for browsers.

mod candidates;
mod cursors;
#[cfg(feature = "browser")]
mod driver;
pub mod machine;
mod outbox;
#[cfg(feature = "browser")]
mod store;

pub use candidates::Candidates;
#[cfg(feature = "browser")]
pub use driver::{Feed, Handle, start};
pub use machine::{Machine, Status};

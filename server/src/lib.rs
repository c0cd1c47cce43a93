//! The rooms of `warren`; `main.rs` is the only place that knows all of them.

pub mod broker;
pub mod clock;
pub mod store;

//! The rooms of `warren`; `main.rs` is the only place that knows all of them.

pub mod aggregator;
pub mod audit;
pub mod auth;
pub mod backend;
pub mod broker;
pub mod clock;
pub mod config;
pub mod dead_letters;
pub mod external_api;
#[cfg(fuzzing)]
pub mod fuzzing;
pub mod members;
pub mod metrics;
mod problem;
pub mod readiness;
pub mod receipts;
pub mod shutdown;
pub mod store;
pub mod telemetry;
mod trace;
pub mod web;

//! The desk: what agents see.
//!
//! Built three ways: `ssr` in the server, `hydrate` for the page it serves,
//! `csr` for `trunk serve`. Without any of them only the pure parts are there.

#![recursion_limit = "256"]

#[cfg(any(feature = "ssr", feature = "browser"))]
mod alarm;
#[cfg(any(feature = "ssr", feature = "browser"))]
pub mod api;
#[cfg(any(feature = "ssr", feature = "browser"))]
mod browser;
#[cfg(any(feature = "ssr", feature = "browser"))]
pub mod codec;
pub mod desk;
pub mod socket;
pub mod state;
#[cfg(any(feature = "ssr", feature = "browser"))]
mod ui;

#[cfg(any(feature = "ssr", feature = "browser"))]
pub use ui::{App, shell};

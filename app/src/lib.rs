//! The desk: what agents see.

pub mod desk;
pub mod socket;
pub mod state;

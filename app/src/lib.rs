//! The desk: what agents see.

pub mod desk;

//! Starts what tests and chores need, privately, and stops it by pid: RabbitMQ
//! nodes, PostgreSQL, `warren` itself. Everything listens on loopback only and
//! lives in a temporary folder.

pub mod postgres;
pub mod rabbit;
pub mod warren;

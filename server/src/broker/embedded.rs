//! The broker inside the process, on SQLite.

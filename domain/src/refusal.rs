//! A domain "no": the command was understood and isn't done.

use serde::{Deserialize, Serialize};

/// What kind of no.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalCode {
    /// There is no such interaction, or it isn't yours to see.
    NotFound,
    /// The interaction has moved on: it is in another state or version.
    Conflict,
    /// Your role doesn't allow it.
    Forbidden,
    /// The command makes no sense for this kind of interaction.
    Invalid,
    /// Its deadline had passed before it was decided.
    DeadlineExceeded,
}

/// Why a command was not done. It changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// What kind of no.
    pub code: RefusalCode,
    /// A sentence for a person.
    pub message: String,
}

impl Refusal {
    /// A refusal with its sentence.
    pub fn new(code: RefusalCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    pub(crate) fn conflict(message: impl Into<String>) -> Self {
        Self::new(RefusalCode::Conflict, message)
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(RefusalCode::Invalid, message)
    }

    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(RefusalCode::NotFound, message)
    }
}

//! Whose a ticket becomes when it is updated.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use crate::{FromJson, Login};

/// On the wire: left out, `null`, or a login.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Assignee {
    /// As it was.
    #[default]
    Unchanged,
    /// Nobody's.
    Nobody,
    /// This agent's.
    Agent(Login),
}

impl Assignee {
    /// True if nothing is said of it.
    #[must_use]
    pub fn is_unchanged(&self) -> bool {
        *self == Self::Unchanged
    }

    /// Who it is, if somebody.
    #[must_use]
    pub fn agent(&self) -> Option<&Login> {
        match self {
            Self::Agent(agent) => Some(agent),
            Self::Unchanged | Self::Nobody => None,
        }
    }
}

impl From<Option<Login>> for Assignee {
    fn from(agent: Option<Login>) -> Self {
        agent.map_or(Self::Nobody, Self::Agent)
    }
}

impl Serialize for Assignee {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.agent().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Assignee {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Option::deserialize(deserializer).map(Self::from)
    }
}

impl FromJson for Assignee {
    fn from_json(json: Value) -> Option<Self> {
        Option::from_json(json).map(Self::from)
    }

    fn absent() -> Option<Self> {
        Some(Self::Unchanged)
    }
}

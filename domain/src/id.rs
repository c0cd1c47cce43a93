//! Ids as newtypes, and the partition an interaction belongs to.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{FromJson, Kind};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Uuid::parse_str(text).map(Self)
            }
        }

        impl crate::FromJson for $name {
            fn from_json(json: serde_json::Value) -> Option<Self> {
                Uuid::from_json(json).map(Self)
            }
        }
    };
}

id!(
    /// An event on the wire, outward or from outside. UUIDv7, or UUIDv5 where the sender named it.
    EventId
);
id!(
    /// An agent's command. Chosen by the client; the same id has one effect.
    CommandId
);
id!(
    /// A call, chat or ticket. UUIDv5 of the integration, the kind and the sender's own id.
    InteractionId
);
id!(
    /// A person who calls, chats or writes. UUIDv7.
    ContactId
);
id!(
    /// A WebSocket session. UUIDv7.
    SessionId
);

/// The namespace under which interaction ids are derived.
const INTERACTIONS: Uuid = Uuid::from_u128(0x6f0c_28a1_5a3e_4c6b_9d3a_77a7_2f1b_c0de);
/// The namespace under which event ids are derived from idempotency keys.
const EVENTS: Uuid = Uuid::from_u128(0x2b1d_91f4_08c2_4f0e_b6a5_31d2_90ab_5eed);

impl InteractionId {
    /// The id of the interaction that `integration` calls `external_id`.
    #[must_use]
    pub fn derive(integration: &str, kind: Kind, external_id: &str) -> Self {
        let name = format!("{integration}\n{kind}\n{external_id}");
        Self(Uuid::new_v5(&INTERACTIONS, name.as_bytes()))
    }
}

impl EventId {
    /// The id of the event that `integration` named by an idempotency key: a
    /// repeat gives the same id.
    #[must_use]
    pub fn derive(integration: &str, key: &str) -> Self {
        let name = format!("{integration}\n{key}");
        Self(Uuid::new_v5(&EVENTS, name.as_bytes()))
    }
}

/// The partition of an ordering key, from 0 to `partitions - 1`: FNV-1a, 64
/// bits, over the key's bytes, modulo `partitions`.
#[must_use]
pub fn partition_of(key: &str, partitions: u32) -> u32 {
    let hash = key.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    u32::try_from(hash % u64::from(partitions.max(1))).unwrap_or(0)
}

/// An agent's login: 1 to 64 characters of `a-z`, `0-9`, `.`, `_`, `-`, `@`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Login(String);

impl Login {
    /// The login as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Login {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-@".contains(c);
        if (1..=64).contains(&text.len()) && text.chars().all(fits) {
            Ok(Self(text))
        } else {
            Err("a login has 1 to 64 characters of a-z, 0-9, '.', '_', '-', '@'".into())
        }
    }
}

impl FromStr for Login {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Self::try_from(text.to_owned())
    }
}

impl FromJson for Login {
    fn from_json(json: serde_json::Value) -> Option<Self> {
        Self::try_from(String::from_json(json)?).ok()
    }
}

impl From<Login> for String {
    fn from(login: Login) -> Self {
        login.0
    }
}

impl fmt::Display for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_sender_id_gives_the_same_interaction() {
        let one = InteractionId::derive("pbx", Kind::Call, "7");
        assert_eq!(one, InteractionId::derive("pbx", Kind::Call, "7"));
        assert_ne!(one, InteractionId::derive("pbx", Kind::Chat, "7"));
        assert_ne!(one, InteractionId::derive("other", Kind::Call, "7"));
    }

    #[test]
    fn partitions_are_stable_and_in_range() {
        assert_eq!(partition_of("", 4), (0xcbf2_9ce4_8422_2325_u64 % 4) as u32);
        assert_eq!(partition_of("a", 1), 0);
        assert_eq!(partition_of("a", 0), 0);
        assert!((0..100).map(|n| partition_of(&n.to_string(), 4)).all(|p| p < 4));
    }

    #[test]
    fn a_login_refuses_what_it_does_not_know() {
        for bad in ["", "Ana", "a b", "ä", &"x".repeat(65)] {
            assert!(bad.parse::<Login>().is_err(), "{bad}");
        }
        assert!("ana.b-c_9@x".parse::<Login>().is_ok());
    }
}

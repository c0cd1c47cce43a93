//! Who sees an event.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{Fields, FromJson, Login};

/// Written `{"broadcast":true}`, `{"multicast":["ana","ben"]}` or `{"direct":"ana"}`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Distribution {
    /// Everybody signed in.
    #[default]
    Broadcast,
    /// The agents named, and nobody else.
    Multicast(Vec<Login>),
    /// One agent, and nobody else.
    Direct(Login),
}

impl Distribution {
    /// Whether `login` may see it.
    #[must_use]
    pub fn includes(&self, login: &Login) -> bool {
        match self {
            Self::Broadcast => true,
            Self::Multicast(logins) => logins.contains(login),
            Self::Direct(one) => one == login,
        }
    }

    /// The same, and `login` as well.
    #[must_use]
    pub fn with(&self, login: &Login) -> Self {
        match self {
            _ if self.includes(login) => self.clone(),
            Self::Broadcast => Self::Broadcast,
            Self::Multicast(logins) => {
                Self::Multicast(logins.iter().chain([login]).cloned().collect())
            }
            Self::Direct(one) => Self::Multicast(vec![one.clone(), login.clone()]),
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Shape {
    Broadcast(bool),
    Multicast(Vec<Login>),
    Direct(Login),
}

impl Serialize for Distribution {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.clone() {
            Self::Broadcast => Shape::Broadcast(true),
            Self::Multicast(logins) => Shape::Multicast(logins),
            Self::Direct(login) => Shape::Direct(login),
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Distribution {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Shape::deserialize(deserializer)? {
            Shape::Broadcast(true) => Ok(Self::Broadcast),
            Shape::Broadcast(false) => Err(D::Error::custom("broadcast can only be true")),
            Shape::Multicast(logins) => Ok(Self::Multicast(logins)),
            Shape::Direct(login) => Ok(Self::Direct(login)),
        }
    }
}

impl FromJson for Distribution {
    fn from_json(json: serde_json::Value) -> Option<Self> {
        let mut fields = Fields::of(json)?;
        if let Some(true) = fields.take::<Option<bool>>("broadcast")? {
            return Some(Self::Broadcast);
        }
        match fields.take::<Option<_>>("multicast")? {
            Some(logins) => Some(Self::Multicast(logins)),
            None => fields.take("direct").map(Self::Direct),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_shape_is_written_as_the_page_says_and_read_back() {
        let ana: Login = "ana".parse().expect("a login");
        let ben: Login = "ben".parse().expect("a login");
        for (value, json) in [
            (Distribution::Broadcast, r#"{"broadcast":true}"#),
            (
                Distribution::Multicast(vec![ana.clone(), ben.clone()]),
                r#"{"multicast":["ana","ben"]}"#,
            ),
            (Distribution::Direct(ana.clone()), r#"{"direct":"ana"}"#),
        ] {
            assert_eq!(serde_json::to_string(&value).expect("json"), json);
            assert_eq!(serde_json::from_str::<Distribution>(json).expect("read"), value);
        }
        assert!(serde_json::from_str::<Distribution>(r#"{"broadcast":false}"#).is_err());
        assert!(!Distribution::Direct(ana.clone()).includes(&ben));
        assert!(Distribution::Direct(ana).with(&ben).includes(&ben));
    }
}

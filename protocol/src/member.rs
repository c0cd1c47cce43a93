//! What members tell each other once a second.

use std::collections::BTreeMap;

use domain::{Channel, Timestamp};
use serde::{Deserialize, Serialize};

use crate::audit::AuditReport;

/// What a member does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MemberRole {
    /// Serves WebSockets.
    Aggregator,
    /// Decides and announces.
    Backend,
    /// Takes external events in.
    ExternalApi,
    /// Serves pages.
    Web,
}

/// Where a member is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Urls {
    /// The pages; their origin may open WebSockets at every aggregator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub web: Option<String>,
    /// WebSockets: all channels on one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub all: Option<String>,
    /// WebSockets: one channel on each.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub channels: BTreeMap<Channel, String>,
}

/// One heartbeat on `warren.members`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// The member's id: UUIDv7, new at each start.
    pub member: String,
    /// What it does; more than one where one process does it all.
    pub roles: Vec<MemberRole>,
    /// When it was sent.
    pub at: Timestamp,
    /// Where clients reach it.
    #[serde(default)]
    pub urls: Urls,
    /// The journal's epoch, as the member knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<String>,
    /// The last offset of each channel that it has announced or delivered.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub positions: BTreeMap<Channel, u64>,
    /// WebSockets open now.
    #[serde(default)]
    pub clients: u64,
    /// True while it stops: no new work, no new clients.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub draining: bool,
    /// What its loss auditor says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audit: Option<Box<AuditReport>>,
}

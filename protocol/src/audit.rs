//! What the loss auditor says: of one member in its heartbeat, of all on a page.

use std::collections::BTreeMap;

use domain::{Channel, Timestamp, from_fields, from_word};
use serde::{Deserialize, Serialize};

use crate::digest::Digest;

/// Where events pass by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hop {
    /// From a backend into the log.
    Announced,
    /// From the log, or the journal, to an aggregator's clients.
    Delivered,
    /// At a client, as its pongs say.
    Client,
}

from_word!(Hop {
    "announced" => Announced,
    "delivered" => Delivered,
    "client" => Client,
});

/// In what two hops disagree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Difference {
    /// The journal, or the connection, has it and the hop passed it over.
    Missing,
    /// Another event under that offset.
    Altered,
    /// The journal has nothing there.
    Unknown,
    /// Nothing arrives though the journal goes on.
    Stalled,
    /// Another member's block differs from the journal as it is read here.
    Disputed,
    /// On the screen twice.
    ShownTwice,
}

from_word!(Difference {
    "missing" => Missing,
    "altered" => Altered,
    "unknown" => Unknown,
    "stalled" => Stalled,
    "disputed" => Disputed,
    "shown_twice" => ShownTwice,
});

/// A disagreement between two hops.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alert {
    /// When it was found.
    pub at: Timestamp,
    /// Whose hop it is.
    pub member: String,
    /// Which hop.
    pub hop: Hop,
    /// In which channel; none if a client doesn't tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<Channel>,
    /// In which block of 256 offsets.
    pub block: u64,
    /// The first offset in question.
    pub offset: u64,
    /// The partition that it was decided in, as the journal has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition: Option<u32>,
    /// In what.
    pub difference: Difference,
    /// How many events.
    pub events: u64,
}

from_fields!(Alert { at, member, hop, channel, block, offset, partition, difference, events });

/// A full block as it passed by, by partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Block {
    /// Which.
    pub block: u64,
    /// What of each partition.
    pub partitions: BTreeMap<u32, Digest>,
}

from_fields!(Block { block, partitions });

/// What one hop of a member has compared with the journal in one channel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HopReport {
    /// The last offset that passed by.
    pub head: u64,
    /// The last offset that was compared.
    pub verified: u64,
    /// How many full blocks were.
    pub blocks: u64,
    /// What was compared since the member began, by partition.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub partitions: BTreeMap<u32, Digest>,
    /// The last full blocks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub last: Vec<Block>,
}

from_fields!(HopReport { head, verified, blocks, partitions [?], last [?] });

/// Totals; each but `repeated`, `answers` and `unverified` should be 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AuditTotals {
    /// Events that a hop passed over.
    pub missing: u64,
    /// Events that were others than the journal's, or none of its.
    pub altered: u64,
    /// Event frames that a client had already.
    pub repeated: u64,
    /// Events that came onto a screen twice.
    pub shown_twice: u64,
    /// Pongs that told what was received, and were compared.
    pub answers: u64,
    /// Events that could not be compared in time.
    pub unverified: u64,
    /// Disagreements.
    pub alerts: u64,
}

from_fields!(AuditTotals {
    missing [?], altered [?], repeated [?], shown_twice [?], answers [?], unverified [?],
    alerts [?]
});

impl AuditTotals {
    /// Adds another's.
    pub fn add(&mut self, other: Self) {
        for (own, more) in [
            (&mut self.missing, other.missing),
            (&mut self.altered, other.altered),
            (&mut self.repeated, other.repeated),
            (&mut self.shown_twice, other.shown_twice),
            (&mut self.answers, other.answers),
            (&mut self.unverified, other.unverified),
            (&mut self.alerts, other.alerts),
        ] {
            *own = own.saturating_add(more);
        }
    }
}

/// One member's account, since it began.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditReport {
    /// Totals.
    #[serde(default)]
    pub totals: AuditTotals,
    /// What was compared.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub hops: BTreeMap<Hop, BTreeMap<Channel, HopReport>>,
    /// The last few disagreements, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub alerts: Vec<Alert>,
}

from_fields!(AuditReport { totals [?], hops [?], alerts [?] });

/// One member on the page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditMember {
    /// Its id.
    pub member: String,
    /// Its account.
    pub report: AuditReport,
}

from_fields!(AuditMember { member, report });

/// All members, as the one that answers has heard of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditView {
    /// Totals, members that have gone included.
    pub totals: AuditTotals,
    /// The journal's heads.
    pub heads: BTreeMap<Channel, u64>,
    /// Those that live.
    pub members: Vec<AuditMember>,
    /// The latest disagreements, newest first.
    pub alerts: Vec<Alert>,
}

from_fields!(AuditView { totals, heads, members, alerts });

//! `GET /metrics`: figures for Prometheus, in its text format.
//!
//! Counts and offsets only: no names, no texts, no secrets. Whoever reaches a
//! listener may read them.

use std::fmt::Write;

use axum::Router;
use axum::http::header;
use axum::routing::get;
use domain::Channel;
use protocol::{AuditReport, AuditTotals, Hop};

use crate::members::Members;
use crate::receipts::Receipts;

/// A dozen lines that a scraper reads.
const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What is told. Clones share it.
#[derive(Clone)]
pub struct Metrics {
    /// Of this member, and of the others as it hears them.
    pub members: Members,
    /// Steps of journeys on their way.
    pub receipts: Receipts,
}

/// The one route, for every listener.
pub fn router(metrics: Metrics) -> Router {
    Router::new().route(
        "/metrics",
        get(move || {
            let text = metrics.text();
            async move { ([(header::CONTENT_TYPE, CONTENT_TYPE)], text) }
        }),
    )
}

/// The text, as it grows.
#[derive(Default)]
struct Page(String);

impl Page {
    /// A figure's kind and what it tells.
    fn about(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a string can't fail.
        let _ = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    fn put(&mut self, name: &str, labels: &str, value: u64) {
        let _ = writeln!(self.0, "{name}{labels} {value}");
    }

    fn one(&mut self, name: &str, kind: &str, help: &str, value: u64) {
        self.about(name, kind, help);
        self.put(name, "", value);
    }

    fn totals(&mut self, of: &str, whose: &str, totals: AuditTotals) {
        for (name, help, value) in [
            ("missing", "Events that a hop passed over", totals.missing),
            ("altered", "Events that differ from the journal", totals.altered),
            ("repeated", "Event frames that clients got twice", totals.repeated),
            ("shown_twice", "Events that came onto a screen twice", totals.shown_twice),
            ("answers", "Accounts of clients that were compared", totals.answers),
            ("unverified", "Events that could not be compared in time", totals.unverified),
            ("alerts", "Disagreements between hops", totals.alerts),
        ] {
            self.one(&format!("{of}_{name}_total"), "counter", &format!("{help}{whose}."), value);
        }
    }
}

impl Metrics {
    fn text(&self) -> String {
        let view = self.members.audit().view();
        // This member is one of those in view.
        let none = AuditReport::default();
        let own = view.members.iter().find(|one| one.member == self.members.id());
        let report = own.map_or(&none, |own| &own.report);
        let roster = self.members.roster().borrow().clone();
        let own = roster.members.get(self.members.id());
        let mut page = Page::default();
        page.one(
            "warren_member_heard",
            "gauge",
            "1 while this member hears its own heartbeat.",
            u64::from(*self.members.heard().borrow()),
        );
        page.one("warren_members", "gauge", "Live members.", roster.members.len() as u64);
        page.one(
            "warren_connections",
            "gauge",
            "WebSockets of this member, as of its last heartbeat.",
            own.map_or(0, |own| own.clients),
        );
        page.one(
            "warren_receipts_dropped_total",
            "counter",
            "Steps of journeys that found no room.",
            self.receipts.dropped(),
        );
        page.about("warren_journal_head", "gauge", "The last offset of the journal.");
        for (channel, head) in &view.heads {
            page.put("warren_journal_head", &format!("{{channel=\"{channel}\"}}"), *head);
        }
        page.totals("warren_audit", "", report.totals);
        let hops = || {
            report.hops.iter().flat_map(|(hop, channels)| {
                channels.iter().map(|(channel, report)| (labels(*hop, *channel), report))
            })
        };
        page.about("warren_audit_head", "gauge", "The last offset that passed by.");
        for (labels, hop) in hops() {
            page.put("warren_audit_head", &format!("{{{labels}}}"), hop.head);
        }
        page.about("warren_audit_verified_offset", "gauge", "The last offset that was compared.");
        for (labels, hop) in hops() {
            page.put("warren_audit_verified_offset", &format!("{{{labels}}}"), hop.verified);
        }
        page.about("warren_audit_verified_blocks_total", "counter", "Full blocks compared.");
        for (labels, hop) in hops() {
            page.put("warren_audit_verified_blocks_total", &format!("{{{labels}}}"), hop.blocks);
        }
        page.about("warren_audit_verified_events_total", "counter", "Events compared.");
        for (labels, hop) in hops() {
            for (partition, digest) in &hop.partitions {
                let labels = format!("{{{labels},partition=\"{partition}\"}}");
                page.put("warren_audit_verified_events_total", &labels, digest.count);
            }
        }
        page.totals("warren_fleet", ", all members together", view.totals);
        page.0
    }
}

fn labels(hop: Hop, channel: Channel) -> String {
    let hop = match hop {
        Hop::Announced => "announced",
        Hop::Delivered => "delivered",
        Hop::Client => "client",
    };
    format!("hop=\"{hop}\",channel=\"{channel}\"")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::{Answer, Audit};
    use crate::broker::{self, embedded};
    use crate::clock::Clock;
    use crate::shutdown::Shutdown;
    use crate::store;
    use domain::Timestamp;
    use protocol::{Heartbeat, Urls};

    #[tokio::test]
    async fn a_members_own_counts_are_told_apart_from_those_of_all() {
        let folder = tempfile::tempdir().expect("a folder");
        let (clock, shutdown) = (Clock::default(), Shutdown::default());
        let (path, topology) = (folder.path().join("broker"), broker::Config::default());
        let config = embedded::Config { path, topology, clock: clock.clone() };
        let broker = embedded::open(config).await.expect("a broker");
        let url = format!("sqlite://{}", folder.path().join("warren.db").display());
        let config = store::Config { url, max_connections: 1 };
        let store = store::open(&config).await.expect("a store");
        let receipts = Receipts::start(store, clock.clone(), &shutdown);
        let (members, _beating) =
            Members::join(broker, clock, Vec::new(), Urls::default(), shutdown.token());
        let answer = |audit: &Audit, repeated| {
            let answer = Answer { repeated, ..Answer::default() };
            audit.answered(answer, Timestamp::from_millis(0));
        };
        let (audit, other) = (members.audit(), Audit::new("another"));
        answer(audit, 2);
        answer(&other, 3);
        audit.begin(Channel::Chat, 0);
        audit.delivered(Channel::Chat, 1, 0);
        audit.hear(&Heartbeat {
            member: "another".to_owned(),
            roles: Vec::new(),
            at: Timestamp::from_millis(0),
            urls: Urls::default(),
            epoch: None,
            positions: std::collections::BTreeMap::new(),
            clients: 0,
            draining: false,
            audit: Some(Box::new(other.report())),
        });
        let text = Metrics { members, receipts }.text();
        for line in [
            "warren_audit_repeated_total 2",
            "warren_fleet_repeated_total 5",
            "warren_audit_head{hop=\"delivered\",channel=\"chat\"} 1",
        ] {
            assert!(text.lines().any(|told| told == line), "{line}: {text}");
        }
    }
}

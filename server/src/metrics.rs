//! `GET /metrics`: figures for Prometheus, in its text format.
//!
//! Counts and offsets only: no names, no texts, no secrets. Whoever reaches a
//! listener may read them.

use std::fmt::Write;

use axum::Router;
use axum::http::header;
use axum::routing::get;
use domain::Channel;
use protocol::{AuditTotals, Hop};

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
        let report = self.members.audit().report();
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

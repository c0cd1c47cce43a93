//! The loss auditor: what passes by each hop is held against the journal, and
//! what clients say they received against what was sent to them.
//!
//! A hop notes a mark for each event that passes by ([`Audit::delivered`],
//! [`Audit::announced`]); every two seconds the marks are compared with the
//! journal, event by event, and let go. Heartbeats carry what came of it and
//! the digests of the last full blocks, which every member holds against the
//! journal as it has read it itself. Nothing here is durable, and everything is
//! bounded: what doesn't fit is let go, counted, and called unverified.

mod ledger;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use domain::{Channel, Timestamp};
use protocol::{
    Alert, AuditMember, AuditReport, AuditTotals, AuditView, BLOCK, Difference, Heartbeat, Hop,
    block_of,
};
use tokio::sync::broadcast;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::store::{Store, StoreError};
use ledger::{Finding, Ledger};

/// How often hops are compared with the journal.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How many rows of the journal are read at once.
const PAGE: u32 = 1_000;
/// Pages of one channel in one look; the rest comes with the next.
const PAGES_MAX: usize = 20;
/// So many looks without an event, while the journal goes on, are a standstill.
const STILL_LOOKS: u32 = 5;
/// Alerts that are kept: own ones, and as many of other members.
const ALERTS_MAX: usize = 64;
/// Alerts that a heartbeat carries.
const ALERTS_TOLD_MAX: usize = 8;
/// Members that are listened to.
const MEMBERS_MAX: usize = 256;
/// Channels with wrong events that may wait to be made good.
const WRONG_MAX: usize = 16;

/// One member's auditor. Clones share it.
#[derive(Clone)]
pub struct Audit(Arc<Inner>);

struct Inner {
    member: String,
    announced: [Mutex<Ledger>; 3],
    delivered: [Mutex<Ledger>; 3],
    books: Mutex<Books>,
    wrong: broadcast::Sender<Channel>,
}

#[derive(Default)]
struct Books {
    totals: AuditTotals,
    alerts: VecDeque<Alert>,
    heads: BTreeMap<Channel, u64>,
    /// Other members, as they last told.
    others: BTreeMap<String, AuditReport>,
    /// The totals of those that have gone.
    gone: AuditTotals,
    heard: VecDeque<Alert>,
}

/// How a hop stood at the last look.
#[derive(Clone, Copy, Default)]
struct Still {
    head: u64,
    looks: u32,
}

/// What a client's account comes to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// Event frames that it had already, since its last answer.
    pub repeated: u64,
    /// Events that came onto its screen twice, since its last answer.
    pub shown_twice: u64,
    /// Where it differs from what was sent.
    pub differs: Option<Differs>,
}

/// Where a client's account differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Differs {
    /// In this channel first.
    pub channel: Channel,
    /// The last offset that was sent.
    pub offset: u64,
    /// In what.
    pub difference: Difference,
    /// By how many frames.
    pub events: u64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Audit {
    /// The auditor of a member.
    #[must_use]
    pub fn new(member: &str) -> Self {
        Self(Arc::new(Inner {
            member: member.to_owned(),
            announced: Default::default(),
            delivered: Default::default(),
            books: Mutex::default(),
            wrong: broadcast::channel(WRONG_MAX).0,
        }))
    }

    fn ledger(&self, hop: Hop, channel: Channel) -> Option<MutexGuard<'_, Ledger>> {
        match hop {
            Hop::Announced => Some(lock(&self.0.announced[channel.index()])),
            Hop::Delivered => Some(lock(&self.0.delivered[channel.index()])),
            Hop::Client => None,
        }
    }

    /// This aggregator delivers every event of a channel after `head`.
    pub fn begin(&self, channel: Channel, head: u64) {
        lock(&self.0.delivered[channel.index()]).begin(head);
    }

    /// This aggregator has delivered an event, under this [`protocol::mark`].
    pub fn delivered(&self, channel: Channel, offset: u64, mark: u64) {
        lock(&self.0.delivered[channel.index()]).pass(offset, mark);
    }

    /// This backend has announced an event, and the broker has it.
    pub fn announced(&self, channel: Channel, offset: u64, mark: u64) {
        lock(&self.0.announced[channel.index()]).pass(offset, mark);
    }

    /// A client has answered a ping with its account.
    pub fn answered(&self, answer: Answer, now: Timestamp) {
        let mut books = lock(&self.0.books);
        let totals = &mut books.totals;
        totals.answers += 1;
        totals.repeated = totals.repeated.saturating_add(answer.repeated);
        totals.shown_twice = totals.shown_twice.saturating_add(answer.shown_twice);
        let alert = |difference, channel, offset, events| Alert {
            at: now,
            member: self.0.member.clone(),
            hop: Hop::Client,
            channel,
            block: block_of(offset),
            offset,
            partition: None,
            difference,
            events,
        };
        if answer.shown_twice > 0 {
            books.raise(alert(Difference::ShownTwice, None, 0, answer.shown_twice));
        }
        if let Some(Differs { channel, offset, difference, events }) = answer.differs {
            match difference {
                Difference::Missing => books.totals.missing += events,
                _ => books.totals.altered += events,
            }
            books.raise(alert(difference, Some(channel), offset, events));
        }
    }

    /// Tells of channels in which this aggregator has delivered what is wrong.
    #[must_use]
    pub fn wrong(&self) -> broadcast::Receiver<Channel> {
        self.0.wrong.subscribe()
    }

    /// Looks at the journal until `stop`.
    pub async fn run(self, store: Arc<dyn Store>, clock: Clock, stop: CancellationToken) {
        let look = async {
            let mut tick = tokio::time::interval(LOOK_EVERY);
            tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut still = [Still::default(); 3];
            loop {
                tick.tick().await;
                if let Err(error) = self.look(store.as_ref(), &clock, &mut still).await {
                    tracing::debug!(%error, "journal not read for the audit");
                }
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = look => {}
        }
    }

    async fn look(
        &self,
        store: &dyn Store,
        clock: &Clock,
        still: &mut [Still; 3],
    ) -> Result<(), StoreError> {
        for channel in Channel::ALL {
            for hop in [Hop::Announced, Hop::Delivered] {
                self.compare(store, clock, hop, *channel).await?;
            }
        }
        let heads = store.heads().await?;
        for (channel, cursor) in heads {
            lock(&self.0.books).heads.insert(channel, cursor.offset);
            self.watch(channel, cursor.offset, &mut still[channel.index()], clock.now());
        }
        Ok(())
    }

    async fn compare(
        &self,
        store: &dyn Store,
        clock: &Clock,
        hop: Hop,
        channel: Channel,
    ) -> Result<(), StoreError> {
        for _ in 0..PAGES_MAX {
            let next = self.ledger(hop, channel).and_then(|ledger| ledger.next());
            let Some((after, upto)) = next else { return Ok(()) };
            let rows = store.journal_ids(channel, after, PAGE).await?;
            let full = rows.len() >= PAGE as usize;
            let found = self.ledger(hop, channel).map(|mut one| one.compare(upto, &rows, full));
            let found = found.unwrap_or_default();
            if hop == Hop::Delivered && !found.is_empty() {
                // Nobody listens in a test of this alone.
                let _ = self.0.wrong.send(channel);
            }
            for finding in found {
                self.found(hop, channel, finding, clock.now());
            }
        }
        Ok(())
    }

    fn found(&self, hop: Hop, channel: Channel, finding: Finding, now: Timestamp) {
        let Finding { difference, offset, partition, events } = finding;
        let mut books = lock(&self.0.books);
        match difference {
            Difference::Missing => books.totals.missing += events,
            _ => books.totals.altered += events,
        }
        books.raise(Alert {
            at: now,
            member: self.0.member.clone(),
            hop,
            channel: Some(channel),
            block: block_of(offset),
            offset,
            partition,
            difference,
            events,
        });
    }

    /// Whether an aggregator still gets what the journal has. Counts looks, not
    /// time: a process that was frozen has not been looking.
    fn watch(&self, channel: Channel, head: u64, still: &mut Still, now: Timestamp) {
        let delivered = {
            let ledger = lock(&self.0.delivered[channel.index()]);
            if ledger.report().is_none() {
                return;
            }
            ledger.head()
        };
        let looks = if delivered == still.head && delivered < head { still.looks + 1 } else { 0 };
        *still = Still { head: delivered, looks };
        if looks == STILL_LOOKS {
            lock(&self.0.books).raise(Alert {
                at: now,
                member: self.0.member.clone(),
                hop: Hop::Delivered,
                channel: Some(channel),
                block: block_of(delivered + 1),
                offset: delivered + 1,
                partition: None,
                difference: Difference::Stalled,
                events: head - delivered,
            });
        }
    }

    /// Another member has told how it stands.
    pub fn hear(&self, heartbeat: &Heartbeat) {
        let Some(report) = &heartbeat.audit else { return };
        if heartbeat.member == self.0.member {
            return;
        }
        let disputed = self.disputed(&heartbeat.member, report, heartbeat.at);
        let mut books = lock(&self.0.books);
        for alert in disputed {
            let told = |known: &Alert| Alert { at: alert.at, ..known.clone() } == alert;
            if !books.alerts.iter().any(told) {
                books.raise(alert);
            }
        }
        for alert in &report.alerts {
            if !books.heard.contains(alert) {
                keep(&mut books.heard, alert.clone());
            }
        }
        if books.others.len() < MEMBERS_MAX || books.others.contains_key(&heartbeat.member) {
            books.others.insert(heartbeat.member.clone(), (**report).clone());
        }
    }

    fn disputed(&self, member: &str, report: &AuditReport, now: Timestamp) -> Vec<Alert> {
        let Some(channels) = report.hops.get(&Hop::Delivered) else { return Vec::new() };
        let mut found = Vec::new();
        for (channel, hop) in channels {
            let ledger = lock(&self.0.delivered[channel.index()]);
            for block in &hop.last {
                let Some(partition) = ledger.disputes(block) else { continue };
                found.push(Alert {
                    at: now,
                    member: member.to_owned(),
                    hop: Hop::Delivered,
                    channel: Some(*channel),
                    block: block.block,
                    offset: block.block.saturating_mul(BLOCK).saturating_add(1),
                    partition: Some(partition),
                    difference: Difference::Disputed,
                    events: BLOCK,
                });
            }
        }
        found
    }

    /// Another member has gone; what it told stays in the totals.
    pub fn gone(&self, member: &str) {
        let mut books = lock(&self.0.books);
        if let Some(report) = books.others.remove(member) {
            books.gone.add(report.totals);
        }
    }

    /// What this member tells the others.
    #[must_use]
    pub fn report(&self) -> AuditReport {
        let mut hops: BTreeMap<Hop, BTreeMap<Channel, _>> = BTreeMap::new();
        let mut unverified = 0;
        for hop in [Hop::Announced, Hop::Delivered] {
            for channel in Channel::ALL {
                let Some(ledger) = self.ledger(hop, *channel) else { continue };
                unverified += ledger.unverified();
                if let Some(report) = ledger.report() {
                    hops.entry(hop).or_default().insert(*channel, report);
                }
            }
        }
        let books = lock(&self.0.books);
        let older = books.alerts.len().saturating_sub(ALERTS_TOLD_MAX);
        AuditReport {
            totals: AuditTotals { unverified, ..books.totals },
            hops,
            alerts: books.alerts.iter().skip(older).cloned().collect(),
        }
    }

    /// All members, as this one has heard of them.
    #[must_use]
    pub fn view(&self) -> AuditView {
        let own = AuditMember { member: self.0.member.clone(), report: self.report() };
        let books = lock(&self.0.books);
        let mut totals = books.gone;
        let mut members = vec![own];
        members.extend(books.others.iter().map(|(member, report)| AuditMember {
            member: member.clone(),
            report: report.clone(),
        }));
        members.sort_by(|a, b| a.member.cmp(&b.member));
        members.iter().for_each(|one| totals.add(one.report.totals));
        let mut alerts: Vec<Alert> = books.alerts.iter().chain(&books.heard).cloned().collect();
        alerts.sort_by_key(|alert| std::cmp::Reverse(alert.at));
        AuditView { totals, heads: books.heads.clone(), members, alerts }
    }
}

impl Books {
    fn raise(&mut self, alert: Alert) {
        let channel = alert.channel.map_or("", Channel::as_str);
        tracing::error!(
            audit.member = alert.member,
            audit.hop = ?alert.hop,
            audit.difference = ?alert.difference,
            channel,
            block = alert.block,
            offset = alert.offset,
            partition = ?alert.partition,
            events = alert.events,
            "loss auditor: hops disagree"
        );
        self.totals.alerts += 1;
        keep(&mut self.alerts, alert);
    }
}

fn keep(alerts: &mut VecDeque<Alert>, alert: Alert) {
    alerts.push_back(alert);
    while alerts.len() > ALERTS_MAX {
        alerts.pop_front();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::mark;
    use uuid::Uuid;

    fn heartbeat(member: &str, audit: &Audit) -> Heartbeat {
        Heartbeat {
            member: member.to_owned(),
            roles: Vec::new(),
            at: Timestamp::from_millis(0),
            urls: protocol::Urls::default(),
            epoch: None,
            positions: BTreeMap::new(),
            clients: 0,
            draining: false,
            audit: Some(Box::new(audit.report())),
        }
    }

    fn lies(audit: &Audit, times: u64) {
        for offset in 1..=times {
            let differs = Some(Differs {
                channel: Channel::Chat,
                offset,
                difference: Difference::Missing,
                events: 1,
            });
            let answer = Answer { repeated: 2, differs, ..Answer::default() };
            audit.answered(answer, Timestamp::from_millis(0));
        }
    }

    #[test]
    fn what_others_tell_is_added_up_and_outlives_them() {
        let (here, there) = (Audit::new("here"), Audit::new("there"));
        lies(&there, 3);
        here.hear(&heartbeat("there", &there));
        here.hear(&heartbeat("there", &there));
        let view = here.view();
        assert_eq!((view.totals.alerts, view.totals.repeated), (3, 6));
        assert_eq!((view.members.len(), view.alerts.len()), (2, 3));
        here.gone("there");
        here.gone("there");
        let view = here.view();
        assert_eq!((view.totals.alerts, view.totals.repeated), (3, 6));
        assert_eq!((view.members.len(), view.alerts.len()), (1, 3));
    }

    #[test]
    fn a_hop_that_stands_still_while_the_journal_goes_on_is_told_once() {
        let audit = Audit::new("here");
        let told = || audit.view().alerts.len();
        let now = Timestamp::from_millis(0);
        let mut still = Still::default();
        audit.begin(Channel::Chat, 0);
        audit.delivered(Channel::Chat, 1, mark(1, Uuid::nil()));
        for _ in 0..3 * STILL_LOOKS {
            audit.watch(Channel::Chat, 1, &mut still, now);
        }
        assert_eq!(told(), 0, "there is nothing more to deliver");
        for head in 2..=u64::from(STILL_LOOKS) {
            audit.watch(Channel::Chat, head, &mut still, now);
        }
        audit.delivered(Channel::Chat, 2, mark(2, Uuid::nil()));
        audit.watch(Channel::Chat, 9, &mut still, now);
        assert_eq!(told(), 0, "it goes on, if slowly");
        for _ in 0..3 * STILL_LOOKS {
            audit.watch(Channel::Chat, 9, &mut still, now);
        }
        let view = audit.view();
        assert_eq!(view.alerts.len(), 1);
        let alert = &view.alerts[0];
        assert_eq!((alert.difference, alert.offset, alert.events), (Difference::Stalled, 3, 7));
    }

    #[test]
    fn what_is_kept_and_told_is_bounded() {
        let audit = Audit::new("here");
        lies(&audit, 500);
        for channel in Channel::ALL {
            audit.begin(*channel, 0);
            for offset in 1..=1_000 {
                audit.delivered(*channel, offset, mark(offset, Uuid::nil()));
            }
        }
        assert_eq!(audit.view().alerts.len(), ALERTS_MAX);
        assert_eq!(audit.report().totals.alerts, 500);
        assert_eq!(audit.report().alerts.len(), ALERTS_TOLD_MAX);
        let bytes = serde_json::to_vec(&heartbeat("here", &audit)).expect("json").len();
        assert!(bytes < 8 * 1024, "{bytes}");
    }
}

//! The backend: consumes what comes in, decides, records, announces.
//!
//! Live backends share the partitions by rendezvous hashing over the
//! membership; each partition that is this member's has one [`worker`]. The
//! broker's single active consumer guards the change-over, the store's
//! versions guard against everything else.

mod decode;
mod finish;
mod plan;
mod worker;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use domain::{Channel, Timestamp, partition_of};
use protocol::names;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::broker::{Broker, Partition};
use crate::clock::Clock;
use crate::members::{Members, Roster};
use crate::receipts::Receipts;
use crate::store::{Due, Store};
use worker::Worker;

/// How often deadlines are looked for.
const DUE_EVERY: Duration = Duration::from_millis(500);
/// The most deadlines taken at once; the rest comes at the next look.
const DUE_MAX: u32 = 500;
/// How many deadlines may wait for a worker; what doesn't fit is found again.
const DUE_WAITING_MAX: usize = 64;
/// How many announced offsets may wait to be marked.
const MARKS_MAX: usize = 4_096;
/// How often what is old enough to go is looked for.
const FORGET_EVERY: Duration = Duration::from_secs(3_600);
/// How often they are marked.
const MARK_EVERY: Duration = Duration::from_millis(100);

/// Times of the desk.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// How long an offer stands. Default 20 s.
    pub offer_ttl: Duration,
    /// How long the paperwork after a call or chat may take. Default 30 s.
    pub wrap_up: Duration,
    /// How long outcomes and receipts are kept: for so long a repeated event or
    /// command has no second effect. Default 30 days.
    pub keep: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            offer_ttl: Duration::from_secs(20),
            wrap_up: Duration::from_secs(30),
            keep: Duration::from_secs(30 * 86_400),
        }
    }
}

/// What a backend works with. Clones share it.
#[derive(Clone)]
pub struct Backend {
    /// Where work comes from and events go to.
    pub broker: Arc<dyn Broker>,
    /// Where it is recorded.
    pub store: Arc<dyn Store>,
    /// Who shares the work.
    pub members: Members,
    /// Steps of journeys.
    pub receipts: Receipts,
    /// The time.
    pub clock: Clock,
    /// Times of the desk.
    pub config: Config,
}

/// A partition's worker at work.
struct Running {
    stop: CancellationToken,
    due: mpsc::Sender<Due>,
}

impl Backend {
    /// Works until `stop`, then finishes and acks the work in hand.
    pub async fn run(self, stop: CancellationToken) {
        let tracker = TaskTracker::new();
        let (marks, marked) = mpsc::channel(MARKS_MAX);
        let marking = tokio::spawn(mark(self.store.clone(), marked));
        let forgetting = forget(self.store.clone(), self.clock.clone(), self.config.keep);
        let forgetting = stop.clone().run_until_cancelled_owned(forgetting);
        tracker.spawn(forgetting);
        let mut roster = self.members.roster();
        let mut running: HashMap<Partition, Running> = HashMap::new();
        let mut due = tokio::time::interval(DUE_EVERY);
        due.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let mine = self.share(&roster.borrow_and_update().clone());
            running.retain(|partition, worker| {
                let keep = mine.contains(partition) && !worker.due.is_closed();
                if !keep {
                    worker.stop.cancel();
                }
                keep
            });
            for partition in mine {
                running
                    .entry(partition)
                    .or_insert_with(|| self.start(partition, &tracker, marks.clone()));
            }
            tokio::select! {
                () = stop.cancelled() => break,
                changed = roster.changed() => if changed.is_err() { break },
                _ = due.tick() => self.wake(&running).await,
            }
        }
        self.members.say_draining().await;
        for worker in running.values() {
            worker.stop.cancel();
        }
        drop(marks);
        tracker.close();
        tracker.wait().await;
        if marking.await.is_err() {
            tracing::error!("marking of announced events failed");
        }
    }

    fn start(
        &self,
        partition: Partition,
        tracker: &TaskTracker,
        marks: mpsc::Sender<(Channel, u64)>,
    ) -> Running {
        let (due, due_rx) = mpsc::channel(DUE_WAITING_MAX);
        let stop = CancellationToken::new();
        let worker = Worker::new(self.clone(), partition, due_rx, marks);
        tracker.spawn(worker.run(stop.clone()));
        Running { stop, due }
    }

    /// This member's partitions: each goes to the live backend with the
    /// highest hash of its id and the partition.
    fn share(&self, roster: &Roster) -> Vec<Partition> {
        let backends = roster.backends();
        let own = self.members.id();
        Channel::ALL
            .iter()
            .flat_map(|channel| {
                (0..self.broker.config().partitions)
                    .map(|index| Partition { channel: *channel, index })
            })
            .filter(|partition| owner(&backends, *partition) == Some(own))
            .collect()
    }

    async fn wake(&self, running: &HashMap<Partition, Running>) {
        if running.is_empty() {
            return;
        }
        match self.store.due(self.clock.now(), DUE_MAX).await {
            Ok(found) => {
                for due in found {
                    let partition = Partition { channel: due.channel, index: due.partition };
                    if let Some(worker) = running.get(&partition) {
                        // A full worker finds it again at the next look.
                        let _ = worker.due.try_send(due);
                    }
                }
            }
            Err(error) => tracing::warn!(%error, "deadlines not read"),
        }
    }
}

/// Rendezvous hashing: a member that goes takes only its own share along.
fn owner<'a>(backends: &[&'a str], partition: Partition) -> Option<&'a str> {
    let weight = |member: &str| {
        let key = format!("{member}\n{}", names::in_key(partition.channel, partition.index));
        (mix(&key), member.to_owned())
    };
    backends.iter().copied().max_by_key(|member| weight(member))
}

/// FNV-1a spreads its low bits well and its high bits badly: fold both.
fn mix(key: &str) -> u64 {
    let low = u64::from(partition_of(key, u32::MAX));
    (low ^ (low >> 15)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Deletes what nobody asks for any more, now and then; never ends.
async fn forget(store: Arc<dyn Store>, clock: Clock, keep: Duration) {
    let mut tick = tokio::time::interval(FORGET_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let keep_ms = i64::try_from(keep.as_millis()).unwrap_or(i64::MAX);
        let before = Timestamp::from_millis(clock.now().as_millis().saturating_sub(keep_ms));
        if let Err(error) = store.prune(before).await {
            tracing::warn!(%error, "old outcomes and receipts not deleted");
        }
    }
}

/// Marks announced events, many at a time; a lost mark costs a repeated
/// announcement, which readers drop.
async fn mark(store: Arc<dyn Store>, mut marked: mpsc::Receiver<(Channel, u64)>) {
    let mut buffer = Vec::with_capacity(MARKS_MAX);
    while marked.recv_many(&mut buffer, MARKS_MAX).await > 0 {
        for channel in Channel::ALL {
            let offsets: Vec<u64> =
                buffer.iter().filter(|(of, _)| of == channel).map(|(_, offset)| *offset).collect();
            if offsets.is_empty() {
                continue;
            }
            if let Err(error) = store.announced(*channel, &offsets).await {
                tracing::warn!(%error, events = offsets.len(), "announced events not marked");
            }
        }
        buffer.clear();
        tokio::time::sleep(MARK_EVERY).await;
    }
}

/// Whether a message can be decided, and why not.
///
/// # Errors
/// The reason that it would be buried with.
#[cfg(fuzzing)]
pub fn decodes(channel: Channel, message: &crate::broker::Message) -> Result<(), String> {
    decode::decode(channel, message).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{self, Commit, Decided};

    #[tokio::test]
    async fn what_is_old_enough_is_forgotten_and_the_rest_is_kept() {
        let folder = tempfile::tempdir().expect("a folder");
        let url = format!("sqlite://{}", folder.path().join("warren.db").display());
        let store = store::open(&store::Config { url, max_connections: 1 }).await.expect("opened");
        let [old, new] = [uuid::Uuid::now_v7(), uuid::Uuid::now_v7()];
        let clock = Clock::default();
        let outcome = protocol::Outcome::Ok(serde_json::json!({}));
        let decided = [(old, Timestamp::from_millis(0)), (new, clock.now())].map(|(id, at)| {
            Decided { id, integration: "form".into(), outcome: outcome.clone(), at }
        });
        let commit = Commit { decided: decided.to_vec(), ..Commit::default() };
        store.commit(&commit).await.expect("committed");
        let forgetting = forget(store.clone(), clock, Duration::from_secs(60));
        let gone = async {
            while store.outcomes(&[old]).await.expect("read").contains_key(&old) {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            () = forgetting => {}
            () = gone => {}
        }
        assert!(store.outcomes(&[new]).await.expect("read").contains_key(&new));
    }

    fn partitions() -> Vec<Partition> {
        Channel::ALL
            .iter()
            .flat_map(|channel| (0..4).map(|index| Partition { channel: *channel, index }))
            .collect()
    }

    #[test]
    fn every_partition_has_one_owner_and_a_death_moves_only_the_dead_ones_share() {
        let three = ["019-a", "019-b", "019-c"];
        let two = ["019-a", "019-c"];
        for partition in partitions() {
            let before = owner(&three, partition).expect("an owner");
            let after = owner(&two, partition).expect("an owner");
            assert!(before == "019-b" || before == after, "{partition}");
        }
        assert_eq!(owner(&[], partitions()[0]), None);
    }

    #[test]
    fn the_share_is_fair_enough() {
        let ids: Vec<String> =
            (0..200u128).map(|n| uuid::Uuid::from_u128(n << 64 | n).to_string()).collect();
        let first = ids
            .chunks(2)
            .flat_map(|pair| {
                let pair: Vec<&str> = pair.iter().map(String::as_str).collect();
                partitions()
                    .into_iter()
                    .map(move |p| owner(&pair, p) == Some(pair[0]))
                    .collect::<Vec<_>>()
            })
            .filter(|is_first| *is_first)
            .count();
        assert!((400..800).contains(&first), "{first} of 1200");
    }
}

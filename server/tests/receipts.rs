//! Receipts: merged, bounded, written in batches, and never in the way.

mod doubles;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use domain::Timestamp;
use protocol::Stage;
use uuid::Uuid;
use warren::clock::Clock;
use warren::receipts::{ENTRIES_MAX, Receipts};
use warren::shutdown::Shutdown;
use warren::store::Receipt;

use doubles::FakeStore;

fn receipt(cause: u128, stage: Stage, ms: i64, agent: Option<&str>, count: u64) -> Receipt {
    Receipt {
        cause: Uuid::from_u128(cause),
        stage,
        at: Timestamp::from_millis(ms),
        integration: None,
        agent: agent.map(|login| login.parse().expect("a login")),
        count,
    }
}

fn start() -> (Receipts, Arc<FakeStore>, Shutdown) {
    let (store, shutdown) = (FakeStore::new(), Shutdown::default());
    let clock = Clock::given(Timestamp::from_millis(7));
    (Receipts::start(store.clone(), clock, &shutdown), store, shutdown)
}

#[tokio::test(start_paused = true)]
async fn receipts_of_the_same_step_are_merged_before_they_are_written() {
    let (receipts, store, _shutdown) = start();
    receipts.note(receipt(1, Stage::Sent, 5, None, 1));
    receipts.note(receipt(1, Stage::Sent, 4, None, 2));
    receipts.note(receipt(1, Stage::Sent, 6, Some("ana"), 1));
    receipts.reached(Uuid::from_u128(2), Stage::Accepted);
    assert_eq!(receipts.pending(Uuid::from_u128(1)).len(), 2);
    let mut recorded = store.recorded();
    let all = recorded.wait_for(|all| !all.is_empty()).await.expect("written").clone();
    let find = |stage, agent: bool| {
        all.iter().find(|one| one.stage == stage && one.agent.is_some() == agent).expect("there")
    };
    assert_eq!(all.len(), 3);
    let sent = find(Stage::Sent, false);
    assert_eq!((sent.at.as_millis(), sent.count), (4, 3));
    assert_eq!(find(Stage::Sent, true).count, 1);
    assert_eq!(find(Stage::Accepted, false).at.as_millis(), 7);
    receipts.drain().await;
    assert!(receipts.pending(Uuid::from_u128(1)).is_empty());
    assert!(receipts.written() > 0);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_away_gets_them_when_it_is_back() {
    let (receipts, store, _shutdown) = start();
    store.down.store(true, Ordering::SeqCst);
    receipts.note(receipt(1, Stage::Accepted, 1, None, 0));
    receipts.drain().await;
    assert_eq!(receipts.pending(Uuid::from_u128(1)).len(), 1, "still here");
    store.down.store(false, Ordering::SeqCst);
    let mut recorded = store.recorded();
    recorded.wait_for(|all| all.len() == 1).await.expect("written");
}

#[tokio::test(start_paused = true)]
async fn the_map_is_bounded_and_what_is_there_is_still_merged() {
    let (receipts, store, _shutdown) = start();
    store.down.store(true, Ordering::SeqCst);
    let last = u128::try_from(ENTRIES_MAX).expect("fits");
    for cause in 0..=last {
        receipts.note(receipt(cause, Stage::Sent, 1, None, 1));
    }
    receipts.note(receipt(0, Stage::Received, 1, None, 1));
    receipts.note(receipt(0, Stage::Sent, 1, None, 1));
    assert!(receipts.pending(Uuid::from_u128(last)).is_empty(), "one too many");
    let known = receipts.pending(Uuid::from_u128(0));
    assert_eq!((known.len(), known[0].count), (1, 2));
    store.down.store(false, Ordering::SeqCst);
    receipts.drain().await;
    assert_eq!(store.recorded().borrow().len(), ENTRIES_MAX);
    receipts.note(receipt(last, Stage::Sent, 1, None, 1));
    assert_eq!(receipts.pending(Uuid::from_u128(last)).len(), 1, "room again");
}

#[tokio::test(start_paused = true)]
async fn the_stop_writes_what_is_left() {
    let (receipts, store, shutdown) = start();
    receipts.note(receipt(1, Stage::Accepted, 1, None, 0));
    assert!(shutdown.finish(Duration::from_secs(5)).await);
    assert_eq!(store.recorded().borrow().len(), 1);
    receipts.note(receipt(2, Stage::Accepted, 1, None, 0));
    receipts.drain().await;
    assert_eq!(store.recorded().borrow().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn the_stop_does_not_wait_for_receipts_for_long() {
    let (receipts, store, shutdown) = start();
    store.hung.store(true, Ordering::SeqCst);
    receipts.note(receipt(1, Stage::Accepted, 1, None, 0));
    let stopped = tokio::time::timeout(Duration::from_secs(5), async {
        shutdown.finish(Duration::from_secs(60)).await
    });
    assert_eq!(stopped.await, Ok(true));
}

#[tokio::test(start_paused = true)]
async fn a_watch_hears_of_its_cause_only() {
    let (receipts, _store, _shutdown) = start();
    let watch = receipts.watch(Uuid::from_u128(1));
    let other = tokio::time::timeout(Duration::from_secs(1), async {
        let changed = watch.changed();
        receipts.note(receipt(2, Stage::Accepted, 1, None, 0));
        changed.await;
    });
    assert!(other.await.is_err());
    let changed = watch.changed();
    receipts.note(receipt(1, Stage::Accepted, 1, None, 0));
    changed.await;
}

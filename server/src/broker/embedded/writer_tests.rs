//! The writer on a disk that takes nothing for a while.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use domain::Channel;
use tokio::time::timeout;

use super::super::handed::Handed;
use super::super::tables::{Files, envelope};
use super::*;
use crate::broker::Partition;

const CHAT: Partition = Partition { channel: Channel::Chat, index: 0 };
/// So that only a few messages fit: SQLite then says what it says of a full disk.
const PAGES_MAX: &str = "PRAGMA max_page_count = 60";

struct Room {
    _folder: tempfile::TempDir,
    queues: Arc<Queues>,
    writer: Writer,
    state: watch::Receiver<BrokerState>,
}

async fn small_disk() -> Room {
    let folder = tempfile::tempdir().unwrap();
    let files = Files::open(folder.path()).await.unwrap();
    let mut connection = files.inbound_writer().await.unwrap();
    sqlx::query(PAGES_MAX).execute(&mut connection).await.unwrap();
    let handed = Arc::new(Handed::open(folder.path(), 3).unwrap().0);
    let queues = Arc::new(Queues::new(1, handed));
    queues.declare(CHAT, 0, 0);
    let (state_tx, state) = watch::channel(BrokerState::Up);
    let writer = Writer::start(connection, 1, files.lock(), queues.clone(), state_tx);
    Room { _folder: folder, queues, writer, state }
}

impl Room {
    async fn publish(&self) -> Result<bool, BrokerError> {
        let message = Message {
            id: "1".into(),
            kind: "chat.message".into(),
            app_id: "pbx".into(),
            at: Timestamp::from_millis(1),
            headers: BTreeMap::new(),
            reply_to: None,
            body: Bytes::from(vec![b'x'; 10_000]),
        };
        let envelope = envelope(&message);
        let expires_at = Timestamp::from_millis(i64::MAX);
        let place = self.queues.reserve(CHAT, 1_000).unwrap();
        let publish = Box::new(Publish { place, message, envelope, expires_at });
        self.writer.ask(|done| Job::Publish(publish, done)).await
    }

    async fn ack(&self, seq: i64) -> Result<bool, BrokerError> {
        let queue = self.queues.find(CHAT).unwrap();
        let (fate, at) = (Fate::Ack, Timestamp::from_millis(1));
        self.writer.ask(|done| Job::Settle { queue, seq, fate, at, done }).await
    }

    /// Publishes until the disk is full; how many fitted.
    async fn fill(&self) -> i64 {
        let mut fitted = 0;
        loop {
            match self.publish().await {
                Ok(_) => fitted += 1,
                Err(BrokerError::Blocked(reason)) => {
                    assert!(reason.contains("full"), "{reason}");
                    return fitted;
                }
                Err(error) => panic!("{error}"),
            }
            assert!(fitted < 100, "no bound");
        }
    }
}

#[tokio::test]
async fn a_full_disk_blocks_publishes_and_takes_acks_and_heals_by_itself() {
    let mut room = small_disk().await;
    let fitted = room.fill().await;
    assert!(fitted > 5, "{fitted}");
    assert!(matches!(*room.state.borrow_and_update(), BrokerState::Blocked(_)));
    // In one batch with a publish that can't be written.
    let acks = async {
        for seq in 1..=fitted {
            room.ack(seq).await.unwrap();
        }
    };
    let _ = tokio::join!(room.publish(), acks);
    // Nobody publishes: the probe finds out.
    let up = room.state.wait_for(|state| *state == BrokerState::Up);
    timeout(Duration::from_secs(30), up).await.unwrap().unwrap();
    room.publish().await.unwrap();
}

#[tokio::test]
async fn a_message_that_was_refused_is_not_there_and_leaves_its_place() {
    let room = small_disk().await;
    let fitted = room.fill().await;
    let queue = room.queues.find(CHAT).unwrap();
    let far = Timestamp::from_millis(0);
    let mut there = Vec::new();
    while let Some(waiting) = queue.lock().take(far) {
        there.push(waiting.seq);
    }
    assert_eq!(there, (1..=fitted).collect::<Vec<_>>());
    let room_for = u64::try_from(fitted).unwrap();
    assert!(room.queues.reserve(CHAT, room_for).is_err());
    assert!(room.queues.reserve(CHAT, room_for + 1).is_ok());
}

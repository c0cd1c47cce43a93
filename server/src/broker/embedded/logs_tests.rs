//! What is kept of the logs.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::*;

fn append(at: i64, bytes: usize) -> Append {
    let message = Message {
        id: "1".into(),
        kind: "notice".into(),
        app_id: "pbx".into(),
        at: Timestamp::from_millis(at),
        headers: BTreeMap::new(),
        reply_to: None,
        body: Bytes::from(vec![b'x'; bytes]),
    };
    let envelope = envelope(&message);
    Append { channel: Channel::Chat, message, envelope, at: Timestamp::from_millis(at) }
}

async fn kept(connection: &mut SqliteConnection) -> (i64, i64) {
    let all = "SELECT COALESCE(MIN(pos), 0), COUNT(*) FROM log";
    sqlx::query_as(all).fetch_one(connection).await.unwrap()
}

#[tokio::test]
async fn the_oldest_go_when_they_are_too_old_and_the_numbers_rise_on() {
    let folder = tempfile::tempdir().unwrap();
    let files = Files::open(folder.path()).await.unwrap();
    let mut connection = files.outbound_writer().await.unwrap();
    let all: Vec<Append> = (1..=2_500).map(|at| append(at, 10)).collect();
    commit(&mut connection, 1, &all).await.unwrap();
    assert!(prune(&mut connection, 1_501, i64::MAX).await.unwrap());
    assert_eq!(kept(&mut connection).await, (1_001, 1_500));
    assert!(prune(&mut connection, 1_501, i64::MAX).await.unwrap());
    assert_eq!(kept(&mut connection).await, (1_501, 1_000));
    assert!(!prune(&mut connection, 1_501, i64::MAX).await.unwrap());
    while prune(&mut connection, i64::MAX, i64::MAX).await.unwrap() {}
    assert_eq!(kept(&mut connection).await, (0, 0));
    assert_eq!(last(&files.outbound_reader().unwrap()).await.unwrap(), 2_500);
}

#[tokio::test]
async fn the_oldest_go_when_they_take_too_many_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let files = Files::open(folder.path()).await.unwrap();
    let mut connection = files.outbound_writer().await.unwrap();
    let all: Vec<Append> = (1..=4_000).map(|at| append(at, 1_000)).collect();
    commit(&mut connection, 1, &all).await.unwrap();
    while prune(&mut connection, 0, 3_000_000).await.unwrap() {}
    assert_eq!(kept(&mut connection).await, (2_001, 2_000), "three to a page of 4,096 bytes");
}

//! Messages that nobody can decode, put straight into the queues by AMQP, as a
//! foreign program with a fault would.

use std::io;

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{BasicProperties, Confirmation, Connection, ConnectionProperties};
use uuid::Uuid;

const BODIES: [&[u8]; 3] = [b"\xff\xfe not json", b"{\"type\":\"nobody.knows\"}", b""];

/// One at each of `keys` of `warren.in`, on the first node that takes them.
/// Gives their ids, all of which the broker has confirmed.
pub(crate) fn pour(urls: &[String], keys: &[String]) -> io::Result<Vec<String>> {
    let runtime = tokio::runtime::Handle::current();
    let mut last = io::Error::other("no node");
    for url in urls {
        match runtime.block_on(publish(url, keys)) {
            Ok(ids) => return Ok(ids),
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn publish(url: &str, keys: &[String]) -> io::Result<Vec<String>> {
    let other = io::Error::other::<lapin::Error>;
    let connection = Connection::connect(url, ConnectionProperties::default());
    let connection = connection.await.map_err(other)?;
    let channel = connection.create_channel().await.map_err(other)?;
    channel.confirm_select(ConfirmSelectOptions::default()).await.map_err(other)?;
    let mut ids = Vec::new();
    let options = BasicPublishOptions { mandatory: true, immediate: false };
    for (key, body) in keys.iter().zip(BODIES.iter().cycle()) {
        let id = format!("poison-{}", Uuid::now_v7());
        let properties =
            BasicProperties::default().with_message_id(id.as_str().into()).with_delivery_mode(2);
        let publish = channel.basic_publish(
            "warren.in".into(),
            key.as_str().into(),
            options,
            body,
            properties,
        );
        match publish.await.map_err(other)?.await.map_err(other)? {
            Confirmation::Ack(None) => ids.push(id),
            refused => return Err(io::Error::other(format!("poison for {key}: {refused:?}"))),
        }
    }
    connection.close(200, "done".into()).await.map_err(other)?;
    Ok(ids)
}

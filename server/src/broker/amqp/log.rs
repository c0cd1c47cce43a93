//! Reads the outbound logs, which are streams.

use std::sync::Arc;

use async_trait::async_trait;
use domain::Channel;
use lapin::Acker;
use lapin::options::BasicAckOptions;
use lapin::types::{AMQPValue, FieldTable};
use protocol::names;

use super::codec;
use super::connection::Live;
use super::consumer::Tap;
use crate::broker::{BrokerError, LogReader, LogStart, Message};

/// How many messages the broker sends ahead.
const PREFETCH: u16 = 500;
/// An ack stands for this many: here it only asks for more.
const ACK_EVERY: u32 = 100;

/// A reader of one stream.
pub(super) struct StreamReader {
    tap: Tap,
    unacked: u32,
    /// To be acked with all before it, ahead of the next message: the caller
    /// may give up waiting between the two.
    last: Option<Acker>,
}

impl StreamReader {
    pub(super) async fn open(
        live: Arc<Live>,
        channel: Channel,
        from: LogStart,
    ) -> Result<Self, BrokerError> {
        let offset = match from {
            LogStart::First => AMQPValue::LongString("first".into()),
            LogStart::Next => AMQPValue::LongString("next".into()),
            // As a number: a number in a string is refused.
            LogStart::Offset(offset) => {
                AMQPValue::LongLongInt(i64::try_from(offset).unwrap_or(i64::MAX))
            }
        };
        let mut arguments = FieldTable::default();
        arguments.insert("x-stream-offset".into(), offset);
        // Without a canary: what a stream holds isn't what waits for a reader.
        let tap = Tap::open(live, &names::out_stream(channel), PREFETCH, arguments, None).await?;
        Ok(Self { tap, unacked: 0, last: None })
    }
}

#[async_trait]
impl LogReader for StreamReader {
    async fn recv(&mut self) -> Option<(u64, Message)> {
        if self.unacked >= ACK_EVERY
            && let Some(acker) = self.last.take()
        {
            self.unacked = 0;
            if !matches!(acker.ack(BasicAckOptions { multiple: true }).await, Ok(true)) {
                return None;
            }
        }
        let raw = self.tap.next().await?;
        self.unacked += 1;
        self.last = Some(raw.acker);
        let offset = codec::stream_offset(&raw.properties).unwrap_or_default();
        Some((offset, codec::decode(&raw.properties, raw.data)))
    }
}

//! What publishers and clients saw, written to disk as it happens, outside of
//! the processes under test.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use uuid::Uuid;

/// One line of a journal.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub(crate) enum Saw {
    /// An event is about to be posted for the first time. Those of one `key`
    /// are posted one after another.
    Attempt { cause: Uuid, key: String, seq: u64 },
    /// The API's answer to a post; where there was none, why not.
    Answer { cause: Uuid, status: Option<u16>, failure: Option<String> },
    /// The socket is up; one for each channel.
    Welcome { channel: String, offset: u64, recovered: bool, fresh: bool },
    /// Events with consecutive offsets, and their [`roll`]ed hash.
    Run { channel: String, first: u64, last: u64, hash: u64 },
    /// An event that was there already.
    Repeated { channel: String, offset: u64 },
    /// Continuity is lost, and the aggregator says so.
    Gap { channel: String, offset: u64 },
    /// The aggregator counts more or fewer events than came.
    Miscounted { channel: String, sent: u64, received: u64 },
    /// The socket is gone.
    Down { why: String },
    /// The socket is up again, everything resumed.
    Back { after_ms: u64 },
    /// And everything is there that had been missed by then.
    Level { after_ms: u64 },
    /// The client moved to another aggregator because it was told to.
    Moved,
    /// A command is about to be sent for the first time.
    Command { id: Uuid },
    /// Its reply.
    Reply { id: Uuid, error: Option<String> },
    /// Something was broken, or mended.
    Fault { name: String },
    /// A message that nobody can decode was put into a queue.
    Poison { id: String },
    /// A page shows these messages of the chat that it watches.
    Shown { messages: Vec<u64> },
    /// A page says of itself that something is wrong.
    Wrong { why: String },
    /// A queue that wasn't empty in the end.
    Left { queue: String },
    /// A dead letter that was there in the end.
    Dead { id: String, reason: String },
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Line {
    /// Milliseconds since the run began.
    pub(crate) t: u64,
    #[serde(flatten)]
    pub(crate) saw: Saw,
}

pub(crate) struct Journal {
    file: BufWriter<File>,
    begun: Instant,
}

impl Journal {
    pub(crate) fn create(path: &Path, begun: Instant) -> io::Result<Self> {
        Ok(Self { file: BufWriter::new(File::create(path)?), begun })
    }

    pub(crate) fn write(&mut self, saw: Saw) -> io::Result<()> {
        let t = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        serde_json::to_writer(&mut self.file, &Line { t, saw })?;
        self.file.write_all(b"\n")
    }

    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

pub(crate) fn read(path: &Path) -> io::Result<Vec<Line>> {
    BufReader::new(File::open(path)?)
        .lines()
        .map(|line| Ok(serde_json::from_str(&line?)?))
        .collect()
}

/// A hash over events in their order.
pub(crate) fn roll(hash: u64, offset: u64, event: Uuid) -> u64 {
    let (high, low) = event.as_u64_pair();
    [offset, high, low]
        .into_iter()
        .fold(hash, |hash, word| (hash.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95))
}

//! Limits that both sides know.

use std::time::Duration;

/// The WebSocket subprotocol, answered when offered.
pub const SUBPROTOCOL: &str = "warren.v1";
/// The largest frame a client may send, in bytes.
pub const CLIENT_FRAME_BYTES_MAX: usize = 64 * 1024;
/// A client says hello within this time.
pub const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// The largest body of one external event, in bytes.
pub const EVENT_BYTES_MAX: usize = 256 * 1024;
/// The largest body of an array of external events, in bytes.
pub const EVENT_ARRAY_BYTES_MAX: usize = 4 * 1024 * 1024;
/// The most events in one array.
pub const EVENT_ARRAY_MAX: usize = 1_000;
/// The longest message of a chat, in characters.
pub const TEXT_CHARS_MAX: usize = 8_000;
/// The longest body of a ticket or comment, in characters.
pub const BODY_CHARS_MAX: usize = 64_000;
/// The longest subject of a ticket, in characters.
pub const SUBJECT_CHARS_MAX: usize = 300;
/// The longest id, name, address, queue or tag of a sender, in characters.
pub const NAME_CHARS_MAX: usize = 200;
/// The most tags on an interaction, and agents in a multicast.
pub const LIST_MAX: usize = 100;

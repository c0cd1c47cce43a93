//! Doors for `fuzz/`; built by `cargo fuzz` alone.

use domain::Channel;

use crate::backend;
use crate::broker::amqp;

/// A message as it comes from the broker: one byte for the channel, two for
/// the length of the properties, the properties, the body.
///
/// # Panics
/// When something is found.
pub fn amqp_envelope(bytes: &[u8]) {
    let [channel, high, low, rest @ ..] = bytes else { return };
    let channel = Channel::ALL[usize::from(*channel) % Channel::ALL.len()];
    let length = usize::from(u16::from_be_bytes([*high, *low])).min(rest.len());
    let (properties, body) = rest.split_at(length);
    let Some((message, dead)) = amqp::decode_parts(properties, body) else { return };
    assert_eq!(message.body, body);
    assert!(!dead.deaths().is_empty());
    if let Err(reason) = backend::decodes(channel, &message) {
        assert!(!reason.is_empty());
    }
}

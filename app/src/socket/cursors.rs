//! Where each channel stands, and in which journal.

use std::collections::BTreeMap;

use domain::Channel;
use protocol::Cursor;

use super::machine::Output;

/// Goes on from `at`. If that is in another journal, what is known from the one
/// before is no longer so.
pub(super) fn begin_at(
    cursors: &mut BTreeMap<Channel, Cursor>,
    channel: Channel,
    at: Cursor,
    out: &mut Vec<Output>,
) {
    let epoch = at.epoch.clone();
    let before = cursors.insert(channel, at);
    if before.is_some_and(|before| before.epoch != epoch) && !out.contains(&Output::Anew) {
        out.push(Output::Anew);
    }
}

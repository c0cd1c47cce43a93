//! What an external system posts, on each channel: an event or a list of what
//! is wrong, each with a place that is there, never a panic.
#![no_main]

use domain::Channel;
use libfuzzer_sys::fuzz_target;
use protocol::decode_external;

fuzz_target!(|bytes: &[u8]| {
    let Ok(body) = serde_json::from_slice::<serde_json::Value>(bytes) else { return };
    for channel in Channel::ALL {
        match decode_external(*channel, &body) {
            Ok(routed) => {
                let _ = routed.event.interaction_id("fuzz", *channel, "own");
            }
            Err(errors) => {
                assert!(!errors.is_empty());
                for error in errors {
                    assert!(error.pointer.is_empty() || error.pointer.starts_with('/'));
                    assert!(!error.detail.is_empty());
                }
            }
        }
    }
});

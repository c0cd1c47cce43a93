//! What a client says over the WebSocket: a frame or a reason, never a panic;
//! a frame that was read is written and read back the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use protocol::{ClientFrame, decode_command};

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(frame) = serde_json::from_str::<ClientFrame>(text) else { return };
    if let ClientFrame::Command { command, .. } = &frame {
        let _ = decode_command(command, "/command");
    }
    let written = serde_json::to_value(&frame).expect("what was read is written");
    let again: ClientFrame = serde_json::from_value(written.clone()).expect("and read again");
    assert_eq!(written, serde_json::to_value(&again).expect("and written again"));
});

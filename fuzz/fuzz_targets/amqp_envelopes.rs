//! What any client of the broker may publish, properties and body: something
//! to decide or a reason to bury it, never a panic.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| warren::fuzzing::amqp_envelope(bytes));

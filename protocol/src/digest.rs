//! Few bytes that stand for many events: a count, and a hash over their
//! places and ids. Cheap enough for every event at every hop; no cryptography.

use domain::{Fields, FromJson};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

/// Offsets are compared in blocks of so many: block 0 is 1 to 256.
pub const BLOCK: u64 = 256;

/// The block that an offset is in.
#[must_use]
pub fn block_of(offset: u64) -> u64 {
    offset.saturating_sub(1) / BLOCK
}

/// One event's mark: FNV-1a, 64 bits, over the eight bytes of the offset, most
/// significant first, and the sixteen of the id.
#[must_use]
pub fn mark(offset: u64, id: Uuid) -> u64 {
    let bytes = offset.to_be_bytes().into_iter().chain(id.into_bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// How many events, and the sum of their [`mark`]s modulo 2^64: the same
/// whatever way they were split up. Their order needs no hash, offsets tell it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Digest {
    /// How many.
    pub count: u64,
    /// Sixteen hexadecimal digits in JSON, where numbers aren't that long.
    #[serde(serialize_with = "to_hex", deserialize_with = "from_hex")]
    pub hash: u64,
}

impl Digest {
    /// One more event.
    pub fn add(&mut self, mark: u64) {
        self.count += 1;
        self.hash = self.hash.wrapping_add(mark);
    }
}

fn to_hex<S: Serializer>(hash: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{hash:016x}"))
}

impl FromJson for Digest {
    fn from_json(json: serde_json::Value) -> Option<Self> {
        let mut fields = Fields::of(json)?;
        let hash = of_hex(&fields.take::<String>("hash")?)?;
        Some(Self { count: fields.take("count")?, hash })
    }
}

fn of_hex(text: &str) -> Option<u64> {
    let digits = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if digits { u64::from_str_radix(text, 16).ok() } else { None }
}

fn from_hex<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let text = String::deserialize(deserializer)?;
    of_hex(&text).ok_or_else(|| serde::de::Error::custom("must be 16 hexadecimal digits"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(events: &[(u64, u128)]) -> Digest {
        let mut digest = Digest::default();
        for (offset, id) in events {
            digest.add(mark(*offset, Uuid::from_u128(*id)));
        }
        digest
    }

    #[test]
    fn every_difference_shows() {
        let events = [(1, 7), (2, 8), (3, 9)];
        let all = digest(&events);
        assert_ne!(digest(&events[..2]), all, "one less");
        assert_ne!(digest(&[(1, 7), (2, 8), (3, 9), (3, 9)]), all, "one twice");
        for other in [[(1, 7), (2, 8), (3, 1)], [(1, 8), (2, 7), (3, 9)], [(1, 7), (2, 8), (4, 9)]]
        {
            assert_eq!(digest(&other).count, all.count);
            assert_ne!(digest(&other).hash, all.hash, "{other:?}");
        }
    }

    #[test]
    fn how_it_was_split_up_does_not_show() {
        assert_eq!(digest(&[(3, 9), (1, 7), (2, 8)]), digest(&[(1, 7), (2, 8), (3, 9)]));
    }

    /// For other people's clients; docs/PROTOCOL.md has it as well.
    #[test]
    fn the_numbers_on_the_page() {
        let id = Uuid::parse_str("0193a3f2-7c00-7000-8000-000000000030").expect("an id");
        assert_eq!(format!("{:016x}", mark(18, id)), "7529d29afa0656b2");
        let mut digest = Digest::default();
        digest.add(mark(18, id));
        let json = serde_json::to_string(&digest).expect("json");
        assert_eq!(serde_json::from_str::<Digest>(&json).expect("a digest"), digest);
        for wrong in ["\"\"", "\"+0193a3f27c0070\"", "\"0193a3f27c00700\"", "7"] {
            let json = format!(r#"{{"count":1,"hash":{wrong}}}"#);
            assert!(serde_json::from_str::<Digest>(&json).is_err(), "{wrong}");
        }
    }

    #[test]
    fn blocks_begin_with_the_first_offset() {
        assert_eq!([1, 256, 257, 512, 513].map(block_of), [0, 0, 1, 1, 2]);
    }
}

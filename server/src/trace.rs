//! W3C trace context: a valid `traceparent` goes on, else a new one begins.

/// What came in if it is valid, or a new one.
pub(crate) fn carry(given: Option<&str>) -> String {
    given.filter(|text| is_valid(text)).map_or_else(begin, str::to_owned)
}

/// A new one.
pub(crate) fn begin() -> String {
    // A random id of zero would be invalid; it doesn't happen, and is ruled out.
    let trace = rand::random::<u128>().max(1);
    let parent = rand::random::<u64>().max(1);
    format!("00-{trace:032x}-{parent:016x}-01")
}

/// <https://www.w3.org/TR/trace-context/#traceparent-header>: later versions
/// may say more after the flags.
pub(crate) fn is_valid(text: &str) -> bool {
    let parts: Vec<&str> = text.splitn(5, '-').collect();
    let [version, trace, parent, flags, rest @ ..] = parts.as_slice() else { return false };
    let hex = |text: &str, len: usize| {
        text.len() == len && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    };
    let zero = |text: &str| text.bytes().all(|b| b == b'0');
    hex(version, 2)
        && *version != "ff"
        && hex(trace, 32)
        && !zero(trace)
        && hex(parent, 16)
        && !zero(parent)
        && hex(flags, 2)
        && (rest.is_empty() || *version != "00")
        && text.len() <= 255
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_valid_one_goes_on() {
        assert_eq!(carry(Some(GOOD)), GOOD);
        assert!(is_valid("01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more"));
    }

    #[test]
    fn anything_else_is_replaced_by_a_new_one() {
        let more = format!("{GOOD}-more");
        let upper = GOOD.to_uppercase();
        for bad in [
            "",
            "00",
            &more,
            &upper,
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-1",
        ] {
            let carried = carry(Some(bad));
            assert_ne!(carried, bad);
            assert!(is_valid(&carried), "{carried}");
        }
        assert_ne!(carry(None), carry(None));
    }
}

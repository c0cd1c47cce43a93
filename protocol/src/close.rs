//! Why a WebSocket is closed, and whether to come back.

/// 4000 to 4499: come back. 4500 to 4999: stay away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum CloseCode {
    /// The aggregator stops; another one takes over.
    Draining = 4000,
    /// The client reads too slowly and its outbox is full.
    SlowReader = 4001,
    /// A ping went unanswered.
    NoPong = 4002,
    /// The aggregator has lost its broker; another one may have it.
    BrokerLost = 4003,
    /// The aggregator can't go on without a hole.
    ContinuityLost = 4004,
    /// The same session came back elsewhere.
    TakenOver = 4005,
    /// Not a frame of this protocol.
    Malformed = 4500,
    /// No valid token or cookie.
    Unauthenticated = 4501,
    /// Signed in, and not allowed.
    Forbidden = 4502,
    /// The token's time is over.
    TokenExpired = 4503,
    /// A frame over 64 KiB.
    FrameTooBig = 4504,
    /// No hello within 10 s.
    NoHello = 4505,
    /// Too many frames.
    RateExceeded = 4506,
}

impl CloseCode {
    /// Every code.
    pub const ALL: &'static [Self] = &[
        Self::Draining,
        Self::SlowReader,
        Self::NoPong,
        Self::BrokerLost,
        Self::ContinuityLost,
        Self::TakenOver,
        Self::Malformed,
        Self::Unauthenticated,
        Self::Forbidden,
        Self::TokenExpired,
        Self::FrameTooBig,
        Self::NoHello,
        Self::RateExceeded,
    ];

    /// The number in the close frame.
    #[must_use]
    pub const fn code(self) -> u16 {
        self as u16
    }

    /// The words in the close frame.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Draining => "draining",
            Self::SlowReader => "slow reader",
            Self::NoPong => "no pong",
            Self::BrokerLost => "broker lost",
            Self::ContinuityLost => "continuity lost",
            Self::TakenOver => "session taken over",
            Self::Malformed => "malformed frame",
            Self::Unauthenticated => "unauthenticated",
            Self::Forbidden => "forbidden",
            Self::TokenExpired => "token expired",
            Self::FrameTooBig => "frame too big",
            Self::NoHello => "no hello",
            Self::RateExceeded => "rate exceeded",
        }
    }

    /// Whether a client that was closed with `code` should come back. Codes
    /// outside the two ranges are the network's: come back.
    #[must_use]
    pub const fn comes_back(code: u16) -> bool {
        !matches!(code, 4500..=4999)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_range_tells_whether_to_come_back() {
        for code in CloseCode::ALL {
            let stays_away = format!("{code:?}");
            assert_eq!(CloseCode::comes_back(code.code()), code.code() < 4500, "{stays_away}");
        }
        assert!(CloseCode::comes_back(1006));
    }
}

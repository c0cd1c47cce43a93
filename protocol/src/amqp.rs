//! Names on the broker that other people's clients rely on.

/// Exchanges, headers and patterns of queues.
pub mod names {
    use domain::Channel;

    /// Direct exchange towards the backend; key `CHANNEL.PARTITION`.
    pub const IN: &str = "warren.in";
    /// Direct exchange towards aggregators; key `CHANNEL`.
    pub const OUT: &str = "warren.out";
    /// Direct exchange of dead letters; key `CHANNEL`.
    pub const DEAD: &str = "warren.dead";
    /// Fanout exchange of heartbeats and signals.
    pub const MEMBERS: &str = "warren.members";

    /// Header: the channel.
    pub const X_CHANNEL: &str = "x-channel";
    /// Header: the ordering key.
    pub const X_KEY: &str = "x-key";
    /// Header: the journal's offset of an outbound event.
    pub const X_OFFSET: &str = "x-offset";
    /// Header: what brought an outbound event about.
    pub const X_CAUSE: &str = "x-cause";
    /// Header: who sees an outbound event, as JSON.
    pub const X_DISTRIBUTION: &str = "x-distribution";
    /// Header: who gives a command, as JSON.
    pub const X_PRINCIPAL: &str = "x-principal";
    /// Header: until when a command may be decided, RFC 3339.
    pub const X_DEADLINE: &str = "x-deadline";
    /// Header: refuse a command at any other version.
    pub const X_EXPECT_VERSION: &str = "x-expect-version";
    /// Header: when the external API accepted an event, RFC 3339.
    pub const X_ACCEPTED_AT: &str = "x-accepted-at";
    /// Header: how often, when and why a message that was replayed had died, as JSON.
    pub const X_DEATHS: &str = "x-deaths";
    /// Header: W3C trace context.
    pub const TRACEPARENT: &str = "traceparent";

    /// `warren.in.CHANNEL.PARTITION`
    #[must_use]
    pub fn in_queue(channel: Channel, partition: u32) -> String {
        format!("{IN}.{channel}.{partition}")
    }

    /// `CHANNEL.PARTITION`
    #[must_use]
    pub fn in_key(channel: Channel, partition: u32) -> String {
        format!("{channel}.{partition}")
    }

    /// `warren.out.CHANNEL`
    #[must_use]
    pub fn out_stream(channel: Channel) -> String {
        format!("{OUT}.{channel}")
    }

    /// `warren.dead.CHANNEL`
    #[must_use]
    pub fn dead_queue(channel: Channel) -> String {
        format!("{DEAD}.{channel}")
    }

    /// `warren.reply.MEMBER`
    #[must_use]
    pub fn reply_queue(member: &str) -> String {
        format!("warren.reply.{member}")
    }
}

//! The field's words: channels, kinds, states, roles.

use serde::{Deserialize, Serialize};

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum $name {
            $($(#[$vdoc])* #[serde(rename = $word)] $variant),+
        }

        impl $name {
            /// Every one of them, in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];
            /// The words on the wire, in the same order.
            pub const WORDS: &'static [&'static str] = &[$($word),+];

            /// The word on the wire.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        $crate::from_word!($name { $($word => $variant),+ });

        impl std::str::FromStr for $name {
            type Err = String;
            fn from_str(text: &str) -> Result<Self, String> {
                match text {
                    $($word => Ok(Self::$variant),)+
                    _ => Err(format!("must be one of {}", Self::WORDS.join(", "))),
                }
            }
        }
    };
}

words!(
    /// The three ways in. One queue, stream and cursor each.
    Channel {
        /// Telephone calls.
        Voice = "voice",
        /// Conversations on a site.
        Chat = "chat",
        /// Cases that live for days.
        Tickets = "tickets",
    }
);

words!(
    /// What an interaction is.
    Kind {
        /// On [`Channel::Voice`].
        Call = "call",
        /// On [`Channel::Chat`].
        Chat = "chat",
        /// On [`Channel::Tickets`].
        Ticket = "ticket",
    }
);

impl Kind {
    /// The channel that carries this kind.
    #[must_use]
    pub const fn channel(self) -> Channel {
        match self {
            Self::Call => Channel::Voice,
            Self::Chat => Channel::Chat,
            Self::Ticket => Channel::Tickets,
        }
    }
}

impl Channel {
    /// The kind of interaction on this channel.
    #[must_use]
    pub const fn kind(self) -> Kind {
        match self {
            Self::Voice => Kind::Call,
            Self::Chat => Kind::Chat,
            Self::Tickets => Kind::Ticket,
        }
    }

    /// 0, 1 or 2: a place in an array of three.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}

words!(
    /// A call's state.
    CallState {
        /// Waiting for an agent.
        Queued = "queued",
        /// Ringing at an agent's, or at everybody's.
        Ringing = "ringing",
        /// On its way to one agent, after a transfer.
        Connecting = "connecting",
        /// An agent and the caller talk.
        InProgress = "in_progress",
        /// The caller waits on hold.
        OnHold = "on_hold",
        /// Hung up; the agent finishes the paperwork.
        WrapUp = "wrap_up",
        /// Over.
        Ended = "ended",
    }
);

words!(
    /// A chat's state.
    ChatState {
        /// Waiting for an agent.
        Queued = "queued",
        /// Put before one agent, with a deadline.
        Offered = "offered",
        /// An agent answers.
        Active = "active",
        /// Put aside until a time, or until the customer writes.
        OnHold = "on_hold",
        /// Over for the customer; the agent finishes the paperwork.
        WrapUp = "wrap_up",
        /// Over.
        Closed = "closed",
    }
);

words!(
    /// A ticket's state.
    TicketStatus {
        /// Nobody has looked at it.
        New = "new",
        /// Somebody works on it.
        Open = "open",
        /// Waiting for the requester.
        Pending = "pending",
        /// Put aside until a time.
        Snoozed = "snoozed",
        /// Answered, in the agent's eyes.
        Resolved = "resolved",
        /// Over.
        Closed = "closed",
    }
);

words!(
    /// How soon a ticket wants an answer.
    Priority {
        /// When there is time.
        Low = "low",
        /// In its turn.
        Medium = "medium",
        /// Before the others.
        High = "high",
        /// Now.
        Urgent = "urgent",
    }
);

words!(
    /// Why a call ended.
    EndReason {
        /// Both had said what they had to say.
        Completed = "completed",
        /// No agent picked up.
        NoAnswer = "no_answer",
        /// The customer left unanswered.
        Abandoned = "abandoned",
        /// An agent declined it.
        Rejected = "rejected",
        /// The line was busy.
        Busy = "busy",
        /// Called off before it was answered.
        Cancelled = "cancelled",
        /// The telephone system failed.
        Failed = "failed",
        /// It went on elsewhere.
        Transferred = "transferred",
    }
);

words!(
    /// Whether an agent can be given work. Idle time never changes it.
    Presence {
        /// Ready for work.
        Available = "available",
        /// At work.
        Busy = "busy",
        /// Away, with a reason.
        Away = "away",
        /// Finishing the paperwork.
        WrapUp = "wrap_up",
        /// Not here.
        Offline = "offline",
    }
);

words!(
    /// What a person may do.
    Role {
        /// Answers.
        Agent = "agent",
        /// Answers and reassigns.
        Supervisor = "supervisor",
        /// Everything.
        Admin = "admin",
    }
);

words!(
    /// How loud a notice is.
    NoticeLevel {
        /// Good to know.
        Info = "info",
        /// Look soon.
        Warning = "warning",
        /// Look now.
        Critical = "critical",
    }
);

//! The words on the wire: frames, envelopes, close codes, limits.
//!
//! The server and the browser share these types; docs/PROTOCOL.md describes
//! them for everybody else.
#![warn(missing_docs)]

mod amqp;
mod api;
mod audit;
mod close;
mod command;
mod digest;
mod external;
mod fields;
mod frame;
mod limits;
mod member;

pub use amqp::names;
pub use api::{
    Accepted, AgentView, DeadLetterList, DeadLetterView, Death, FieldError, InteractionDetail,
    InteractionList, Journey, JourneyEvent, JourneyStage, Me, Outcome, Problem, Stage, View,
};
pub use audit::{
    Alert, AuditMember, AuditReport, AuditTotals, AuditView, Block, Difference, Hop, HopReport,
};
pub use close::CloseCode;
pub use command::decode_command;
pub use digest::{BLOCK, Digest, block_of, mark};
pub use external::decode_external;
pub use frame::{
    Account, AckStage, ClientFrame, Cursor, CursorReport, Principal, ReplyError, ServerFrame,
    Signal, event_frame,
};
pub use limits::*;
pub use member::{Heartbeat, MemberRole, Urls};

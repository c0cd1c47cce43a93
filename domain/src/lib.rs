//! Pure rules of voice, chat and tickets.
//!
//! No async, no clock, no I/O: time and ids arrive as arguments, so the same
//! code decides on the server and applies events in the browser.
#![warn(missing_docs)]

mod assignee;
mod call;
mod chat;
mod command;
mod decide;
mod distribution;
mod event;
mod external;
mod id;
mod interaction;
mod json;
mod refusal;
mod ticket;
mod time;
mod vocabulary;

pub use assignee::Assignee;
pub use command::{Actor, AgentCommand, Command};
pub use decide::{Context, decide};
pub use distribution::Distribution;
pub use event::{Contact, Direction, Event, Recorded};
pub use external::{ExternalEvent, Routed};
pub use id::{CommandId, ContactId, EventId, InteractionId, Login, SessionId, partition_of};
pub use interaction::{Interaction, Offer, OfferState, Stage, apply};
pub use json::{Fields, FromJson};
pub use refusal::{Refusal, RefusalCode};
pub use time::Timestamp;
pub use vocabulary::{
    CallState, Channel, ChatState, EndReason, Kind, NoticeLevel, Presence, Priority, Role,
    TicketStatus,
};

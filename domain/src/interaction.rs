//! The state of one call, chat or ticket, and how an event changes it.

use serde::{Deserialize, Serialize};

use crate::{
    Assignee, CallState, ChatState, Contact, Direction, Distribution, EndReason, Event, Fields,
    FromJson, InteractionId, Kind, Login, Priority, Recorded, TicketStatus, Timestamp, from_fields,
    from_word,
};

/// Kind and state together: `"kind":"call","state":"ringing"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", content = "state", rename_all = "lowercase")]
pub enum Stage {
    /// A call and its state.
    Call(CallState),
    /// A chat and its state.
    Chat(ChatState),
    /// A ticket and its status.
    Ticket(TicketStatus),
}

impl FromJson for Stage {
    fn from_json(json: serde_json::Value) -> Option<Self> {
        let mut fields = Fields::of(json)?;
        Some(match fields.take("kind")? {
            Kind::Call => Self::Call(fields.take("state")?),
            Kind::Chat => Self::Chat(fields.take("state")?),
            Kind::Ticket => Self::Ticket(fields.take("state")?),
        })
    }
}

impl Stage {
    /// What it is.
    #[must_use]
    pub const fn kind(self) -> Kind {
        match self {
            Self::Call(_) => Kind::Call,
            Self::Chat(_) => Kind::Chat,
            Self::Ticket(_) => Kind::Ticket,
        }
    }

    /// The state's word on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Call(state) => state.as_str(),
            Self::Chat(state) => state.as_str(),
            Self::Ticket(state) => state.as_str(),
        }
    }

    /// True when nothing is left to do.
    #[must_use]
    pub const fn is_over(self) -> bool {
        matches!(
            self,
            Self::Call(CallState::Ended)
                | Self::Chat(ChatState::Closed)
                | Self::Ticket(TicketStatus::Resolved | TicketStatus::Closed)
        )
    }
}

/// What became of an offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OfferState {
    /// The agent has until the deadline.
    Pending,
    /// The agent took it.
    Accepted,
    /// The agent declined.
    Rejected,
    /// The agent let it lapse.
    TimedOut,
    /// It was withdrawn: somebody else won, or the customer left.
    Rescinded,
}

from_word!(OfferState {
    "pending" => Pending,
    "accepted" => Accepted,
    "rejected" => Rejected,
    "timed_out" => TimedOut,
    "rescinded" => Rescinded,
});

/// Work put before one agent, with a deadline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// The one addressee.
    pub agent: Login,
    /// When it lapses.
    pub deadline: Timestamp,
    /// What became of it.
    pub state: OfferState,
}

from_fields!(Offer { agent, deadline, state });

/// How an interaction stands after its events so far.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interaction {
    /// Derived from the integration, the kind and the sender's own id.
    pub id: InteractionId,
    /// What it is and how it stands.
    #[serde(flatten)]
    pub stage: Stage,
    /// The number of its events.
    pub version: u64,
    /// The integration that it came from; empty if an agent opened it.
    pub integration: String,
    /// The sender's own id.
    pub external_id: String,
    /// Who sees it.
    pub distribution: Distribution,
    /// Who answers it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assignee: Option<Login>,
    /// The last offer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offer: Option<Offer>,
    /// The person on the other side, if anything is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contact: Option<Contact>,
    /// The queue that it waits or waited in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
    /// A ticket's subject.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// A ticket's priority.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<Priority>,
    /// Tags, in the order they were put on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// A call's numbers: who called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// A call's numbers: which line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// Why a call ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_reason: Option<EndReason>,
    /// Where a call's recording is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recording_url: Option<String>,
    /// The last words, cut to 140 characters.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub preview: String,
    /// Since when the customer waits for us; none if it is their turn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting_since: Option<Timestamp>,
    /// When the first agent answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answered_at: Option<Timestamp>,
    /// When the paperwork or the snooze is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// When it was over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
    /// When it began.
    pub created_at: Timestamp,
    /// When its last event was decided.
    pub updated_at: Timestamp,
}

from_fields!(Interaction {
    id, version, integration, external_id, distribution, assignee, offer, contact, queue,
    subject, priority, tags [?], from, to, end_reason, recording_url, preview [?],
    waiting_since, answered_at, until, ended_at, created_at, updated_at, stage [*]
});

impl Interaction {
    /// When it has to be looked at again: the offer's deadline, or the end of
    /// wrap-up or snooze.
    #[must_use]
    pub fn due_at(&self) -> Option<Timestamp> {
        self.pending_offer().map(|offer| offer.deadline).or(self.until)
    }

    /// The offer that still stands.
    #[must_use]
    pub fn pending_offer(&self) -> Option<&Offer> {
        self.offer.as_ref().filter(|offer| offer.state == OfferState::Pending)
    }

    /// The agent who has it, or to whom it is offered.
    #[must_use]
    pub fn holder(&self) -> Option<&Login> {
        self.assignee.as_ref().or(self.pending_offer().map(|offer| &offer.agent))
    }

    fn first(recorded: &Recorded, stage: Stage, external_id: &str) -> Option<Self> {
        Some(Self {
            id: recorded.interaction_id?,
            stage,
            version: 0,
            integration: recorded.integration.clone().unwrap_or_default(),
            external_id: external_id.to_owned(),
            distribution: recorded.distribution.clone().unwrap_or_default(),
            assignee: None,
            offer: None,
            contact: None,
            queue: None,
            subject: None,
            priority: None,
            tags: Vec::new(),
            from: None,
            to: None,
            end_reason: None,
            recording_url: None,
            preview: String::new(),
            waiting_since: Some(recorded.at),
            answered_at: None,
            until: None,
            ended_at: None,
            created_at: recorded.at,
            updated_at: recorded.at,
        })
    }

    /// What the first event of an interaction makes.
    fn begin(recorded: &Recorded) -> Option<Self> {
        match &recorded.event {
            Event::CallQueued { call, .. }
            | Event::CallRinging { call, .. }
            | Event::CallAnswered { call, .. }
            | Event::CallEnded { call, .. } => {
                Self::first(recorded, Stage::Call(CallState::Queued), call)
            }
            Event::ChatStarted { chat, .. } | Event::ChatMessage { chat, .. } => {
                Self::first(recorded, Stage::Chat(ChatState::Queued), chat)
            }
            Event::TicketOpened { ticket, .. } => {
                Self::first(recorded, Stage::Ticket(TicketStatus::New), ticket)
            }
            _ => None,
        }
    }

    fn put_offer(&mut self, agent: &Login, deadline: Timestamp) {
        self.offer = Some(Offer { agent: agent.clone(), deadline, state: OfferState::Pending });
    }

    fn settle_offer(&mut self, state: OfferState) {
        if let Some(offer) = self.offer.as_mut().filter(|offer| offer.state == OfferState::Pending)
        {
            offer.state = state;
        }
    }

    /// `agent` has it now; an offer that stood is accepted or withdrawn.
    fn put_agent(&mut self, agent: &Login, at: Timestamp) {
        let won = self.pending_offer().is_some_and(|offer| &offer.agent == agent);
        self.settle_offer(if won { OfferState::Accepted } else { OfferState::Rescinded });
        self.assignee = Some(agent.clone());
        self.until = None;
        self.stage = match self.stage {
            Stage::Call(_) => Stage::Call(CallState::InProgress),
            Stage::Chat(_) => Stage::Chat(ChatState::Active),
            Stage::Ticket(TicketStatus::New | TicketStatus::Snoozed) => {
                Stage::Ticket(TicketStatus::Open)
            }
            ticket @ Stage::Ticket(_) => ticket,
        };
        if self.stage.kind() != Kind::Ticket {
            self.answered_at.get_or_insert(at);
        }
        if self.stage.kind() == Kind::Call {
            self.waiting_since = None;
        }
    }

    /// Back to where everybody can take it.
    fn put_back(&mut self, at: Timestamp) {
        self.settle_offer(OfferState::Rescinded);
        self.assignee = None;
        self.stage = match self.stage {
            Stage::Call(_) => Stage::Call(CallState::Queued),
            Stage::Chat(_) => Stage::Chat(ChatState::Queued),
            // Its status says whether it waits, and until when.
            Stage::Ticket(_) => return,
        };
        self.until = None;
        self.waiting_since.get_or_insert(at);
    }

    fn end(&mut self, wrap_up_until: Option<Timestamp>, at: Timestamp) {
        self.settle_offer(OfferState::Rescinded);
        self.waiting_since = None;
        self.until = wrap_up_until;
        self.ended_at = Some(at);
        let wraps = wrap_up_until.is_some();
        self.stage = match self.stage {
            Stage::Call(_) => Stage::Call(if wraps { CallState::WrapUp } else { CallState::Ended }),
            Stage::Chat(_) => {
                Stage::Chat(if wraps { ChatState::WrapUp } else { ChatState::Closed })
            }
            Stage::Ticket(_) => Stage::Ticket(TicketStatus::Closed),
        };
    }

    fn set_status(&mut self, status: TicketStatus, at: Timestamp) {
        self.stage = Stage::Ticket(status);
        self.until = None;
        match status {
            TicketStatus::New | TicketStatus::Open => {
                self.waiting_since.get_or_insert(at);
                self.ended_at = None;
            }
            TicketStatus::Pending | TicketStatus::Snoozed => self.waiting_since = None,
            TicketStatus::Resolved | TicketStatus::Closed => {
                self.waiting_since = None;
                self.ended_at = Some(at);
            }
        }
    }

    fn say(&mut self, text: &str) {
        self.preview =
            text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(140).collect();
    }

    fn change(&mut self, recorded: &Recorded) {
        let at = recorded.at;
        match &recorded.event {
            Event::CallQueued { from, to, queue, contact, .. } => {
                self.from = Some(from.clone());
                self.to = Some(to.clone());
                self.queue.clone_from(queue);
                self.contact.clone_from(contact);
            }
            Event::CallRinging { agent, deadline, .. } => {
                self.settle_offer(OfferState::Rescinded);
                self.stage = Stage::Call(CallState::Ringing);
                if let (Some(agent), Some(deadline)) = (agent, deadline) {
                    self.put_offer(agent, *deadline);
                }
            }
            Event::CallAnswered { agent, .. } => self.put_agent(agent, at),
            Event::CallHeld { .. } => self.stage = Stage::Call(CallState::OnHold),
            Event::CallResumed { .. } => self.stage = Stage::Call(CallState::InProgress),
            Event::CallTransferred { queue, agent, deadline, .. } => {
                self.put_back(at);
                if queue.is_some() {
                    self.queue.clone_from(queue);
                }
                if let (Some(agent), Some(deadline)) = (agent, deadline) {
                    self.stage = Stage::Call(CallState::Connecting);
                    self.put_offer(agent, *deadline);
                }
            }
            Event::CallEnded { reason, recording_url, wrap_up_until, .. } => {
                self.end_reason = Some(*reason);
                self.recording_url.clone_from(recording_url);
                self.end(*wrap_up_until, at);
            }
            Event::ChatStarted { contact, queue, text, agent, deadline, .. } => {
                self.contact = Some(contact.clone());
                self.queue.clone_from(queue);
                self.say(text.as_deref().unwrap_or_default());
                if let (Some(agent), Some(deadline)) = (agent, deadline) {
                    self.stage = Stage::Chat(ChatState::Offered);
                    self.put_offer(agent, *deadline);
                }
            }
            Event::ChatMessage { text, direction, by, .. } => {
                self.say(text);
                match (direction, by) {
                    (Direction::Outbound, Some(by)) if self.assignee.is_none() => {
                        self.put_agent(by, at);
                        self.waiting_since = None;
                    }
                    (Direction::Outbound, _) => self.waiting_since = None,
                    (Direction::Inbound, _) => self.hear(at),
                }
            }
            Event::ChatHeld { until, .. } => {
                self.stage = Stage::Chat(ChatState::OnHold);
                self.until = Some(*until);
            }
            Event::ChatResumed { .. } => {
                self.until = None;
                self.ended_at = None;
                self.stage = Stage::Chat(if self.assignee.is_some() {
                    ChatState::Active
                } else {
                    ChatState::Queued
                });
            }
            Event::ChatEnded { wrap_up_until, .. } => self.end(*wrap_up_until, at),
            Event::TicketOpened { subject, body, priority, requester, queue, tags, by, .. } => {
                self.subject = Some(subject.clone());
                self.priority = Some(*priority);
                self.contact = (!requester.is_empty()).then(|| requester.clone());
                self.queue.clone_from(queue);
                self.tags.clone_from(tags);
                self.say(body);
                if let Some(by) = by {
                    self.put_agent(by, at);
                }
            }
            Event::TicketCommented { body, by, .. } => {
                self.say(body);
                if by.is_some() {
                    self.waiting_since = None;
                    self.answered_at.get_or_insert(at);
                    if self.stage == Stage::Ticket(TicketStatus::New) {
                        self.stage = Stage::Ticket(TicketStatus::Open);
                    }
                } else {
                    let fresh = self.stage == Stage::Ticket(TicketStatus::New);
                    self.set_status(if fresh { TicketStatus::New } else { TicketStatus::Open }, at);
                }
            }
            Event::TicketUpdated { status, priority, subject, tags, assignee, .. } => {
                match assignee {
                    Assignee::Unchanged => {}
                    Assignee::Nobody => self.put_back(at),
                    Assignee::Agent(agent) => self.put_agent(agent, at),
                }
                if let Some(status) = status {
                    self.set_status(*status, at);
                }
                self.priority = priority.or(self.priority);
                if subject.is_some() {
                    self.subject.clone_from(subject);
                }
                if let Some(tags) = tags {
                    self.tags.clone_from(tags);
                }
            }
            Event::TicketSnoozed { until, .. } => {
                self.set_status(TicketStatus::Snoozed, at);
                self.until = Some(*until);
            }
            Event::WrappedUp { .. } => {
                let ended_at = self.ended_at;
                self.end(None, at);
                self.ended_at = ended_at.or(Some(at));
            }
            Event::Assigned { agent: Some(agent), .. } => self.put_agent(agent, at),
            Event::Assigned { agent: None, .. } => self.put_back(at),
            Event::Noted { .. } | Event::Notice { .. } => {}
            Event::Tagged { tag, .. } => self.tags.push(tag.clone()),
            Event::Untagged { tag, .. } => self.tags.retain(|known| known != tag),
            Event::ContactLinked { contact, .. } => self.contact = Some(contact.clone()),
            Event::OfferAccepted { agent } => self.put_agent(agent, at),
            Event::OfferRejected { .. } => self.lapse(OfferState::Rejected),
            Event::OfferTimedOut { .. } => self.lapse(OfferState::TimedOut),
        }
    }

    /// An offer came to nothing: the work goes back to the queue.
    fn lapse(&mut self, state: OfferState) {
        self.settle_offer(state);
        self.stage = match self.stage {
            Stage::Call(CallState::Ringing | CallState::Connecting) => {
                Stage::Call(CallState::Queued)
            }
            Stage::Chat(ChatState::Offered) => Stage::Chat(ChatState::Queued),
            other => other,
        };
    }

    /// The customer wrote: what was put aside or over is live again.
    fn hear(&mut self, at: Timestamp) {
        self.waiting_since.get_or_insert(at);
        if let Stage::Chat(ChatState::WrapUp | ChatState::Closed | ChatState::OnHold) = self.stage {
            self.until = None;
            self.ended_at = None;
            self.stage = Stage::Chat(if self.assignee.is_some() {
                ChatState::Active
            } else {
                ChatState::Queued
            });
        }
    }
}

/// The state after one more event. An event that cannot begin an interaction
/// leaves `None` as it is.
#[must_use]
pub fn apply(state: Option<Interaction>, recorded: &Recorded) -> Option<Interaction> {
    let mut state = state.or_else(|| Interaction::begin(recorded))?;
    if let Some(distribution) = &recorded.distribution {
        state.distribution = distribution.clone();
    }
    state.change(recorded);
    state.version = recorded.version.unwrap_or(state.version + 1);
    state.updated_at = recorded.at;
    Some(state)
}

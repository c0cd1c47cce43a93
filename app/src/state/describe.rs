//! Events and interactions in plain words.

use std::time::Duration;

use domain::{Assignee, Contact, Direction, Event, Interaction, Login, Timestamp};

/// How an entry of a timeline looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// The customer says something.
    Inbound,
    /// An agent says something.
    Outbound,
    /// An agent notes something for colleagues.
    Note,
    /// Something changed.
    Change,
}

impl Tone {
    /// The word in class names.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
            Self::Note => "note",
            Self::Change => "change",
        }
    }
}

/// An entry of a timeline in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Words {
    /// How it looks.
    pub tone: Tone,
    /// Which agent did it.
    pub by: Option<Login>,
    /// What was said, or what changed.
    pub text: String,
}

fn said(tone: Tone, by: Option<&Login>, text: &str) -> Words {
    Words { tone, by: by.cloned(), text: text.to_owned() }
}

fn changed(by: Option<&Login>, text: impl Into<String>) -> Words {
    Words { tone: Tone::Change, by: by.cloned(), text: text.into() }
}

fn human(word: &str) -> String {
    word.replace('_', " ")
}

/// An event in words. What an agent did reads on after the agent's name.
#[must_use]
pub fn describe(event: &Event) -> Words {
    match event {
        Event::CallQueued { from, queue, .. } => changed(
            None,
            match queue {
                Some(queue) => format!("Call from {from} waits in {queue}"),
                None => format!("Call from {from} waits"),
            },
        ),
        Event::CallRinging { agent: Some(agent), .. } => changed(None, format!("Rings at {agent}")),
        Event::CallRinging { agent: None, .. } => changed(None, "Rings"),
        Event::CallAnswered { agent, .. } => changed(Some(agent), "answered the call"),
        Event::CallHeld { by, .. } => changed(by.as_ref(), "put the caller on hold"),
        Event::CallResumed { by, .. } => changed(by.as_ref(), "took the caller off hold"),
        Event::CallTransferred { queue, agent, by, .. } => {
            let to = agent.as_ref().map(Login::as_str).or(queue.as_deref()).unwrap_or("the queue");
            changed(by.as_ref(), format!("transferred the call to {to}"))
        }
        Event::CallEnded { reason, by, hung_up_by, .. } => changed(
            by.as_ref(),
            match (by, hung_up_by) {
                (Some(_), _) => format!("ended the call ({})", human(reason.as_str())),
                (None, Some(who)) => {
                    format!("Call ended by {who} ({})", human(reason.as_str()))
                }
                (None, None) => format!("Call ended ({})", human(reason.as_str())),
            },
        ),
        Event::ChatStarted { text: Some(text), .. } => said(Tone::Inbound, None, text),
        Event::ChatStarted { text: None, .. } => changed(None, "Chat started"),
        Event::ChatMessage { text, direction: Direction::Inbound, .. } => {
            said(Tone::Inbound, None, text)
        }
        Event::ChatMessage { text, by, .. } => said(Tone::Outbound, by.as_ref(), text),
        Event::ChatHeld { until, by, .. } => {
            changed(Some(by), format!("put the chat aside until {}", clock(*until)))
        }
        Event::ChatResumed { by: Some(by), .. } => changed(Some(by), "took the chat up again"),
        Event::ChatResumed { by: None, .. } => changed(None, "The chat is back"),
        Event::ChatEnded { by: Some(by), .. } => changed(Some(by), "ended the chat"),
        Event::ChatEnded { reason: Some(reason), .. } => {
            changed(None, format!("Chat ended ({})", human(reason)))
        }
        Event::ChatEnded { .. } => changed(None, "The customer left the chat"),
        Event::TicketOpened { body, by: Some(by), .. } => said(Tone::Outbound, Some(by), body),
        Event::TicketOpened { body, .. } => said(Tone::Inbound, None, body),
        Event::TicketCommented { body, by: Some(by), .. } => said(Tone::Outbound, Some(by), body),
        Event::TicketCommented { body, .. } => said(Tone::Inbound, None, body),
        Event::TicketUpdated { status, priority, subject, tags, assignee, by, .. } => {
            let mut parts = Vec::new();
            if let Some(status) = status {
                parts.push(format!("status to {}", human(status.as_str())));
            }
            if let Some(priority) = priority {
                parts.push(format!("priority to {priority}"));
            }
            if let Some(subject) = subject {
                parts.push(format!("subject to \u{201c}{subject}\u{201d}"));
            }
            if let Some(tags) = tags {
                parts.push(format!("tags to {}", tags.join(", ")));
            }
            match assignee {
                Assignee::Unchanged => {}
                Assignee::Nobody => parts.push("assignee to nobody".to_owned()),
                Assignee::Agent(agent) => parts.push(format!("assignee to {agent}")),
            }
            let verb = if by.is_some() { "set" } else { "Set" };
            changed(by.as_ref(), format!("{verb} {}", parts.join(", ")))
        }
        Event::TicketSnoozed { until, by, .. } => {
            changed(Some(by), format!("snoozed it until {}", clock(*until)))
        }
        Event::WrappedUp { by: Some(by) } => changed(Some(by), "finished the wrap-up"),
        Event::WrappedUp { by: None } => changed(None, "Wrap-up time is over"),
        Event::Assigned { agent: Some(agent), by } if agent == by => changed(Some(by), "took it"),
        Event::Assigned { agent: Some(agent), by } => {
            changed(Some(by), format!("assigned it to {agent}"))
        }
        Event::Assigned { agent: None, by } => changed(Some(by), "put it back to the queue"),
        Event::Noted { text, by } => said(Tone::Note, Some(by), text),
        Event::Tagged { tag, by } => changed(Some(by), format!("added the tag {tag}")),
        Event::Untagged { tag, by } => changed(Some(by), format!("removed the tag {tag}")),
        Event::ContactLinked { contact, by } => changed(
            Some(by),
            format!("linked the contact {}", contact.label().unwrap_or("without a name")),
        ),
        Event::OfferAccepted { agent } => changed(Some(agent), "accepted"),
        Event::OfferRejected { agent } => changed(Some(agent), "declined the offer"),
        Event::OfferTimedOut { agent } => changed(Some(agent), "did not answer the offer in time"),
        Event::Notice { text, .. } => changed(None, text.clone()),
    }
}

/// Hours and minutes, UTC.
fn clock(at: Timestamp) -> String {
    let text = at.to_string();
    text.get(..16).map_or(text.clone(), |minutes| format!("{} UTC", minutes.replace('T', " ")))
}

/// What to call an interaction: the person, else the number, else its id there.
#[must_use]
pub fn title(row: &Interaction) -> String {
    row.contact
        .as_ref()
        .and_then(Contact::label)
        .or(row.from.as_deref())
        .map_or_else(|| format!("{} {}", row.stage.kind(), row.external_id), str::to_owned)
}

/// A duration in one short word: `8s`, `3m`, `2h`, `5d`.
#[must_use]
pub fn duration(length: Duration) -> String {
    match length.as_secs() {
        seconds @ ..60 => format!("{seconds}s"),
        seconds @ 60..3_600 => format!("{}m", seconds / 60),
        seconds @ 3_600..86_400 => format!("{}h", seconds / 3_600),
        seconds => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_one_short_word() {
        for (seconds, text) in
            [(0, "0s"), (59, "59s"), (60, "1m"), (3_599, "59m"), (3_600, "1h"), (172_800, "2d")]
        {
            assert_eq!(duration(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn what_an_agent_did_reads_on_after_the_name() {
        let ana: Login = "ana".parse().expect("a login");
        let words = describe(&Event::Assigned { agent: Some(ana.clone()), by: ana.clone() });
        assert_eq!((words.by, words.text.as_str()), (Some(ana), "took it"));
    }
}

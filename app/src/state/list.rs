//! Which interactions a list shows, and in which order.

use std::collections::BTreeMap;
use std::str::FromStr;

use domain::{Channel, Interaction, InteractionId, Login};
use protocol::View;

use super::Desk;

/// The views above the list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ListView {
    /// Assigned or offered to me.
    Mine,
    /// Nobody's.
    Unassigned,
    /// Not over.
    #[default]
    Open,
    /// Over.
    Closed,
}

impl ListView {
    /// In the order on the screen.
    pub const ALL: [Self; 4] = [Self::Mine, Self::Unassigned, Self::Open, Self::Closed];

    /// The word in the address.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Mine => "mine",
            Self::Unassigned => "unassigned",
            Self::Open => "open",
            Self::Closed => "closed",
        }
    }

    /// The words on the screen.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Mine => "Mine",
            Self::Unassigned => "Unassigned",
            Self::Open => "All open",
            Self::Closed => "Closed",
        }
    }

    /// What to ask the server for.
    #[must_use]
    pub const fn view(self) -> View {
        match self {
            Self::Mine => View::Mine,
            Self::Unassigned => View::Unassigned,
            Self::Open => View::Open,
            Self::Closed => View::Closed,
        }
    }

    fn holds(self, row: &Interaction, me: Option<&Login>) -> bool {
        let over = row.stage.is_over();
        match self {
            Self::Mine => !over && row.holder().is_some() && row.holder() == me,
            Self::Unassigned => !over && row.holder().is_none(),
            Self::Open => !over,
            Self::Closed => over,
        }
    }
}

impl FromStr for ListView {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|view| view.as_str() == text).ok_or(())
    }
}

/// What the list is narrowed to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Which view.
    pub view: ListView,
    /// Only this channel.
    pub channel: Option<Channel>,
    /// Only what has all these words.
    pub text: String,
}

/// How many each view holds.
pub type Counts = [usize; 4];

/// How many each view holds on the channel.
#[must_use]
pub fn counts(desk: &Desk, channel: Option<Channel>) -> Counts {
    let mut counts = [0; 4];
    for row in desk.rows.values().filter(|row| on(row, channel)) {
        for (count, view) in counts.iter_mut().zip(ListView::ALL) {
            *count += usize::from(view.holds(row, desk.login()));
        }
    }
    counts
}

fn on(row: &Interaction, channel: Option<Channel>) -> bool {
    channel.is_none_or(|channel| row.stage.kind().channel() == channel)
}

/// What the list shows, last changed first.
#[must_use]
pub fn select<'a>(desk: &'a Desk, filter: &Filter) -> Vec<&'a Interaction> {
    let words: Vec<String> =
        filter.text.to_lowercase().split_whitespace().map(Into::into).collect();
    let mut rows: Vec<_> = desk
        .rows
        .values()
        .filter(|row| on(row, filter.channel) && filter.view.holds(row, desk.login()))
        .filter(|row| words.is_empty() || has(row, &words))
        .collect();
    rows.sort_by(|a, b| b.updated_at.cmp(&a.updated_at).then(a.id.cmp(&b.id)));
    rows
}

/// What waits for an answer of mine, each at the version that it waits at.
#[must_use]
pub fn attention(desk: &Desk) -> BTreeMap<InteractionId, u64> {
    let Some(me) = desk.login() else { return BTreeMap::new() };
    desk.rows
        .values()
        .filter(|row| row.assignee.as_ref() == Some(me) && !row.stage.is_over())
        .filter(|row| row.waiting_since.is_some())
        .map(|row| (row.id, row.version))
        .collect()
}

fn has(row: &Interaction, words: &[String]) -> bool {
    let contact = row.contact.as_ref();
    let mut text = String::new();
    let fields = [
        contact.and_then(|contact| contact.name.as_deref()),
        contact.and_then(|contact| contact.email.as_deref()),
        contact.and_then(|contact| contact.phone.as_deref()),
        row.subject.as_deref(),
        row.from.as_deref(),
        row.queue.as_deref(),
        row.assignee.as_ref().map(Login::as_str),
        Some(&row.preview),
        Some(&row.external_id),
    ];
    for field in fields.into_iter().flatten().chain(row.tags.iter().map(String::as_str)) {
        text.push_str(&field.to_lowercase());
        text.push('\n');
    }
    words.iter().all(|word| text.contains(word.as_str()))
}

#[cfg(test)]
mod tests {
    use domain::{Contact, Event, EventId, Kind, Recorded, Role, Timestamp};
    use uuid::Uuid;

    use super::super::{Input, reduce};
    use super::*;

    fn ticket(desk: &mut Desk, name: &str, at: i64) -> InteractionId {
        let id = InteractionId::derive("test", Kind::Ticket, name);
        let opened = Event::TicketOpened {
            ticket: name.into(),
            subject: format!("Invoice {name}"),
            body: "The SUM is wrong".into(),
            priority: domain::Priority::High,
            requester: Contact { email: Some("zoe@example.com".into()), ..Contact::default() },
            queue: None,
            tags: vec!["billing".into()],
            by: None,
        };
        let recorded = Recorded {
            occurred_at: None,
            id: EventId(Uuid::nil()),
            cause: Uuid::nil(),
            at: Timestamp::from_millis(at),
            interaction_id: Some(id),
            version: Some(1),
            trace: None,
            integration: None,
            distribution: None,
            event: opened,
        };
        let _ = reduce(desk, Input::Event(Box::new(recorded)));
        id
    }

    #[test]
    fn views_count_and_hold_what_they_say() {
        let mut desk = Desk::default();
        let older = ticket(&mut desk, "7", 1);
        let newer = ticket(&mut desk, "8", 2);
        assert_eq!(counts(&desk, None), [0, 2, 2, 0]);
        assert_eq!(counts(&desk, Some(Channel::Voice)), [0; 4]);
        let shown: Vec<_> =
            select(&desk, &Filter::default()).into_iter().map(|row| row.id).collect();
        assert_eq!(shown, [newer, older], "last changed first");
    }

    #[test]
    fn what_waits_for_me_calls_and_what_i_answered_does_not() {
        let mut desk = Desk::default();
        let _ = reduce(
            &mut desk,
            Input::Me(protocol::Principal {
                id: Uuid::nil(),
                login: "ana".parse().expect("a login"),
                name: "Ana".into(),
                role: Role::Agent,
            }),
        );
        let mine = ticket(&mut desk, "7", 1);
        let _ = ticket(&mut desk, "8", 2);
        assert!(attention(&desk).is_empty(), "nobody's");
        for row in desk.rows.values_mut() {
            let me = if row.id == mine { "ana" } else { "ben" };
            row.assignee = me.parse().ok();
        }
        assert_eq!(attention(&desk), BTreeMap::from([(mine, 1)]));
        desk.rows.get_mut(&mine).expect("there").waiting_since = None;
        assert!(attention(&desk).is_empty(), "their turn");
    }

    #[test]
    fn queues_are_named_once_and_in_order() {
        let mut desk = Desk::default();
        for (name, queue) in [("7", "support"), ("8", "billing"), ("9", "support"), ("10", "")] {
            let id = ticket(&mut desk, name, 1);
            let queue = Some(queue.to_owned()).filter(|queue| !queue.is_empty());
            desk.rows.get_mut(&id).expect("there").queue = queue;
        }
        assert_eq!(desk.queues(), ["billing", "support"]);
    }

    #[test]
    fn every_word_of_a_search_has_to_be_somewhere() {
        let mut desk = Desk::default();
        let _ = ticket(&mut desk, "7", 1);
        let found =
            |text: &str| select(&desk, &Filter { text: text.into(), ..Filter::default() }).len();
        assert_eq!(found("zoe sum BILLING"), 1);
        assert_eq!(found("invoice 8"), 0);
        assert_eq!(found("  "), 1);
    }
}

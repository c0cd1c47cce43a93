//! Inputs and what they change.

use std::collections::{BTreeSet, VecDeque};

use domain::{CommandId, EventId, Interaction, InteractionId, Recorded, Timestamp, apply};
use protocol::{AgentView, InteractionDetail, Principal, ReplyError, Signal};

use super::outgoing::{self, Outgoing};
use super::{Desk, ENTRIES_MAX, NOTICES_MAX, ROWS_MAX, TAKEN_MAX, THREADS_MAX, Thread, presence};

/// So many interactions are looked at one by one after continuity was lost;
/// more are let go until they show again.
const RELOADS_MAX: usize = 50;

/// What arrives.
#[derive(Clone, Debug)]
pub enum Input {
    /// Who is signed in.
    Me(Principal),
    /// Everybody.
    Agents(Vec<AgentView>),
    /// A page of a snapshot.
    List(Vec<Interaction>),
    /// All that is open, read after continuity was lost: what was open before
    /// and isn't among it has to be looked at.
    Open(Vec<Interaction>),
    /// What is known is of another journal: a snapshot of this one follows.
    Anew,
    /// This one is on the screen from here on.
    Show(Option<InteractionId>),
    /// An interaction's snapshot.
    Detail(Box<InteractionDetail>),
    /// There is no such interaction for this agent.
    Missing(InteractionId),
    /// An event of the socket.
    Event(Box<Recorded>),
    /// A signal of the socket.
    Signal {
        /// What.
        signal: Signal,
        /// When it was heard.
        now: Timestamp,
    },
    /// A command was given.
    Given(Outgoing),
    /// A command is on its way again.
    Resent(CommandId),
    /// A command's answer.
    Answered {
        /// The command.
        id: CommandId,
        /// None if it was done.
        error: Option<ReplyError>,
    },
    /// A failed command is not wanted any more.
    Dismiss(CommandId),
    /// Time has passed: signals fade.
    Tick(Timestamp),
}

/// What has to be done because of an input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// There is a hole: read this interaction's snapshot.
    Load(InteractionId),
}

/// Takes one input in.
pub fn reduce(desk: &mut Desk, input: Input) -> Vec<Effect> {
    let mut effects = Vec::new();
    match input {
        Input::Me(me) => desk.me = Some(me),
        Input::Agents(agents) => desk.agents = agents,
        Input::List(rows) => {
            for row in rows {
                put_row(desk, row);
            }
            bound_rows(desk);
        }
        Input::Anew => {
            desk.rows.clear();
            desk.threads.clear();
            desk.notices.clear();
        }
        Input::Open(rows) => put_open(desk, rows, &mut effects),
        Input::Show(id) => show(desk, id),
        Input::Detail(detail) => put_detail(desk, *detail, &mut effects),
        Input::Missing(id) => {
            desk.rows.remove(&id);
            desk.threads.retain(|thread| thread.id != id);
            desk.missing = Some(id);
        }
        Input::Event(recorded) => hear(desk, *recorded, &mut effects),
        Input::Signal { signal, now } => presence::signal(desk, signal, now),
        Input::Given(command) => outgoing::give(desk, command),
        Input::Resent(id) => outgoing::resend(desk, id),
        Input::Answered { id, error } => outgoing::answer(desk, id, error),
        Input::Dismiss(id) => desk.outgoing.retain(|one| one.id != id),
        Input::Tick(now) => presence::fade(desk, now),
    }
    effects
}

/// A snapshot never takes back what events have brought since.
fn put_row(desk: &mut Desk, row: Interaction) {
    let newer = desk.rows.get(&row.id).is_none_or(|known| known.version <= row.version);
    if newer {
        desk.rows.insert(row.id, row);
    }
}

fn put_open(desk: &mut Desk, rows: Vec<Interaction>, effects: &mut Vec<Effect>) {
    let found: BTreeSet<_> = rows.iter().map(|row| row.id).collect();
    let lost = desk.rows.values().filter(|row| !row.stage.is_over() && !found.contains(&row.id));
    let mut lost: Vec<_> = lost.map(|row| row.id).collect();
    for id in lost.split_off(lost.len().min(RELOADS_MAX)) {
        desk.rows.remove(&id);
    }
    effects.extend(lost.into_iter().map(Effect::Load));
    for row in rows {
        put_row(desk, row);
    }
    bound_rows(desk);
}

fn show(desk: &mut Desk, id: Option<InteractionId>) {
    desk.open = id;
    if let Some(at) = desk.threads.iter().position(|thread| Some(thread.id) == id)
        && let Some(thread) = desk.threads.remove(at)
    {
        desk.threads.push_front(thread);
    }
}

/// Lets go of what was over longest ago, then of what lay still longest; never
/// of an open timeline.
fn bound_rows(desk: &mut Desk) {
    while desk.rows.len() > ROWS_MAX {
        let last = desk
            .rows
            .values()
            .filter(|row| !desk.threads.iter().any(|thread| thread.id == row.id))
            .min_by_key(|row| (!row.stage.is_over(), row.updated_at))
            .map(|row| row.id);
        match last {
            Some(id) => desk.rows.remove(&id),
            None => return,
        };
    }
}

fn put_detail(desk: &mut Desk, detail: InteractionDetail, effects: &mut Vec<Effect>) {
    let InteractionDetail { interaction, timeline, related, .. } = detail;
    let id = interaction.id;
    if desk.missing == Some(id) {
        desk.missing = None;
    }
    let known = desk.threads.iter().position(|known| known.id == id);
    if known.is_some() || desk.open == Some(id) {
        let mut thread = Thread {
            id,
            version: interaction.version,
            entries: VecDeque::from(timeline),
            related: related.clone(),
        };
        // What came by the socket while the snapshot was on its way.
        let known = known.and_then(|at| desk.threads.remove(at));
        for entry in known.into_iter().flat_map(|known| known.entries) {
            if entry.version == Some(thread.version + 1) {
                thread.version += 1;
                thread.entries.push_back(entry);
            }
        }
        if desk.rows.get(&id).is_some_and(|row| row.version > thread.version) {
            effects.push(Effect::Load(id));
        }
        bound(&mut thread.entries, ENTRIES_MAX);
        outgoing::seen(desk, &thread);
        if desk.open == Some(id) {
            desk.threads.push_front(thread);
        } else {
            desk.threads.push_back(thread);
        }
        desk.threads.truncate(THREADS_MAX);
    }
    put_row(desk, interaction);
    for row in related {
        put_row(desk, row);
    }
    bound_rows(desk);
}

fn hear(desk: &mut Desk, recorded: Recorded, effects: &mut Vec<Effect>) {
    let (Some(id), Some(version)) = (recorded.interaction_id, recorded.version) else {
        taken(desk, recorded.id);
        desk.notices.push_front(recorded);
        desk.notices.truncate(NOTICES_MAX);
        return;
    };
    outgoing::caused(desk, recorded.cause);
    let mut hole = false;
    let known = desk.rows.get(&id).map_or(0, |row| row.version);
    if version == known + 1 {
        if let Some(row) = apply(desk.rows.remove(&id), &recorded) {
            desk.rows.insert(id, row);
            bound_rows(desk);
            taken(desk, recorded.id);
        }
        // Whoever has spoken has stopped typing.
        presence::spoke(desk, id, &recorded.event);
    } else if version > known {
        hole = true;
    }
    if let Some(thread) = desk.threads.iter_mut().find(|thread| thread.id == id) {
        if version == thread.version + 1 {
            thread.version = version;
            let twice = thread.entries.iter().any(|entry| entry.id == recorded.id);
            desk.shown_twice += u64::from(twice);
            thread.entries.push_back(recorded);
            bound(&mut thread.entries, ENTRIES_MAX);
        } else if version > thread.version {
            hole = true;
        }
    }
    if hole {
        effects.push(Effect::Load(id));
    }
}

/// For the loss auditor: the versions should let no event in twice.
fn taken(desk: &mut Desk, id: EventId) {
    desk.shown_twice += u64::from(desk.taken.contains(&id));
    desk.taken.push_back(id);
    bound(&mut desk.taken, TAKEN_MAX);
}

fn bound<T>(entries: &mut VecDeque<T>, most: usize) {
    while entries.len() > most {
        entries.pop_front();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use domain::{Contact, Direction, Event, Kind, Stage, TicketStatus};
    use uuid::Uuid;

    use super::*;

    fn id(name: &str) -> InteractionId {
        InteractionId::derive("test", Kind::Chat, name)
    }

    fn event(name: &str, version: u64, event: Event) -> Input {
        Input::Event(Box::new(recorded(name, version, event)))
    }

    fn recorded(name: &str, version: u64, event: Event) -> Recorded {
        Recorded {
            occurred_at: None,
            id: EventId(Uuid::from_u128(u128::from(version))),
            cause: Uuid::from_u128(1_000 + u128::from(version)),
            at: Timestamp::from_millis(i64::try_from(version).expect("small") * 1_000),
            interaction_id: Some(id(name)),
            version: Some(version),
            trace: None,
            integration: None,
            distribution: None,
            event,
        }
    }

    fn started() -> Event {
        Event::ChatStarted {
            chat: "1".into(),
            contact: Contact { name: Some("Zoe".into()), ..Contact::default() },
            queue: None,
            text: Some("hello".into()),
            agent: None,
            deadline: None,
        }
    }

    fn says(text: &str) -> Event {
        Event::ChatMessage {
            chat: "1".into(),
            text: text.into(),
            message: None,
            direction: Direction::Inbound,
            by: None,
        }
    }

    fn detail(version: u64) -> InteractionDetail {
        let mut timeline = vec![recorded("a", 1, started())];
        timeline.extend((2..=version).map(|n| recorded("a", n, says(&n.to_string()))));
        let interaction = timeline.iter().fold(None, apply).expect("a chat");
        InteractionDetail { interaction, timeline, related: Vec::new(), streams: BTreeMap::new() }
    }

    #[test]
    fn the_next_version_is_applied_and_a_repeat_is_dropped() {
        let mut desk = Desk::default();
        assert_eq!(reduce(&mut desk, event("a", 1, started())), []);
        assert_eq!(reduce(&mut desk, event("a", 2, says("two"))), []);
        assert_eq!(reduce(&mut desk, event("a", 2, says("again"))), []);
        assert_eq!(desk.rows[&id("a")].preview, "two");
        assert_eq!(desk.rows[&id("a")].version, 2);
    }

    #[test]
    fn a_hole_asks_for_a_snapshot_and_changes_nothing() {
        let mut desk = Desk::default();
        assert_eq!(reduce(&mut desk, event("a", 3, says("x"))), [Effect::Load(id("a"))]);
        assert!(desk.rows.is_empty());
        let _ = reduce(&mut desk, event("a", 1, started()));
        assert_eq!(reduce(&mut desk, event("a", 3, says("x"))), [Effect::Load(id("a"))]);
        assert_eq!(desk.rows[&id("a")].version, 1);
    }

    #[test]
    fn a_snapshot_that_is_older_than_the_events_takes_nothing_back() {
        let mut desk = Desk::default();
        let _ = reduce(&mut desk, Input::Show(Some(id("a"))));
        let _ = reduce(&mut desk, Input::Detail(Box::new(detail(2))));
        let _ = reduce(&mut desk, event("a", 3, says("three")));
        let effects = reduce(&mut desk, Input::Detail(Box::new(detail(2))));
        assert_eq!(effects, []);
        assert_eq!(desk.rows[&id("a")].preview, "three");
        assert_eq!(desk.thread(id("a")).expect("open").entries.len(), 3);
    }

    #[test]
    fn a_timeline_behind_its_row_is_read_again() {
        let mut desk = Desk::default();
        let _ = reduce(&mut desk, event("a", 1, started()));
        let _ = reduce(&mut desk, event("a", 2, says("two")));
        let _ = reduce(&mut desk, event("a", 3, says("three")));
        let _ = reduce(&mut desk, Input::Show(Some(id("a"))));
        let effects = reduce(&mut desk, Input::Detail(Box::new(detail(2))));
        assert_eq!(effects, [Effect::Load(id("a"))]);
        assert_eq!(reduce(&mut desk, Input::Detail(Box::new(detail(3)))), []);
        assert_eq!(desk.thread(id("a")).expect("open").version, 3);
    }

    #[test]
    fn timelines_and_rows_stay_within_their_bounds() {
        let mut desk = Desk::default();
        let _ = reduce(&mut desk, Input::Show(Some(id("a"))));
        let _ = reduce(&mut desk, Input::Detail(Box::new(detail(1))));
        for version in 2..=ENTRIES_MAX as u64 + 50 {
            let _ = reduce(&mut desk, event("a", version, says("x")));
        }
        assert_eq!(desk.thread(id("a")).expect("open").entries.len(), ENTRIES_MAX);
        for n in 0..ROWS_MAX + 20 {
            let _ = reduce(&mut desk, event(&n.to_string(), 1, started()));
        }
        assert_eq!(desk.rows.len(), ROWS_MAX);
        assert!(desk.rows.contains_key(&id("a")), "an open timeline keeps its row");
    }

    #[test]
    fn what_is_over_is_let_go_first() {
        let mut desk = Desk::default();
        let mut over = detail(1).interaction;
        over.id = id("over");
        over.stage = Stage::Ticket(TicketStatus::Closed);
        over.updated_at = Timestamp::from_millis(9_999_999);
        let _ = reduce(&mut desk, Input::List(vec![over]));
        for n in 0..ROWS_MAX {
            let _ = reduce(&mut desk, event(&n.to_string(), 1, started()));
        }
        assert!(!desk.rows.contains_key(&id("over")));
    }

    #[test]
    fn what_was_open_and_is_not_in_a_new_snapshot_is_looked_at() {
        let mut desk = Desk::default();
        let _ = reduce(&mut desk, event("a", 1, started()));
        let _ = reduce(&mut desk, event("b", 1, started()));
        let rows = vec![desk.rows[&id("a")].clone()];
        assert_eq!(reduce(&mut desk, Input::Open(rows)), [Effect::Load(id("b"))]);
        assert_eq!(reduce(&mut desk, Input::Detail(Box::new(detail(1)))), []);
        assert!(desk.threads.is_empty(), "only what is on the screen gets a timeline");
    }

    #[test]
    fn what_another_journal_told_does_not_stand_in_the_way_of_this_one() {
        let mut desk = Desk::default();
        let _ = reduce(&mut desk, Input::Show(Some(id("a"))));
        let _ = reduce(&mut desk, Input::Detail(Box::new(detail(3))));
        let _ = reduce(&mut desk, Input::Anew);
        let earlier = Input::Detail(Box::new(detail(2)));
        assert_eq!(reduce(&mut desk, earlier), [], "nothing more to read");
        assert_eq!(desk.rows[&id("a")].version, 2);
        assert_eq!(desk.thread(id("a")).expect("open").version, 2);
        assert_eq!(reduce(&mut desk, event("a", 3, says("another"))), []);
        assert_eq!(desk.rows[&id("a")].version, 3);
    }

    #[test]
    fn what_is_missing_is_gone_until_it_is_seen_again() {
        let mut desk = Desk::default();
        let _ = reduce(&mut desk, Input::Show(Some(id("a"))));
        let _ = reduce(&mut desk, Input::Detail(Box::new(detail(1))));
        let _ = reduce(&mut desk, Input::Missing(id("a")));
        assert!(desk.rows.is_empty() && desk.threads.is_empty());
        assert_eq!(desk.missing, Some(id("a")));
        let _ = reduce(&mut desk, Input::Show(Some(id("a"))));
        let _ = reduce(&mut desk, Input::Detail(Box::new(detail(1))));
        assert_eq!(desk.missing, None);
    }
}

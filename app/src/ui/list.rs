//! The list: views with counts, and a row for each interaction.

use std::collections::BTreeSet;
use std::ops::Range;

use domain::{Channel, Interaction, InteractionId, Stage, TicketStatus};
use leptos::prelude::*;

use super::erased::{Key, each, effect};
use super::icons::{ChannelIcon, Icon, PLUS};
use super::wiring::{address, wiring};
use crate::browser;
use crate::state::{Filter, ListView, counts, select, title};

/// A list under a moving pointer keeps its order; after this many seconds of
/// stillness it takes new rows in.
const STILL_SECONDS: u64 = 3;
const SCROLLER: &str = ".list-scroll";
const ROWS: &str = ".rows";
/// A row's height, as `.row` has it in style/list.css.
const ROW_PX: i32 = 56;
/// So many rows are drawn above and below those in sight.
const ROWS_AROUND: usize = 8;

#[component]
pub(super) fn ListPane() -> impl IntoView {
    let ui = wiring();
    let counts = Memo::new(move |_| {
        let channel = ui.filter.with(|filter| filter.channel);
        ui.desk.with(|desk| counts(desk, channel))
    });
    view! {
        <section class="list" aria-label="Interactions">
            <nav class="views" aria-label="Views">
                {ListView::ALL
                    .into_iter()
                    .enumerate()
                    .map(|(index, view)| {
                        let href = move || ui.filter.with(|filter| address(None, view, filter.channel));
                        let current =
                            move || ui.filter.with(|filter| (filter.view == view).then_some("page"));
                        view! {
                            <a href=href aria-current=current>
                                {view.label()}
                                <span class="count">
                                    {move || counts.get().get(index).copied().unwrap_or(0).to_string()}
                                </span>
                            </a>
                        }
                        .into_any()
                    })
                    .collect_view()}
            </nav>
            <ChannelTabs/>
            <Rows/>
        </section>
    }
    .into_any()
}

/// Which channels are listed.
#[component]
fn ChannelTabs() -> impl IntoView {
    let ui = wiring();
    let tab = move |channel: Option<Channel>, label: &'static str| {
        let href = move || ui.filter.with(|filter| address(None, filter.view, channel));
        let current =
            move || ui.filter.with(|filter| (filter.channel == channel).then_some("page"));
        view! { <a href=href aria-current=current>{label}</a> }
    };
    view! {
        <nav class="channel-tabs" aria-label="Channel">
            {tab(None, "All")} {tab(Some(Channel::Voice), "Calls")}
            {tab(Some(Channel::Chat), "Chats")} {tab(Some(Channel::Tickets), "Tickets")}
            <button class="icon-button" type="button" title="Open a ticket (c)"
                data-testid="new-ticket" on:click=|_| browser::open_dialog("#new-ticket")>
                <Icon d=PLUS/>
                <span class="hidden">"Open a ticket"</span>
            </button>
        </nav>
    }
    .into_any()
}

/// Which of the rows are drawn: those in sight, and some around.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Sight {
    /// How far the list is scrolled, and how high it is, in pixels.
    top: i32,
    height: i32,
}

impl Sight {
    /// As good as any until the browser has measured it.
    const FIRST: Self = Self { top: 0, height: 40 * ROW_PX };

    fn measured() -> Self {
        let (top, height) = browser::sight_of(SCROLLER);
        // By whole rows: less than that changes nothing.
        let whole = |px: i32| px / ROW_PX * ROW_PX;
        Self { top: whole(top), height: whole(height) + ROW_PX }
    }

    fn rows(self, len: usize) -> Range<usize> {
        let at = |px: i32| usize::try_from(px / ROW_PX).unwrap_or(0);
        let first = at(self.top).saturating_sub(ROWS_AROUND).min(len);
        first..(at(self.top + self.height) + 1 + ROWS_AROUND).min(len).max(first)
    }
}

#[component]
fn Rows() -> impl IntoView {
    let ui = wiring();
    let all: Memo<Vec<InteractionId>> = Memo::new(move |_| {
        ui.filter.with(|filter| {
            ui.desk.with(|desk| select(desk, filter).into_iter().map(|row| row.id).collect())
        })
    });
    let shown = ui.shown;
    shown.set(all.get_untracked());
    let moved_at = StoredValue::new(None);
    let is_still = move || {
        let moving = moved_at
            .get_value()
            .is_some_and(|at| ui.now.get_untracked().since(at).as_secs() < STILL_SECONDS);
        !moving && browser::scroll_of(SCROLLER).0 <= 8
    };
    Effect::new(move |before: Option<Filter>| {
        let filter = ui.filter.get();
        // Looked at again each second: a pointer comes to rest.
        ui.now.track();
        let all = all.get();
        if before.as_ref() != Some(&filter) || is_still() {
            if shown.with_untracked(|shown| *shown != all) {
                shown.set(all);
            }
        } else {
            let there: BTreeSet<_> = all.iter().copied().collect();
            if shown.with_untracked(|shown| shown.iter().any(|id| !there.contains(id))) {
                shown.update(|shown| shown.retain(|id| there.contains(id)));
            }
        }
        filter
    });
    let new = Memo::new(move |_| {
        shown.with(|shown| {
            let shown: BTreeSet<_> = shown.iter().copied().collect();
            all.with(|all| all.iter().filter(|id| !shown.contains(id)).count())
        })
    });
    let show_new = move |_| {
        moved_at.set_value(None);
        shown.set(all.get_untracked());
        browser::scroll_to_start(SCROLLER);
    };
    let sight = RwSignal::new(Sight::FIRST);
    let look = move || {
        let now = Sight::measured();
        if sight.get_untracked() != now {
            sight.set(now);
        }
    };
    let drawn = Memo::new(move |_| {
        let sight = sight.get();
        shown.with(|shown| shown.get(sight.rows(shown.len())).unwrap_or_default().to_vec())
    });
    // The room of those that aren't drawn.
    effect(move || {
        let sight = sight.get();
        let (before, len) = shown.with(|shown| (sight.rows(shown.len()).start, shown.len()));
        let px = |rows: usize| i32::try_from(rows).unwrap_or(0) * ROW_PX;
        browser::pad(ROWS, px(before), px(len));
    });
    effect(move || {
        look();
        let resized = window_event_listener(leptos::ev::resize, move |_| look());
        on_cleanup(move || resized.remove());
    });
    // The one that is open is in sight.
    effect(move || {
        let selected = ui.selected.get();
        let at = shown.with_untracked(|shown| shown.iter().position(|id| Some(*id) == selected));
        if let Some(at) = at.and_then(|at| i32::try_from(at).ok()) {
            browser::scroll_into_sight(SCROLLER, at * ROW_PX, ROW_PX);
        }
    });
    view! {
        <div class="list-scroll" on:scroll=move |_| look()
            on:pointermove=move |_| moved_at.set_value(Some(ui.now.get_untracked()))
            on:pointerleave=move |_| moved_at.set_value(None)>
            {move || {
                (new.get() > 0).then(|| {
                    view! {
                        <button class="new-pill" type="button" on:click=show_new>
                            {move || format!("{} new", new.get())}
                        </button>
                    }
                    .into_any()
                })
            }}
            <ul class="rows">
                {each(
                    move || drawn.get(),
                    |id| Key::Id(id.0),
                    |id| view! { <Row id=id/> }.into_any(),
                )}
            </ul>
            {move || {
                shown.with(Vec::is_empty).then(|| {
                    let text = ui.filter.with(empty);
                    view! { <p class="empty">{text}</p> }.into_any()
                })
            }}
        </div>
    }
    .into_any()
}

fn empty(filter: &Filter) -> &'static str {
    match filter {
        Filter { text, .. } if !text.trim().is_empty() => "Nothing here has these words.",
        Filter { view: ListView::Mine, .. } => "You have nothing to do. Well done.",
        Filter { view: ListView::Unassigned, .. } => "Nobody is waiting for an agent.",
        Filter { view: ListView::Open, .. } => "Nothing is open.",
        Filter { view: ListView::Closed, .. } => "Nothing is closed yet.",
    }
}

/// A state's word, and its color: `act` wants us, `wait` waits for them.
pub(super) fn chip(row: &Interaction) -> (&'static str, String) {
    use domain::{CallState, ChatState};
    let word = row.stage.as_str().replace('_', " ");
    let tone = match row.stage {
        _ if row.stage.is_over() => "done",
        Stage::Call(CallState::Queued | CallState::Ringing | CallState::Connecting)
        | Stage::Chat(ChatState::Queued | ChatState::Offered)
        | Stage::Ticket(TicketStatus::New) => "act",
        Stage::Call(CallState::InProgress) => "talk",
        Stage::Chat(ChatState::OnHold)
        | Stage::Call(CallState::OnHold | CallState::WrapUp)
        | Stage::Ticket(TicketStatus::Pending | TicketStatus::Snoozed) => "wait",
        _ if row.waiting_since.is_some() => "act",
        _ => "wait",
    };
    (tone, word)
}

#[component]
fn Row(id: InteractionId) -> impl IntoView {
    let ui = wiring();
    let row = ui.row(id);
    let href = move || ui.filter.with(|filter| address(Some(id), filter.view, filter.channel));
    let current = move || (ui.selected.get() == Some(id)).then_some("true");
    let unread = Memo::new(move |_| ui.unread.with(|unread| unread.contains(&id)));
    let viewers = Memo::new(move |_| {
        ui.desk.with(|desk| {
            desk.viewing
                .iter()
                .filter(|one| one.interaction == id)
                .filter_map(|one| one.agent.as_ref().map(|agent| desk.name_of(agent)))
                .collect::<Vec<_>>()
        })
    });
    let channel = row
        .with_untracked(|row| row.as_ref().map(|row| row.stage.kind().channel()))
        .unwrap_or(Channel::Tickets);
    let waiting = move || {
        row.with(|row| {
            let since = row.as_ref()?.waiting_since?;
            let late = ui.now.get().since(since).as_secs() >= 600;
            let waiting = view! {
                <span class="waiting" class:late=late title="Waiting for us">{ui.ago(since)}</span>
            };
            Some(waiting.into_any())
        })
    };
    let age = move || {
        row.with(|row| {
            let row = row.as_ref()?;
            row.waiting_since
                .is_none()
                .then(|| view! { <span class="age">{ui.ago(row.updated_at)}</span> }.into_any())
        })
    };
    let preview = move || {
        row.with(|row| {
            let row = row.as_ref()?;
            Some(match &row.subject {
                Some(subject) => subject.clone(),
                None if !row.preview.is_empty() => row.preview.clone(),
                None => row.queue.clone().unwrap_or_else(|| row.stage.kind().to_string()),
            })
        })
    };
    let priority = move || {
        row.with(|row| {
            row.as_ref()?.priority.filter(|priority| *priority >= domain::Priority::High).map(
                |priority| {
                    let class = format!("chip priority-{priority}");
                    view! { <span class=class>{priority.as_str()}</span> }.into_any()
                },
            )
        })
    };
    let state = move || {
        row.with(|row| {
            row.as_ref().map(chip).map(|(tone, word)| {
                view! { <span class=format!("chip chip-{tone}")>{word}</span> }.into_any()
            })
        })
    };
    let holder = move || {
        row.with(|row| {
            let holder = row.as_ref()?.holder()?.clone();
            let name = ui.desk.with(|desk| match desk.login() {
                Some(me) if *me == holder => "me".to_owned(),
                _ => desk.name_of(&holder),
            });
            Some(view! { <span class="holder">{name}</span> }.into_any())
        })
    };
    view! {
        <li>
            <a class="row" class:unread=unread href=href aria-current=current data-testid="row" data-id=id.to_string()
                data-channel=channel.as_str()>
                <ChannelIcon channel=channel/>
                <span class="row-main">
                    <span class="row-line">
                        <span class="row-title">
                            {move || unread.get().then(|| view! {
                                <span class="dot" role="img" aria-label="New"></span>
                            }.into_any())}
                            {move || row.with(|row| row.as_ref().map(title))}
                        </span>
                        {move || {
                            let names = viewers.get();
                            (!names.is_empty()).then(|| {
                                let title = format!("{} looking", names.join(", "));
                                view! { <span class="viewers" title=title>{names.len()}</span> }.into_any()
                            })
                        }}
                        {move || waiting()}
                        {move || age()}
                    </span>
                    <span class="row-line">
                        <span class="row-preview">{move || preview()}</span>
                        {move || priority()}
                        {move || state()}
                        {move || holder()}
                    </span>
                </span>
            </a>
        </li>
    }
    .into_any()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_in_sight_are_drawn_and_some_around_and_never_too_many() {
        let sight = Sight { top: 100 * ROW_PX, height: 10 * ROW_PX };
        assert_eq!(sight.rows(500), 92..119);
        assert_eq!(sight.rows(105), 92..105);
        assert_eq!(sight.rows(3), 3..3);
        assert_eq!(Sight { top: -20, ..sight }.rows(500), 0..18);
        assert_eq!(Sight::FIRST.rows(0), 0..0);
    }
}

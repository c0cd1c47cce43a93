//! The thread: who it is, what can be done, everything that was said.

use std::time::Duration;

use domain::InteractionId;
use leptos::prelude::*;
use protocol::Signal as WireSignal;

use super::composer::Composer;
use super::controls::Controls;
use super::entries::Timeline;
use super::erased::live;
use super::failures::Failures;
use super::icons::{BACK, ChannelIcon, INFO, Icon};
use super::list::chip;
use super::wiring::{address, wiring};
use crate::socket::Status;
use crate::state::title;

#[component]
pub(super) fn ThreadPane() -> impl IntoView {
    let ui = wiring();
    let current = ui.current();
    let shown = Memo::new(move |_| current.with(|row| row.as_ref().map(|row| row.id)));
    viewing();
    view! {
        <main class="thread-pane">
            {move || match (shown.get(), ui.selected.get()) {
                (Some(id), _) => view! { <ThreadOf id=id/> }.into_any(),
                (None, Some(id)) => view! { <Absent id=id/> }.into_any(),
                (None, None) => {
                    view! {
                        <p class="empty">"Pick something from the list. "<kbd>"j"</kbd>" and "
                        <kbd>"k"</kbd>" move through it."</p>
                    }
                        .into_any()
                }
            }}
        </main>
    }
    .into_any()
}

/// Tells colleagues what is looked at, for as long as it is.
fn viewing() {
    let ui = wiring();
    let say = move |interaction_id, viewing| {
        ui.signal(WireSignal::Viewing { interaction_id, agent: None, viewing });
    };
    Effect::new(move |before: Option<Option<InteractionId>>| {
        let now = ui.selected.get();
        let live = matches!(ui.status.get(), Status::Live(_) | Status::Blocked);
        if let Some(before) = before.flatten().filter(|before| Some(*before) != now) {
            say(before, false);
        }
        if let Some(now) = now.filter(|now| live && before != Some(Some(*now))) {
            say(now, true);
        }
        now.filter(|_| live)
    });
    Effect::new(move |_| {
        let again = set_interval_with_handle(
            move || {
                if let Some(now) = ui.selected.get_untracked() {
                    say(now, true);
                }
            },
            Duration::from_secs(20),
        );
        on_cleanup(move || {
            if let Ok(again) = again {
                again.clear();
            }
        });
    });
}

#[component]
fn Absent(id: InteractionId) -> impl IntoView {
    let ui = wiring();
    live(move || {
        if ui.desk.with(|desk| desk.missing == Some(id)) {
            view! {
                <p class="empty" data-testid="error">
                    "There is nothing here, or it is not yours to see. "
                    <a href="/inbox">"Back to the inbox"</a>
                </p>
            }
            .into_any()
        } else {
            view! { <p class="loading">"Loading\u{2026}"</p> }.into_any()
        }
    })
}

#[component]
fn ThreadOf(id: InteractionId) -> impl IntoView {
    let ui = wiring();
    let row = ui.row(id);
    let back = move || ui.filter.with(|filter| address(None, filter.view, filter.channel));
    let channel = row.with_untracked(|row| row.as_ref().map(|row| row.stage.kind().channel()));
    let state = move || {
        row.with(|row| {
            row.as_ref().map(chip).map(|(tone, word)| {
                view! { <span class=format!("chip chip-{tone}")>{word}</span> }.into_any()
            })
        })
    };
    let under = move || {
        row.with(|row| {
            let row = row.as_ref()?;
            row.subject.clone().or_else(|| match (&row.from, &row.to) {
                (Some(from), Some(to)) => Some(format!("{from} \u{2192} {to}")),
                _ => row.queue.clone(),
            })
        })
    };
    view! {
        <article class="thread" data-testid="thread" data-id=id.to_string()>
            <header class="thread-head">
                <a class="icon-button back" href=back aria-label="Back to the list">
                    <Icon d=BACK/>
                </a>
                {channel.map(|channel| view! { <ChannelIcon channel=channel/> }.into_any())}
                <div class="thread-title">
                    <h1>{move || row.with(|row| row.as_ref().map(title))}</h1>
                    <p>{move || under()}</p>
                </div>
                {move || state()}
                <Viewers id=id/>
                <button class="icon-button drawer-toggle" type="button" title="Details"
                    on:click=move |_| ui.drawer.update(|open| *open = !*open)>
                    <Icon d=INFO/>
                    <span class="hidden">"Details"</span>
                </button>
            </header>
            <Controls/>
            <Failures id=id/>
            <Timeline id=id/>
            <Typing id=id/>
            <Composer id=id/>
        </article>
    }
    .into_any()
}

#[component]
fn Viewers(id: InteractionId) -> impl IntoView {
    let ui = wiring();
    let names = Memo::new(move |_| {
        ui.desk.with(|desk| {
            desk.viewing
                .iter()
                .filter(|one| one.interaction == id)
                .filter_map(|one| one.agent.as_ref().map(|agent| desk.name_of(agent)))
                .collect::<Vec<_>>()
        })
    });
    live(move || {
        let names = names.get();
        (!names.is_empty()).then(|| {
            view! {
                <span class="thread-viewers">
                    <span class="dot"></span>
                    {format!("{} looking", names.join(", "))}
                </span>
            }
            .into_any()
        })
    })
}

#[component]
fn Typing(id: InteractionId) -> impl IntoView {
    let ui = wiring();
    let names = Memo::new(move |_| {
        ui.desk.with(|desk| {
            desk.typing
                .iter()
                .filter(|one| one.interaction == id)
                .map(|one| match &one.agent {
                    Some(agent) => desk.name_of(agent),
                    None => desk.rows.get(&id).map_or_else(|| "Customer".into(), title),
                })
                .collect::<Vec<_>>()
        })
    });
    view! {
        <p class="typing" role="status" data-testid="typing">
            {move || {
                let names = names.get();
                (!names.is_empty()).then(|| format!("{} is writing\u{2026}", names.join(", ")))
            }}
        </p>
    }
    .into_any()
}

//! The call bar, and the offers that wait for an answer.

use domain::{AgentCommand, CallState, Interaction, InteractionId, Stage};
use leptos::prelude::*;

use super::controls::{ActionButton, simple};
use super::erased::{Key, each, live};
use super::icons::ChannelIcon;
use super::transfer::TransferButton;
use super::wiring::{address, wiring};
use crate::state::{Action, actions, title};

/// My calls, on every route.
#[component]
pub(super) fn CallBar() -> impl IntoView {
    let ui = wiring();
    let calls = Memo::new(move |_| {
        ui.desk.with(|desk| desk.my_calls().iter().map(|row| row.id).collect::<Vec<_>>())
    });
    live(move || {
        let calls = calls.get();
        (!calls.is_empty()).then(|| {
            view! {
                <section class="call-bar" aria-label="Calls" data-testid="call-bar">
                    {calls.into_iter().map(|id| view! { <Call id=id/> }.into_any()).collect_view()}
                </section>
            }
            .into_any()
        })
    })
}

#[component]
fn Call(id: InteractionId) -> impl IntoView {
    let ui = wiring();
    let row = ui.row(id);
    let href = move || ui.filter.with(|filter| address(Some(id), filter.view, filter.channel));
    let stage = Memo::new(move |_| row.with(|row| row.as_ref().map(|row| row.stage)));
    let word = move || match stage.get() {
        Some(Stage::Call(CallState::OnHold)) => "On hold",
        Some(Stage::Call(CallState::WrapUp)) => "Wrap-up",
        _ => "Talking",
    };
    let timer = move || {
        row.with(|row| {
            let row = row.as_ref()?;
            Some(match (row.stage, row.until) {
                (Stage::Call(CallState::WrapUp), Some(until)) => format!("{} left", ui.left(until)),
                _ => ui.elapsed(row.answered_at.unwrap_or(row.created_at)),
            })
        })
    };
    let buttons = move || {
        stage.track();
        row.with_untracked(|row| {
            let row = row.as_ref()?;
            let (me, role) =
                ui.desk.with_untracked(|desk| desk.login().cloned().map(|me| (me, desk.role())))?;
            let buttons = actions(row, &me, role)
                .into_iter()
                .filter_map(|action| {
                    if action == Action::Transfer {
                        let button = view! { <TransferButton id testid="call-transfer"/> };
                        return Some(button.into_any());
                    }
                    let (label, testid, weight, command) = simple(action, id, &me)?;
                    // The thread has these hooks already.
                    let testid = match testid {
                        "action-hold" => "call-hold",
                        "action-resume" => "call-resume",
                        _ => "call-end",
                    };
                    Some(view! { <ActionButton label testid weight command/> }.into_any())
                })
                .collect_view();
            Some(buttons)
        })
    };
    view! {
        <div class="call" class:held=move || word() == "On hold">
            <ChannelIcon channel=domain::Channel::Voice/>
            <a class="call-who" href=href>{move || row.with(|row| row.as_ref().map(title))}</a>
            <span class="call-state">{move || word()}</span>
            <span class="call-timer">{move || timer()}</span>
            <span class="call-buttons">{move || buttons()}</span>
        </div>
    }
    .into_any()
}

#[component]
pub(super) fn Offers() -> impl IntoView {
    let ui = wiring();
    let offers = Memo::new(move |_| {
        let now = ui.now.get();
        ui.desk.with(|desk| desk.offers(now).iter().map(|row| row.id).collect::<Vec<_>>())
    });
    view! {
        <section class="offers" aria-label="Offers" aria-live="assertive">
            {each(
                move || offers.get(),
                |id| Key::Id(id.0),
                |id| view! { <OfferCard id=id/> }.into_any(),
            )}
        </section>
    }
    .into_any()
}

/// How much of an offer's time is left, of 100; a full ring is half a minute.
fn remaining(row: &Interaction, left_ms: u128) -> u128 {
    let _ = row;
    (left_ms * 100 / 30_000).min(100)
}

#[component]
fn OfferCard(id: InteractionId) -> impl IntoView {
    let ui = wiring();
    let row = ui.row(id);
    let left = move || {
        row.with(|row| {
            let deadline = row.as_ref()?.pending_offer()?.deadline;
            Some(deadline.since(ui.now.get()))
        })
        .unwrap_or_default()
    };
    let offset = move || {
        row.with(|row| row.as_ref().map_or(0, |row| 100 - remaining(row, left().as_millis())))
            .to_string()
    };
    let channel = row.with_untracked(|row| row.as_ref().map(|row| row.stage.kind().channel()));
    let href = move || ui.filter.with(|filter| address(Some(id), filter.view, filter.channel));
    let words = move || {
        row.with(|row| {
            let row = row.as_ref()?;
            Some(match (&row.queue, row.preview.is_empty()) {
                (_, false) => row.preview.clone(),
                (Some(queue), true) => format!("waits in {queue}"),
                (None, true) => "waits for you".to_owned(),
            })
        })
    };
    let accept = move |_| ui.give(AgentCommand::AcceptOffer { interaction_id: id });
    let reject = move |_| ui.give(AgentCommand::RejectOffer { interaction_id: id });
    view! {
        <article class="offer" data-testid="offer" data-id=id.to_string()>
            <svg class="ring" viewBox="0 0 36 36" width="36" height="36" aria-hidden="true">
                <circle class="ring-ground" cx="18" cy="18" r="16"></circle>
                <circle class="ring-time" cx="18" cy="18" r="16" pathLength="100"
                    stroke-dasharray="100" stroke-dashoffset=offset></circle>
                <text x="18" y="22" text-anchor="middle">{move || left().as_secs().to_string()}</text>
            </svg>
            <div class="offer-words">
                <a href=href>{move || row.with(|row| row.as_ref().map(title))}</a>
                <p>{move || words()}</p>
            </div>
            {channel.map(|channel| view! { <ChannelIcon channel=channel/> }.into_any())}
            <div class="offer-buttons">
                <button class="button primary" type="button" data-testid="offer-accept" on:click=accept>
                    "Accept"
                </button>
                <button class="button" type="button" data-testid="offer-reject" on:click=reject>
                    "Reject"
                </button>
            </div>
        </article>
    }
    .into_any()
}

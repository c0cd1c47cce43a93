//! The timeline: what was said and what changed, and what is on its way.

use domain::{AgentCommand, CommandId, InteractionId, Recorded};
use leptos::prelude::*;

use super::erased::{Key, each};
use super::failures::reason;
use super::wiring::{Tell, wiring};
use crate::browser;
use crate::state::{Outgoing, Progress, Tone, describe, text_of, title};

const SCROLLER: &str = ".timeline";
/// So close to the end, in pixels, a timeline follows what is new.
const FOLLOW_PX: i32 = 160;

#[component]
pub(super) fn Timeline(id: InteractionId) -> impl IntoView {
    let ui = wiring();
    // Cheap to compare: the entries themselves are only read when this changes.
    let edition = Memo::new(move |_| {
        ui.desk.with(|desk| desk.thread(id).map(|it| (it.version, it.entries.len())))
    });
    let entries = move || {
        edition.track();
        ui.desk.with_untracked(|desk| {
            desk.thread(id).map_or_else(Vec::new, |it| it.entries.iter().cloned().collect())
        })
    };
    let waiting = Memo::new(move |_| {
        ui.desk.with(|desk| {
            desk.outgoing
                .iter()
                .filter(|one| one.command.interaction_id() == Some(id))
                .filter(|one| text_of(&one.command).is_some())
                .cloned()
                .collect::<Vec<_>>()
        })
    });
    Effect::new(move |drawn: Option<()>| {
        edition.track();
        waiting.track();
        if drawn.is_none() || browser::scroll_of(SCROLLER).1 < FOLLOW_PX {
            request_animation_frame(|| browser::scroll_to_end(SCROLLER));
        }
    });
    view! {
        <div class="timeline" tabindex="0" role="log" aria-label="Timeline">
            <ol>
                {each(
                    entries,
                    |entry| Key::Id(entry.id.0),
                    |entry| view! { <Entry entry=entry/> }.into_any(),
                )}
                {each(
                    move || waiting.get(),
                    |one| Key::Text(format!("{} {:?}", one.id, one.progress)),
                    |one| view! { <Waiting one=one/> }.into_any(),
                )}
            </ol>
            {move || {
                edition.get().is_none().then(|| {
                    view! { <p class="loading">"Loading\u{2026}"</p> }.into_any()
                })
            }}
        </div>
    }
    .into_any()
}

#[component]
fn Entry(entry: Recorded) -> impl IntoView {
    let ui = wiring();
    let words = describe(&entry.event);
    let id = entry.id;
    let at = entry.at;
    let who = ui.desk.with_untracked(|desk| match (&words.by, words.tone) {
        (Some(by), _) => desk.name_of(by),
        (None, Tone::Inbound) => entry
            .interaction_id
            .and_then(|id| desk.rows.get(&id))
            .map_or_else(|| "Customer".to_owned(), title),
        (None, _) => String::new(),
    });
    let mine =
        ui.desk.with_untracked(|desk| words.by.is_some() && words.by.as_ref() == desk.login());
    let is_chosen = move || ui.entry.get() == Some(id);
    let choose = move |_| {
        ui.entry.update(|chosen| *chosen = if *chosen == Some(id) { None } else { Some(id) });
    };
    let state = (mine && matches!(words.tone, Tone::Outbound | Tone::Note))
        .then(|| view! { <span class="delivery">"Sent"</span> }.into_any());
    let stamp = view! {
        <button class="stamp" type="button" title="Journey" on:click=choose>
            <time datetime=at.to_string()>{move || ui.clock(at)}</time>
        </button>
    };
    let kind = if words.tone == Tone::Note { " \u{b7} note" } else { "" };
    view! {
        <li class=format!("entry entry-{}", words.tone.as_str()) class:mine=mine
            class:chosen=is_chosen data-testid="entry" data-event-id=id.to_string()
            data-type=entry.event.name()>
            {if words.tone == Tone::Change {
                view! {
                    <p class="change">
                        {(!who.is_empty()).then(|| view! { <b>{who}</b>" " }.into_any())} {words.text}
                    </p>
                    {stamp}
                }
                    .into_any()
            } else {
                view! {
                    <div class="entry-head"><b>{who}</b>{kind}{stamp}{state}</div>
                    <p class="bubble">{words.text}</p>
                }
                    .into_any()
            }}
        </li>
    }
    .into_any()
}

#[component]
fn Waiting(one: Outgoing) -> impl IntoView {
    let text = text_of(&one.command).unwrap_or_default().to_owned();
    let note = matches!(one.command, AgentCommand::AddNote { .. });
    let tone = if note { Tone::Note } else { Tone::Outbound };
    let (state, word) = match &one.progress {
        Progress::Pending => ("pending", "Sending\u{2026}".to_owned()),
        Progress::Done => ("sent", "Sent".to_owned()),
        Progress::Failed(error) => ("failed", reason(error)),
    };
    let failed = matches!(one.progress, Progress::Failed(_));
    let again = matches!(&one.progress, Progress::Failed(error) if error.temporary);
    view! {
        <li class=format!("entry mine outgoing entry-{}", tone.as_str()) data-testid="outgoing"
            data-state=state>
            <div class="entry-head">
                <b>"You"</b>
                {if failed {
                    view! { <span class="delivery failed" role="alert" data-testid="error">{word}</span> }
                        .into_any()
                } else {
                    view! { <span class="delivery">{word}</span> }.into_any()
                }}
                {failed.then(|| view! { <Again id=one.id again=again/> }.into_any())}
            </div>
            <p class="bubble">{text}</p>
        </li>
    }
    .into_any()
}

#[component]
fn Again(id: CommandId, again: bool) -> impl IntoView {
    let ui = wiring();
    view! {
        {again.then(|| view! {
            <button class="link" type="button" on:click=move |_| ui.tell(Tell::Retry(id))>"Retry"</button>
        }.into_any())}
        <button class="link" type="button" on:click=move |_| ui.tell(Tell::Dismiss(id))>"Discard"</button>
    }
    .into_any()
}

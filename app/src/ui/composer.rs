//! Where replies and notes are written. Drafts outlive the page.

use domain::{AgentCommand, InteractionId, Kind, Timestamp};
use leptos::prelude::*;
use protocol::Signal as WireSignal;

use super::controls::available;
use super::erased::effect;
use super::wiring::wiring;
use crate::browser;
use crate::state::Action;

/// Typing is told this often at most, in seconds.
const TYPING_SECONDS: u64 = 3;

#[component]
pub(super) fn Composer(id: InteractionId) -> impl IntoView {
    let ui = wiring();
    let row = ui.row(id);
    let can = available();
    let can_reply = Memo::new(move |_| {
        can.with(|can| can.iter().any(|one| matches!(one, Action::Reply | Action::Comment)))
    });
    let noting = Memo::new(move |_| ui.noting.get() || !can_reply.get());
    let kind = row.with_untracked(|row| row.as_ref().map(|row| row.stage.kind()));
    let draft = RwSignal::new(String::new());
    let key = move |noting: bool| {
        let login = ui.desk.with_untracked(|desk| desk.login().map(ToString::to_string));
        let kind = if noting { "note" } else { "reply" };
        format!("draft:{}:{id}:{kind}", login.unwrap_or_default())
    };
    effect(move || draft.set(browser::load(&key(noting.get())).unwrap_or_default()));
    let told_at: StoredValue<Option<Timestamp>> = StoredValue::new(None);
    let written = move |event| {
        let text = event_target_value(&event);
        if noting.get_untracked() {
            // A note that was begun stays one, also when replies become
            // possible: it isn't meant for the customer.
            ui.noting.set(true);
        }
        browser::save(&key(noting.get_untracked()), &text);
        draft.set(text);
        let now = browser::now();
        let lately = told_at.get_value().is_some_and(|at| now.since(at).as_secs() < TYPING_SECONDS);
        if !noting.get_untracked() && kind == Some(Kind::Chat) && !lately {
            told_at.set_value(Some(now));
            ui.signal(WireSignal::Typing { interaction_id: id, agent: None });
        }
    };
    let send = move || {
        let text = draft.get_untracked().trim().to_owned();
        if text.is_empty() {
            return;
        }
        let noting = noting.get_untracked();
        ui.give(match kind {
            _ if noting => AgentCommand::AddNote { interaction_id: id, text },
            Some(Kind::Ticket) => AgentCommand::CommentTicket { interaction_id: id, body: text },
            _ => AgentCommand::SendMessage { interaction_id: id, text },
        });
        browser::save(&key(noting), "");
        draft.set(String::new());
        told_at.set_value(None);
    };
    let pressed = move |event: leptos::ev::KeyboardEvent| {
        if event.key() == "Enter" && (event.ctrl_key() || event.meta_key()) {
            event.prevent_default();
            send();
        } else if event.key() == "Escape" {
            browser::focus(".timeline");
        }
    };
    let somebody = Memo::new(move |_| {
        ui.desk.with(|desk| {
            let row = desk.rows.get(&id)?;
            let assignee = row.assignee.as_ref().filter(|one| Some(*one) != desk.login())?;
            Some(desk.name_of(assignee))
        })
    });
    let warning = move || {
        somebody.get().filter(|_| !noting.get() && kind == Some(Kind::Chat)).map(|name| {
            let words = format!("{name} is answering this chat.");
            view! { <p class="composer-warning">{words}</p> }.into_any()
        })
    };
    let placeholder = move || match (noting.get(), kind) {
        (true, _) => "A note for colleagues",
        (false, Some(Kind::Ticket)) => "Write a comment",
        (false, _) => "Write a reply",
    };
    view! {
        <form class="composer" class:noting=move || noting.get()
            on:submit=move |event| { event.prevent_default(); send(); }>
            <div class="tabs" role="tablist">
                <button type="button" role="tab" data-testid="tab-reply"
                    aria-selected=move || (!noting.get()).to_string()
                    disabled=move || !can_reply.get()
                    on:click=move |_| ui.noting.set(false)>
                    {if kind == Some(Kind::Ticket) { "Comment" } else { "Reply" }}
                </button>
                <button type="button" role="tab" data-testid="tab-note"
                    aria-selected=move || noting.get().to_string()
                    on:click=move |_| ui.noting.set(true)>
                    "Note"
                </button>
            </div>
            {move || warning()}
            <textarea id="composer-text" data-testid="composer-text" rows="3"
                aria-label=placeholder placeholder=placeholder
                prop:value=move || draft.get() on:input=written on:keydown=pressed></textarea>
            <div class="composer-foot">
                <span class="composer-hint"><kbd>"Ctrl"</kbd>" "<kbd>"Enter"</kbd>" sends"</span>
                <button class="button primary" type="submit" data-testid="composer-send"
                    disabled=move || draft.with(|draft| draft.trim().is_empty())>
                    {move || if noting.get() { "Add note" } else { "Send" }}
                </button>
            </div>
        </form>
    }
    .into_any()
}

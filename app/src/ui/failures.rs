//! Commands that were not done, said where an agent sees it.

use domain::{AgentCommand, CommandId, InteractionId};
use leptos::prelude::*;
use protocol::ReplyError;

use super::erased::live;
use super::wiring::{Tell, address, wiring};
use crate::state::{Outgoing, Progress, text_of, title};

/// A refusal in plain words.
pub(super) fn reason(error: &ReplyError) -> String {
    match error.code.as_str() {
        "conflict" => format!("It has moved on: {}.", error.message),
        "forbidden" => format!("Not allowed: {}.", error.message),
        "not_found" => "It is gone, or no longer yours to see.".to_owned(),
        "deadline_exceeded" => "It was too late to do this.".to_owned(),
        "no_answer" => "No answer came in time. It may or may not have been done.".to_owned(),
        "unavailable" | "busy" => format!("Not done yet: {}.", error.message),
        _ => format!("Not done: {}.", error.message),
    }
}

/// What was asked for, as a person says it.
fn wish(command: &AgentCommand) -> &'static str {
    match command {
        AgentCommand::Take { .. } => "Take",
        AgentCommand::AcceptOffer { .. } => "Accept",
        AgentCommand::RejectOffer { .. } => "Decline",
        AgentCommand::AnswerCall { .. } => "Answer",
        AgentCommand::HoldCall { .. } => "Hold",
        AgentCommand::ResumeCall { .. } => "Resume",
        AgentCommand::TransferCall { .. } => "Transfer",
        AgentCommand::EndCall { .. } => "End call",
        AgentCommand::EndChat { .. } => "End chat",
        AgentCommand::SendMessage { .. } => "Reply",
        AgentCommand::CommentTicket { .. } => "Comment",
        AgentCommand::AddNote { .. } => "Note",
        AgentCommand::OpenTicket { .. } => "Open a ticket",
        AgentCommand::SetStatus { .. } => "Set status",
        AgentCommand::SetPriority { .. } => "Set priority",
        AgentCommand::Assign { .. } => "Assign",
        AgentCommand::Tag { .. } | AgentCommand::Untag { .. } => "Tag",
        AgentCommand::Snooze { .. } => "Snooze",
        AgentCommand::Reopen { .. } => "Reopen",
        AgentCommand::SetPresence { .. } => "Presence",
        AgentCommand::LinkContact { .. } => "Link contact",
    }
}

/// A failed command as it is shown.
#[derive(Clone, PartialEq)]
struct Failed {
    id: CommandId,
    wish: &'static str,
    reason: String,
    /// It may succeed if it is given again.
    again: bool,
    /// Where it shows as well, and whose that is.
    at: Option<(InteractionId, String)>,
}

fn failed(which: impl Fn(&Outgoing) -> bool + Send + Sync + 'static) -> Memo<Vec<Failed>> {
    let ui = wiring();
    Memo::new(move |_| {
        ui.desk.with(|desk| {
            let shown = desk.outgoing.iter().filter(|one| which(one)).filter_map(|one| {
                let Progress::Failed(error) = &one.progress else { return None };
                let about = one.command.interaction_id();
                let name = |id| (id, desk.rows.get(&id).map(title).unwrap_or_default());
                Some(Failed {
                    id: one.id,
                    wish: wish(&one.command),
                    reason: reason(error),
                    again: error.temporary,
                    at: about.map(name),
                })
            });
            shown.collect()
        })
    })
}

/// Above the timeline; words show their failure where they stand.
#[component]
pub(super) fn Failures(id: InteractionId) -> impl IntoView {
    let failed = failed(move |one| {
        one.command.interaction_id() == Some(id) && text_of(&one.command).is_none()
    });
    live(move || failed.get().into_iter().map(|one| failure(one, false)).collect_view())
}

/// What failed and isn't about what is on the screen, in every room.
#[component]
pub(super) fn Elsewhere() -> impl IntoView {
    let selected = wiring().selected;
    let failed = failed(move |one| {
        let about = one.command.interaction_id();
        about.is_none() || about != selected.get()
    });
    view! {
        <div class="elsewhere">
            {move || failed.get().into_iter().map(|one| failure(one, true)).collect_view()}
        </div>
    }
    .into_any()
}

fn failure(one: Failed, elsewhere: bool) -> AnyView {
    let ui = wiring();
    let Failed { id, wish, reason, again, at } = one;
    let place = at.filter(|_| elsewhere).map(|(at, name)| {
        let href = ui.filter.with_untracked(|it| address(Some(at), it.view, it.channel));
        view! { " ("<a href=href>{name}</a>")" }.into_any()
    });
    view! {
        <div class="failure" role="alert" data-testid="error">
            <p><b>{wish}</b>{place}": "{reason}</p>
            {again.then(|| view! {
                <button class="button" type="button" on:click=move |_| ui.tell(Tell::Retry(id))>
                    "Retry"
                </button>
            }.into_any())}
            <button class="button" type="button" on:click=move |_| ui.tell(Tell::Dismiss(id))>
                "Dismiss"
            </button>
        </div>
    }
    .into_any()
}

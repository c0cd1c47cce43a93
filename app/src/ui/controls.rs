//! What can be done with the interaction on the screen: buttons and choices.

use std::time::Duration;

use domain::{AgentCommand, Interaction, InteractionId, Login, Priority, TicketStatus};
use leptos::prelude::*;
use protocol::AgentView;

use super::erased::live;
use super::transfer::TransferButton;
use super::wiring::wiring;
use crate::state::{Action, actions};

/// One option of a select that shows what is, not what was wished for.
#[component]
pub(super) fn Choice(
    #[prop(into)] value: String,
    label: String,
    current: Signal<String>,
) -> impl IntoView {
    let chosen = value.clone();
    let is_now = current.with_untracked(|current| *current == value);
    view! {
        <option value=value selected=is_now
            prop:selected=move || current.with(|current| *current == chosen)>
            {label}
        </option>
    }
    .into_any()
}

/// Reads the choice and puts the select back to what is until the server says so.
pub(super) fn chosen(event: &leptos::ev::Event, current: &str) -> String {
    let value = event_target_value(event);
    let select: leptos::web_sys::HtmlSelectElement = event_target(event);
    select.set_value(current);
    value
}

/// The actions of the interaction on the screen.
pub(super) fn available() -> Memo<Vec<Action>> {
    let ui = wiring();
    let current = ui.current();
    Memo::new(move |_| {
        current.with(|row| {
            row.as_ref().map_or_else(Vec::new, |row| {
                ui.desk.with(|desk| {
                    desk.login().map_or_else(Vec::new, |me| actions(row, me, desk.role()))
                })
            })
        })
    })
}

/// Label, test hook, weight and command of an action that needs no more words.
pub(super) fn simple(
    action: Action,
    interaction_id: InteractionId,
    me: &Login,
) -> Option<(&'static str, &'static str, &'static str, AgentCommand)> {
    Some(match action {
        Action::Accept => {
            ("Accept", "action-accept", "primary", AgentCommand::AcceptOffer { interaction_id })
        }
        Action::Reject => {
            ("Decline", "action-reject", "", AgentCommand::RejectOffer { interaction_id })
        }
        Action::Take => ("Take", "action-take", "primary", AgentCommand::Take { interaction_id }),
        Action::Answer => {
            ("Answer", "action-answer", "primary", AgentCommand::AnswerCall { interaction_id })
        }
        Action::Hold => ("Hold", "action-hold", "", AgentCommand::HoldCall { interaction_id }),
        Action::Resume => {
            ("Resume", "action-resume", "primary", AgentCommand::ResumeCall { interaction_id })
        }
        Action::EndCall => {
            ("End call", "action-end", "danger", AgentCommand::EndCall { interaction_id })
        }
        Action::FinishCall => {
            ("Finish wrap-up", "action-end", "primary", AgentCommand::EndCall { interaction_id })
        }
        Action::EndChat => {
            ("End chat", "action-end-chat", "", AgentCommand::EndChat { interaction_id })
        }
        Action::FinishChat => (
            "Finish wrap-up",
            "action-end-chat",
            "primary",
            AgentCommand::EndChat { interaction_id },
        ),
        Action::AssignMe => (
            "Assign to me",
            "action-assign-me",
            "",
            AgentCommand::Assign { interaction_id, agent: Some(me.clone()) },
        ),
        Action::Reopen => ("Reopen", "action-reopen", "", AgentCommand::Reopen { interaction_id }),
        _ => return None,
    })
}

#[component]
pub(super) fn ActionButton(
    label: &'static str,
    testid: &'static str,
    #[prop(optional)] weight: &'static str,
    command: AgentCommand,
) -> impl IntoView {
    let ui = wiring();
    let kind = std::mem::discriminant(&command);
    let id = command.interaction_id();
    let busy = Memo::new(move |_| ui.is_pending(id, kind));
    view! {
        <button class=format!("button {weight}") type="button" data-testid=testid
            aria-busy=move || busy.get().to_string() disabled=move || busy.get()
            on:click=move |_| ui.give(command.clone())>
            {label}
        </button>
    }
    .into_any()
}

/// The bar above the timeline.
#[component]
pub(super) fn Controls() -> impl IntoView {
    let ui = wiring();
    let current = ui.current();
    let available = available();
    let id = Memo::new(move |_| current.with(|row| row.as_ref().map(|row| row.id)));
    live(move || {
        let id = id.get()?;
        let me = ui.desk.with_untracked(|desk| desk.login().cloned())?;
        let controls = available
            .get()
            .into_iter()
            .map(|action| match simple(action, id, &me) {
                Some((label, testid, weight, command)) => {
                    view! { <ActionButton label testid weight command/> }.into_any()
                }
                None => choice(action, id, current),
            })
            .collect_view();
        Some(view! { <div class="controls">{controls}</div> }.into_any())
    })
}

fn choice(action: Action, id: InteractionId, current: Memo<Option<Interaction>>) -> AnyView {
    match action {
        Action::Status => view! { <StatusSelect id current/> }.into_any(),
        Action::Priority => view! { <PrioritySelect id current/> }.into_any(),
        Action::Assign => view! { <AssigneeSelect id current/> }.into_any(),
        Action::Transfer => view! { <TransferButton id testid="action-transfer"/> }.into_any(),
        Action::Snooze => view! { <SnoozeSelect id/> }.into_any(),
        _ => ().into_any(),
    }
}

#[component]
fn StatusSelect(id: InteractionId, current: Memo<Option<Interaction>>) -> impl IntoView {
    let ui = wiring();
    let now = Signal::derive(move || {
        current.with(|row| row.as_ref().map_or("", |row| row.stage.as_str()).to_owned())
    });
    let changed = move |event: leptos::ev::Event| {
        if let Ok(status) = chosen(&event, &now.get_untracked()).parse() {
            ui.give(AgentCommand::SetStatus { interaction_id: id, status });
        }
    };
    view! {
        <label class="choice">
            <span>"Status"</span>
            <select data-testid="action-status" on:change=changed>
                {TicketStatus::ALL
                    .iter()
                    .filter(|status| {
                        **status != TicketStatus::Snoozed
                            || now.get_untracked() == TicketStatus::Snoozed.as_str()
                    })
                    .map(|status| {
                        view! {
                            <Choice value=status.as_str() label=status.to_string() current=now/>
                        }
                    })
                    .collect_view()}
            </select>
        </label>
    }
    .into_any()
}

#[component]
fn PrioritySelect(id: InteractionId, current: Memo<Option<Interaction>>) -> impl IntoView {
    let ui = wiring();
    let now = Signal::derive(move || {
        let priority = current.with(|row| row.as_ref().and_then(|row| row.priority));
        priority.unwrap_or(Priority::Medium).as_str().to_owned()
    });
    let changed = move |event: leptos::ev::Event| {
        if let Ok(priority) = chosen(&event, &now.get_untracked()).parse() {
            ui.give(AgentCommand::SetPriority { interaction_id: id, priority });
        }
    };
    view! {
        <label class="choice">
            <span>"Priority"</span>
            <select data-testid="action-priority" on:change=changed>
                {Priority::ALL
                    .iter()
                    .map(|priority| {
                        view! {
                            <Choice value=priority.as_str() label=priority.to_string() current=now/>
                        }
                    })
                    .collect_view()}
            </select>
        </label>
    }
    .into_any()
}

/// To an agent, or back to everybody.
#[component]
fn AssigneeSelect(id: InteractionId, current: Memo<Option<Interaction>>) -> impl IntoView {
    let ui = wiring();
    let now = Signal::derive(move || {
        let assignee = current.with(|row| row.as_ref().and_then(|row| row.assignee.clone()));
        assignee.map(|login| login.to_string()).unwrap_or_default()
    });
    let changed = move |event: leptos::ev::Event| {
        let agent: Option<Login> = chosen(&event, &now.get_untracked()).parse().ok();
        ui.give(AgentCommand::Assign { interaction_id: id, agent });
    };
    let agents = Memo::new(move |_| {
        ui.desk.with(|desk| {
            let named = |agent: &AgentView| (agent.login.to_string(), agent.name.clone());
            desk.agents.iter().map(named).collect::<Vec<_>>()
        })
    });
    view! {
        <label class="choice">
            <span>"Assign"</span>
            <select data-testid="action-assign" on:change=changed>
                <Choice value="" label="nobody".to_owned() current=now/>
                {move || {
                    agents
                        .get()
                        .into_iter()
                        .map(|(login, name)| view! { <Choice value=login label=name current=now/> })
                        .collect_view()
                }}
            </select>
        </label>
    }
    .into_any()
}

const SNOOZES: [(&str, u64); 4] =
    [("15 minutes", 900), ("1 hour", 3_600), ("4 hours", 14_400), ("1 day", 86_400)];

#[component]
fn SnoozeSelect(id: InteractionId) -> impl IntoView {
    let ui = wiring();
    let now = Signal::derive(String::new);
    let changed = move |event: leptos::ev::Event| {
        if let Ok(seconds) = chosen(&event, "").parse() {
            let until = ui.now.get_untracked().plus(Duration::from_secs(seconds));
            ui.give(AgentCommand::Snooze { interaction_id: id, until });
        }
    };
    view! {
        <label class="choice">
            <span>"Snooze"</span>
            <select data-testid="action-snooze" on:change=changed>
                <Choice value="" label="for\u{2026}".to_owned() current=now/>
                {SNOOZES
                    .into_iter()
                    .map(|(label, seconds)| {
                        view! {
                            <Choice value=seconds.to_string() label=label.to_owned() current=now/>
                        }
                    })
                    .collect_view()}
            </select>
        </label>
    }
    .into_any()
}

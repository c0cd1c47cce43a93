//! A call is handed on: to a colleague, to a queue, back to where it waited.

use domain::{AgentCommand, InteractionId, Login};
use leptos::prelude::*;

use super::erased::{Key, each, effect};
use super::presence::presence_words;
use super::wiring::{Wiring, wiring};
use crate::browser;
use crate::state::{Action, actions, title};

const DIALOG: &str = "#transfer";

/// Opens the dialog for this call.
#[component]
pub(super) fn TransferButton(id: InteractionId, testid: &'static str) -> impl IntoView {
    let ui = wiring();
    let kind = std::mem::discriminant(&transfer(id, None, None));
    let busy = Memo::new(move |_| ui.is_pending(Some(id), kind));
    let open = move |_| {
        ui.handing.set(Some(id));
        browser::open_dialog(DIALOG);
    };
    view! {
        <button class="button" type="button" data-testid=testid aria-haspopup="dialog"
            aria-busy=move || busy.get().to_string() disabled=move || busy.get() on:click=open>
            "Transfer"
        </button>
    }
    .into_any()
}

fn transfer(
    interaction_id: InteractionId,
    queue: Option<String>,
    agent: Option<Login>,
) -> AgentCommand {
    AgentCommand::TransferCall { interaction_id, queue, agent }
}

/// Hands the call on and closes the dialog; the button tells how it goes.
fn hand_on(ui: Wiring, queue: Option<String>, agent: Option<Login>) {
    if let Some(id) = ui.handing.get_untracked() {
        ui.give(transfer(id, queue, agent));
    }
    browser::close_dialog(DIALOG);
}

#[component]
pub(super) fn TransferDialog() -> impl IntoView {
    let ui = wiring();
    let row = Memo::new(move |_| {
        let id = ui.handing.get()?;
        ui.desk.with(|desk| desk.rows.get(&id).cloned())
    });
    let possible = Memo::new(move |_| {
        row.with(|row| {
            ui.desk.with(|desk| {
                let (Some(row), Some(me)) = (row, desk.login()) else { return false };
                actions(row, me, desk.role()).contains(&Action::Transfer)
            })
        })
    });
    // Told a frame late: it may be open again by then.
    let closed = move |_| {
        if !browser::is_dialog_open(DIALOG) {
            ui.handing.set(None);
        }
    };
    // The caller has hung up.
    effect(move || {
        if !possible.get() {
            browser::close_dialog(DIALOG);
        }
    });
    // Always there: the dialog gives the focus to the first of them.
    let agents = Memo::new(move |_| {
        ui.desk.with(|desk| {
            let others = desk.agents.iter().filter(|agent| Some(&agent.login) != desk.login());
            others.map(|agent| agent.login.clone()).collect::<Vec<_>>()
        })
    });
    let to_queue = move |event| {
        let [queue] = browser::fields_of(&event, ["queue"]);
        let queue = queue.trim().to_owned();
        if !queue.is_empty() {
            hand_on(ui, Some(queue), None);
            browser::reset_form("#transfer-queue");
        }
    };
    let back = move || {
        let queue = row.with(|row| row.as_ref().and_then(|row| row.queue.clone()))?;
        let words = format!("Back to {queue}");
        Some(
            view! {
                <button class="button" type="button" data-testid="transfer-back"
                    on:click=move |_| hand_on(ui, Some(queue.clone()), None)>
                    {words}
                </button>
            }
            .into_any(),
        )
    };
    view! {
        <dialog id="transfer" class="dialog" aria-labelledby="transfer-title" data-testid="transfer"
            on:close=closed>
            <h2 id="transfer-title">
                "Transfer " {move || row.with(|row| row.as_ref().map(title))}
            </h2>
            <ul class="pick" aria-label="To an agent">
                {each(
                    move || agents.get(),
                    |login| Key::Text(login.to_string()),
                    |login| view! { <Colleague login=login/> }.into_any(),
                )}
            </ul>
            {move || agents.with(Vec::is_empty).then(|| {
                view! { <p class="dialog-hint">"You are the only agent."</p> }.into_any()
            })}
            <form id="transfer-queue" class="dialog-row" on:submit=to_queue>
                <label>
                    "To a queue"
                    <input name="queue" list="queues" maxlength="200" required autocomplete="off"
                        data-testid="transfer-queue"/>
                </label>
                <button class="button" type="submit">"Transfer"</button>
            </form>
            <form class="dialog-foot" method="dialog">
                {move || back()}
                <button class="button">"Cancel"</button>
            </form>
        </dialog>
    }
    .into_any()
}

/// One who may get it: they stay in their places while they come and go.
#[component]
fn Colleague(login: Login) -> impl IntoView {
    let ui = wiring();
    let whose = login.clone();
    let agent = Memo::new(move |_| ui.desk.with(|desk| desk.agent(&whose).cloned()));
    let presence = move || agent.with(|it| it.as_ref().map(|it| it.presence.as_str()));
    let name = move || agent.with(|it| it.as_ref().map(|it| it.name.clone()));
    let words = move || {
        agent.with(|it| it.as_ref().map(|it| presence_words(it.presence, it.reason.as_deref())))
    };
    view! {
        <li>
            <button type="button" data-testid="transfer-agent" data-login=login.to_string()
                data-presence=presence on:click=move |_| hand_on(ui, None, Some(login.clone()))>
                <span class="dot"></span>
                <b>{move || name()}</b>
                <span>{move || words()}</span>
            </button>
        </li>
    }
    .into_any()
}

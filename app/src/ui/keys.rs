//! Single keys, outside fields.

use domain::{AgentCommand, InteractionId, Stage, TicketStatus};
use leptos::ev::KeyboardEvent;
use leptos::prelude::*;

use super::wiring::{Wiring, address};
use crate::browser;
use crate::state::{Action, actions};

/// What a key does; `to` goes to another address of the desk.
pub(super) fn pressed(ui: Wiring, to: &dyn Fn(&str), event: &KeyboardEvent) {
    let key = event.key();
    if event.ctrl_key() || event.meta_key() || event.alt_key() {
        if key == "k" && (event.ctrl_key() || event.meta_key()) {
            event.prevent_default();
            browser::focus("#search");
        }
        return;
    }
    if browser::is_typing() {
        if key == "Escape" {
            browser::focus(".timeline");
        }
        return;
    }
    if key == "?" {
        browser::open_dialog("#help");
        return;
    }
    if browser::load("keys").as_deref() == Some("off") {
        return;
    }
    if ui.going.get_value() {
        ui.going.set_value(false);
        press(match key.as_str() {
            "i" => "[data-testid=room-inbox]",
            "a" => "[data-testid=admin]",
            _ => return,
        });
        event.prevent_default();
        return;
    }
    let done = match key.as_str() {
        "g" => {
            ui.going.set_value(true);
            true
        }
        "j" => go(ui, to, 1),
        "k" => go(ui, to, -1),
        "Enter"
            if ui.selected.get_untracked().is_some()
                && event.target() == event.current_target() =>
        {
            browser::focus("#composer-text");
            true
        }
        "r" => write(ui, false),
        "n" => write(ui, true),
        "i" => assign_to_me(ui),
        "e" => resolve(ui),
        "E" => resolve(ui) && go(ui, to, 1),
        "a" => pick("[data-testid=action-assign]") && press("[data-testid=action-transfer]"),
        "s" => pick("[data-testid=action-snooze]"),
        "p" => pick("[data-testid=action-priority]"),
        "t" => tag(ui),
        "H" => press("[data-testid=call-hold], [data-testid=call-resume]"),
        "c" => {
            browser::open_dialog("#new-ticket");
            true
        }
        "/" => {
            browser::focus("#search");
            true
        }
        "A" => press("[data-testid=offer-accept]"),
        "R" => press("[data-testid=offer-reject]"),
        _ => false,
    };
    if done {
        event.prevent_default();
    }
}

fn press(selector: &str) -> bool {
    browser::press(selector);
    true
}

fn pick(selector: &str) -> bool {
    browser::pick(selector);
    true
}

/// Where the details are a drawer, it opens first.
fn tag(ui: Wiring) -> bool {
    ui.drawer.set(true);
    request_animation_frame(|| browser::focus("[data-testid=tag-input]"));
    true
}

fn write(ui: Wiring, noting: bool) -> bool {
    ui.noting.set(noting);
    browser::focus("#composer-text");
    true
}

/// To the next row or the one before.
fn go(ui: Wiring, to: &dyn Fn(&str), step: isize) -> bool {
    let selected = ui.selected.get_untracked();
    let next = ui.shown.with_untracked(|shown| {
        let next = match shown.iter().position(|id| Some(*id) == selected) {
            Some(at) => at.checked_add_signed(step),
            None => Some(0),
        };
        next.and_then(|next| shown.get(next).copied())
    });
    if next.is_some() {
        to(&ui.filter.with_untracked(|filter| address(next, filter.view, filter.channel)));
    }
    true
}

fn assign_to_me(ui: Wiring) -> bool {
    let Some(interaction_id) = ui.selected.get_untracked() else { return false };
    let Some((can, me)) = can(ui, interaction_id) else { return false };
    if can.contains(&Action::AssignMe) {
        ui.give(AgentCommand::Assign { interaction_id, agent: Some(me) });
    } else if can.contains(&Action::Take) {
        ui.give(AgentCommand::Take { interaction_id });
    }
    true
}

fn can(ui: Wiring, id: InteractionId) -> Option<(Vec<Action>, domain::Login)> {
    ui.desk.with_untracked(|desk| {
        let me = desk.login()?.clone();
        Some((actions(desk.rows.get(&id)?, &me, desk.role()), me))
    })
}

/// Resolves a ticket, ends a chat; a call is never ended by a slip.
fn resolve(ui: Wiring) -> bool {
    let Some(interaction_id) = ui.selected.get_untracked() else { return false };
    let stage = ui.desk.with_untracked(|desk| desk.rows.get(&interaction_id).map(|row| row.stage));
    let can = can(ui, interaction_id).map(|(can, _)| can).unwrap_or_default();
    match stage {
        Some(Stage::Ticket(_)) => {
            ui.give(AgentCommand::SetStatus { interaction_id, status: TicketStatus::Resolved });
        }
        Some(Stage::Chat(_)) if can.contains(&Action::EndChat) => {
            ui.give(AgentCommand::EndChat { interaction_id });
        }
        _ => {}
    }
    true
}

//! Whether I can be given work, and why not.

use domain::{AgentCommand, Presence};
use leptos::prelude::*;

use super::controls::{Choice, chosen};
use super::dialog::FormDialog;
use super::wiring::{Wiring, wiring};
use crate::browser;

/// Offered by name; any other is written.
const REASONS: [&str; 4] = ["break", "lunch", "meeting", "training"];
/// The choice that asks for another reason.
const OTHER: &str = "other";
const DIALOG: &str = "#away";

/// Presence, and the reason for being away, in words.
pub(super) fn presence_words(presence: Presence, reason: Option<&str>) -> String {
    let word = match presence {
        Presence::Available => "Available",
        Presence::Busy => "Busy",
        Presence::Away => "Away",
        Presence::WrapUp => "Wrap-up",
        Presence::Offline => "Offline",
    };
    reason.map_or_else(|| word.to_owned(), |reason| format!("{word}: {reason}"))
}

/// A choice's value: `busy`, `away`, `away:lunch`.
fn value(presence: Presence, reason: Option<&str>) -> String {
    reason.map_or_else(|| presence.to_string(), |reason| format!("{presence}:{reason}"))
}

fn be(ui: Wiring, value: &str) {
    let (presence, reason) = match value.split_once(':') {
        Some((presence, reason)) => (presence, Some(reason.to_owned())),
        None => (value, None),
    };
    if let Ok(presence) = presence.parse() {
        ui.give(AgentCommand::SetPresence { presence, reason });
    }
}

#[component]
pub(super) fn PresenceSelect() -> impl IntoView {
    let ui = wiring();
    let mine = Memo::new(move |_| {
        ui.desk.with(|desk| desk.login().and_then(|me| desk.agent(me)).cloned())
    });
    let presence = move || mine.with(|it| it.as_ref().map_or(Presence::Offline, |it| it.presence));
    let current = Signal::derive(move || {
        let reason = mine.with(|it| it.as_ref().and_then(|it| it.reason.clone()));
        value(presence(), reason.as_deref())
    });
    let changed = move |event: leptos::ev::Event| match chosen(&event, &current.get_untracked()) {
        other if other == OTHER => browser::open_dialog(DIALOG),
        value => be(ui, &value),
    };
    let kind = std::mem::discriminant(&AgentCommand::SetPresence {
        presence: Presence::Away,
        reason: None,
    });
    let busy = Memo::new(move |_| ui.is_pending(None, kind));
    let choice = move |presence: Presence, reason: Option<&str>| {
        let (value, label) = (value(presence, reason), presence_words(presence, reason));
        view! { <Choice value=value label=label current=current/> }
    };
    // One that was written.
    let written = Memo::new(move |_| {
        let reason = mine.with(|it| it.as_ref().and_then(|it| it.reason.clone()));
        reason.filter(|reason| !REASONS.contains(&reason.as_str()))
    });
    view! {
        <label class="presence" data-presence=move || presence().as_str()
            aria-busy=move || busy.get().to_string()>
            <span class="dot"></span>
            <span class="presence-name">
                {move || mine.with(|it| it.as_ref().map(|it| it.name.clone()))}
            </span>
            <select data-testid="presence" aria-label="Presence" on:change=changed>
                {choice(Presence::Available, None)}
                {choice(Presence::Busy, None)}
                {choice(Presence::Away, None)}
                {REASONS.map(|reason| choice(Presence::Away, Some(reason))).collect_view()}
                {move || written.get().map(|reason| choice(Presence::Away, Some(&reason)))}
                <option value=OTHER>"Away: another reason\u{2026}"</option>
                {choice(Presence::WrapUp, None)}
                {choice(Presence::Offline, None)}
            </select>
            <span class="presence-since">
                {move || mine.with(|it| it.as_ref().map(|it| ui.ago(it.since)))}
            </span>
        </label>
    }
    .into_any()
}

/// Asks why.
#[component]
pub(super) fn AwayDialog() -> impl IntoView {
    let ui = wiring();
    let submit = Callback::new(move |event| {
        let [reason] = browser::fields_of(&event, ["reason"]);
        let reason = reason.trim();
        if !reason.is_empty() {
            be(ui, &value(Presence::Away, Some(reason)));
            browser::close_dialog(DIALOG);
            browser::reset_form("#away-form");
        }
    });
    let send = view! { <button class="button primary" type="submit">"Be away"</button> };
    view! {
        <FormDialog name="away" title="Away" submit send=send.into_any()>
            <label>
                "Reason, for your colleagues"
                <input name="reason" maxlength="60" required autocomplete="off"
                    data-testid="away-reason"/>
            </label>
        </FormDialog>
    }
    .into_any()
}

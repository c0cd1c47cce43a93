//! What calls for me: a sound that goes on while an offer stands, a mark on the
//! row until it is looked at, the tab's title and icon, a notification where
//! nobody sees the tab.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use domain::InteractionId;
use leptos::prelude::*;
use leptos_meta::Title;

use super::erased::effect;
use super::icons::{BELL, BELL_OFF, Icon};
use super::wiring::{Wiring, wiring};
use crate::state::{attention, title};
use crate::{alarm, browser};

/// An offer rings this often.
const AGAIN: Duration = Duration::from_secs(4);
const SETTING: &str = "alerts";

fn wanted() -> bool {
    browser::load(SETTING).as_deref() != Some("off")
}

/// The title, and what goes on beside it.
#[component]
pub(super) fn Alerts() -> impl IntoView {
    let ui = wiring();
    let offers = Memo::new(move |_| {
        let now = ui.now.get();
        ui.desk.with(|desk| desk.offers(now).iter().map(|row| row.id).collect::<Vec<_>>())
    });
    let calling = Memo::new(move |_| ui.desk.with(attention));
    // Each offer rings at once, and then all of them until there is none.
    Effect::new(move |before: Option<Vec<InteractionId>>| {
        let offers = offers.get();
        let before = before.unwrap_or_default();
        if let Some(new) = offers.iter().find(|id| !before.contains(id)) {
            if wanted() {
                alarm::ring();
            }
            tell(ui, *new, "is offered to you");
        }
        offers
    });
    effect(move || {
        if offers.with(Vec::is_empty) {
            return;
        }
        let ring = || {
            if wanted() {
                alarm::ring();
            }
        };
        if let Ok(again) = set_interval_with_handle(ring, AGAIN) {
            on_cleanup(move || again.clear());
        }
    });
    // What waits for me and is new is marked, unless it is looked at.
    Effect::new(move |before: Option<BTreeMap<InteractionId, u64>>| {
        let calling = calling.get();
        let Some(before) = before else { return calling };
        let newer =
            |id: &InteractionId, version: &u64| before.get(id).is_none_or(|it| it < version);
        let looked_at = ui.selected.get_untracked().filter(|_| browser::is_visible());
        let new: Vec<_> = calling
            .iter()
            .filter(|(id, version)| newer(id, version) && looked_at != Some(**id))
            .map(|(id, _)| *id)
            .collect();
        if let Some(first) = new.first() {
            if wanted() {
                alarm::chime();
            }
            tell(ui, *first, "waits for you");
        }
        ui.unread.update(|unread| {
            unread.extend(new);
            unread.retain(|id| calling.contains_key(id));
        });
        calling
    });
    let read = move || {
        let selected = ui.selected.get_untracked().filter(|_| browser::is_visible());
        if let Some(id) = selected.filter(|id| ui.unread.with_untracked(|it| it.contains(id))) {
            ui.unread.update(|unread| {
                unread.remove(&id);
            });
        }
    };
    effect(move || {
        ui.selected.track();
        read();
        let seen = window_event_listener_untyped("visibilitychange", move |_| read());
        on_cleanup(move || seen.remove());
    });
    let count = Memo::new(move |_| offers.with(Vec::len) + ui.unread.with(BTreeSet::len));
    effect(move || alarm::badge(count.get() > 0));
    let title = move || match count.get() {
        0 => "Warren".to_owned(),
        count => format!("({count}) Warren"),
    };
    view! { <Title text=title/> }
}

/// Where nobody sees the tab.
fn tell(ui: Wiring, id: InteractionId, what: &str) {
    if wanted() && !browser::is_visible() {
        let name = ui.desk.with_untracked(|desk| desk.rows.get(&id).map(title).unwrap_or_default());
        alarm::notify(&format!("{name} {what}"), &id.to_string());
    }
}

/// Sound and notifications, on or off; the browser is asked for leave at the
/// first press.
#[component]
pub(super) fn AlertsButton() -> impl IntoView {
    let ui = wiring();
    let on = RwSignal::new(true);
    effect(move || {
        if ui.alive.get() {
            on.set(wanted());
        }
    });
    let switch = move |_| {
        on.update(|on| *on = !*on);
        browser::save(SETTING, if on.get_untracked() { "" } else { "off" });
        if on.get_untracked() {
            alarm::ask_to_notify();
            alarm::chime();
        }
    };
    view! {
        <button class="icon-button" type="button" title="Sound and notifications"
            data-testid="alerts" aria-pressed=move || on.get().to_string() on:click=switch>
            {move || view! { <Icon d=if on.get() { BELL } else { BELL_OFF }/> }.into_any()}
            <span class="hidden">"Sound and notifications"</span>
        </button>
    }
    .into_any()
}

//! The top bar: who I am, what I look for, and how the connection stands.

use leptos::ev::SubmitEvent;
use leptos::prelude::*;
use leptos::server_fn::ServerFn;

use super::alerts::AlertsButton;
use super::erased::{effect, live};
use super::icons::{EXIT, Icon, Logo, SEARCH, THEME};
use super::presence::PresenceSelect;
use super::wiring::{Wiring, wiring};
use crate::api::SignOut;
use crate::browser;
use crate::desk::DeskError;
use crate::socket::Status;

#[component]
pub(super) fn TopBar() -> impl IntoView {
    let ui = wiring();
    view! {
        <header class="top">
            <a class="brand" href="/inbox" aria-label="Warren, inbox">
                <Logo/>
                <span>"Warren"</span>
            </a>
            <label class="search">
                <Icon d=SEARCH/>
                <span class="hidden">"Search the list"</span>
                <input id="search" type="search" placeholder="Search" autocomplete="off"
                    prop:value=move || ui.search.get()
                    on:input=move |event| ui.search.set(event_target_value(&event))/>
                <kbd>"/"</kbd>
            </label>
            <Notice/>
            <Unkept/>
            <Pill/>
            <PresenceSelect/>
            <AlertsButton/>
            <button class="icon-button" type="button" title="Light or dark"
                on:click=|_| toggle_theme()>
                <Icon d=THEME/>
                <span class="hidden">"Light or dark"</span>
            </button>
            <SignOutButton/>
        </header>
    }
    .into_any()
}

fn toggle_theme() {
    let next = match browser::load("theme").as_deref() {
        Some("dark") => "light",
        Some("light") => "",
        _ => "dark",
    };
    browser::save("theme", next);
    browser::mark_root("data-theme", next);
}

/// The last notice, for a minute.
#[component]
fn Notice() -> impl IntoView {
    let ui = wiring();
    let fresh = Memo::new(move |_| {
        let now = ui.now.get();
        ui.desk.with(|desk| {
            desk.notices.front().filter(|notice| now.since(notice.at).as_secs() < 60).map(
                |notice| match &notice.event {
                    domain::Event::Notice { text, level } => (text.clone(), *level),
                    other => (other.name().to_owned(), domain::NoticeLevel::Info),
                },
            )
        })
    });
    view! {
        <div class="notices" role="status" aria-live="polite">
            {move || {
                fresh.get().map(|(text, level)| {
                    let class = format!("notice notice-{}", level.as_str());
                    view! { <span class=class>{text}</span> }.into_any()
                })
            }}
        </div>
    }
    .into_any()
}

/// Said where the browser has no database to keep what is on its way.
#[component]
fn Unkept() -> impl IntoView {
    let ui = wiring();
    live(move || {
        (!ui.keeps.get()).then(|| {
            view! {
                <span class="notice notice-warning" role="status" data-testid="unkept"
                    title="This browser gives the page no storage: what is still being sent is lost if you close or reload it.">
                    "Keep this tab open while it sends"
                </span>
            }
            .into_any()
        })
    })
}

/// What a trouble means for whoever works here.
fn meaning(status: Status) -> Option<&'static str> {
    match status {
        Status::Blocked => Some(
            "The broker takes nothing for now. You see everything; what you do is tried again, and told if it fails.",
        ),
        Status::BrokerLost => {
            Some("The server has lost its broker. This page goes on by itself when it is back.")
        }
        Status::Reconnecting | Status::Offline => {
            Some("This page goes on by itself when the connection is back. What you do waits.")
        }
        Status::Connecting | Status::Live(_) | Status::CatchingUp(_) => None,
    }
}

fn pill(status: Status) -> (&'static str, String) {
    match status {
        Status::Connecting => ("connecting", "connecting".into()),
        Status::Live(Some(ms)) => ("live", format!("live {ms} ms")),
        Status::Live(None) => ("live", "live".into()),
        Status::Blocked => ("blocked", "live, broker full".into()),
        Status::BrokerLost => ("reconnecting", "broker lost".into()),
        Status::Reconnecting => ("reconnecting", "reconnecting".into()),
        Status::CatchingUp(0) => ("catching-up", "catching up".into()),
        Status::CatchingUp(left) => ("catching-up", format!("catching up {left}")),
        Status::Offline => ("offline", "offline".into()),
    }
}

#[component]
fn Pill() -> impl IntoView {
    let ui = wiring();
    view! {
        <span class="pill" role="status" data-testid="connection-pill"
            data-state=move || pill(ui.status.get()).0 title=move || meaning(ui.status.get())>
            <span class="dot"></span>
            {move || pill(ui.status.get()).1}
        </span>
    }
    .into_any()
}

#[component]
fn SignOutButton() -> impl IntoView {
    let ui: Wiring = wiring();
    let action = ServerAction::<SignOut>::new();
    let submit = move |event: SubmitEvent| {
        event.prevent_default();
        action.dispatch(SignOut {});
    };
    effect(move || {
        if let Some(Ok(()) | Err(DeskError::SignedOut)) = action.value().get() {
            ui.tell(super::wiring::Tell::Stop);
            browser::go("/sign-in");
        }
    });
    view! {
        <form method="post" action=SignOut::url() on:submit=submit>
            <button class="icon-button" type="submit" title="Sign out" data-testid="sign-out">
                <Icon d=EXIT/>
                <span class="hidden">"Sign out"</span>
            </button>
        </form>
    }
    .into_any()
}

//! The shell of the desk: what stays on the screen in every room, and what
//! goes on while it is there.

use std::time::Duration;

use domain::InteractionId;
use leptos::prelude::*;
use leptos::task::spawn_local;
use leptos_router::NavigateOptions;
use leptos_router::components::{Outlet, Redirect};
use leptos_router::hooks::{use_location, use_navigate, use_query_map};

use super::alerts::Alerts;
use super::bar::TopBar;
use super::calls::{CallBar, Offers};
use super::erased::{Key, each};
use super::failures::Elsewhere;
use super::help::Help;
use super::icons::{ADMIN, HELP, INBOX, Icon};
use super::keys;
use super::new_ticket::NewTicket;
use super::presence::AwayDialog;
use super::transfer::TransferDialog;
use super::wiring::{Tell, Wiring, wiring};
use crate::api::{self, Boot};
use crate::browser;
use crate::codec::with_page;
use crate::desk::{DeskError, ListRequest};
use crate::state::{Desk, Filter, ListView};

/// Around every room of who is signed in.
#[component]
pub(super) fn Shell() -> impl IntoView {
    let path = use_location().pathname;
    let query = use_query_map();
    let search = RwSignal::new(String::new());
    let selected: Memo<Option<InteractionId>> =
        Memo::new(move |_| path.read().strip_prefix("/inbox/")?.parse().ok());
    let filter = Memo::new(move |_| {
        let query = query.read();
        Filter {
            view: query.get("view").and_then(|text| text.parse().ok()).unwrap_or_default(),
            channel: query.get("channel").and_then(|text| text.parse().ok()),
            text: search.get(),
        }
    });
    let boot = with_page(move || {
        let closed = filter.with_untracked(|filter| filter.view == ListView::Closed);
        api::read_boot(selected.get_untracked(), closed)
    });
    let page = move || {
        Suspend::new(async move {
            match boot.await {
                Ok(Some(boot)) => {
                    let wiring = Wiring::new(&boot, selected, filter, search);
                    provide_context(wiring);
                    view! { <DeskPage boot=boot/> }.into_any()
                }
                Ok(None) | Err(DeskError::SignedOut) => {
                    view! { <Redirect path="/sign-in"/> }.into_any()
                }
                Err(error) => view! { <Broken error=error/> }.into_any(),
            }
        })
    };
    view! {
        <Suspense fallback=|| view! { <p class="loading">"Loading the desk\u{2026}"</p> }>
            {page}
        </Suspense>
    }
    .into_any()
}

#[component]
fn Broken(error: DeskError) -> impl IntoView {
    view! {
        <main class="door">
            <div class="door-card">
                <h1>"The desk can't be shown"</h1>
                <p class="form-error" role="alert" data-testid="error">{error.to_string()}</p>
                <p><a href="/inbox" rel="external">"Try again"</a></p>
            </div>
        </main>
    }
    .into_any()
}

#[component]
fn DeskPage(boot: Boot) -> impl IntoView {
    let ui = wiring();
    live(ui, boot);
    view! {
        <Alerts/>
        <div class="desk" class:has-selection=move || ui.selected.get().is_some()
            class:drawer-open=move || ui.drawer.get()>
            <TopBar/>
            <CallBar/>
            <Elsewhere/>
            <Rail/>
            <Outlet/>
            <Offers/>
            <Help/>
            <NewTicket/>
            <TransferDialog/>
            <AwayDialog/>
            <Queues/>
        </div>
    }
    .into_any()
}

/// What goes on while the page is there: the socket, the seconds, the keys.
fn live(ui: Wiring, boot: Boot) {
    let navigate = use_navigate();
    Effect::new(move |started: Option<()>| {
        if started.is_some() {
            return;
        }
        ui.start(&boot);
        let second = set_interval_with_handle(move || ui.tick(), Duration::from_secs(1));
        let navigate = navigate.clone();
        let keys = window_event_listener(leptos::ev::keydown, move |event| {
            keys::pressed(ui, &|to| navigate(to, NavigateOptions::default()), &event);
        });
        let online = window_event_listener(leptos::ev::online, move |_| ui.tell(Tell::Wake));
        let offline = window_event_listener(leptos::ev::offline, move |_| ui.tell(Tell::Offline));
        let visible = document_visibility(move || {
            if browser::is_visible() {
                ui.tell(Tell::Wake);
            }
        });
        on_cleanup(move || {
            if let Ok(second) = second {
                second.clear();
            }
            keys.remove();
            online.remove();
            offline.remove();
            visible.remove();
            ui.tell(Tell::Stop);
        });
    });
    // Every interaction that comes on the screen is read, and its entries followed.
    Effect::new(move |before: Option<Option<InteractionId>>| {
        let now = ui.selected.get();
        if before.is_some_and(|before| before != now) {
            ui.entry.set(None);
            ui.drawer.set(false);
            ui.tell(Tell::Show(now));
        }
        now
    });
    // What is over is read when it is asked for.
    Effect::new(move |before: Option<ListView>| {
        let view = ui.filter.with(|filter| filter.view);
        if view == ListView::Closed && before.is_some_and(|before| before != view) {
            spawn_local(async move {
                let request = ListRequest { view: view.view(), ..ListRequest::default() };
                if let Ok(list) = api::interactions(request).await {
                    ui.tell(Tell::Rows(list.interactions));
                }
            });
        }
        view
    });
}

fn document_visibility(changed: impl Fn() + 'static) -> WindowListenerHandle {
    // The event bubbles up to the window.
    window_event_listener_untyped("visibilitychange", move |_| changed())
}

/// The queues that are known, for fields that name one.
#[component]
fn Queues() -> impl IntoView {
    let ui = wiring();
    let queues = Memo::new(move |_| ui.desk.with(Desk::queues));
    view! {
        <datalist id="queues">
            {each(
                move || queues.get(),
                |queue| Key::Text(queue.clone()),
                |queue| view! { <option value=queue></option> }.into_any(),
            )}
        </datalist>
    }
    .into_any()
}

/// The rooms. More of them get a place here.
#[component]
fn Rail() -> impl IntoView {
    let ui = wiring();
    let path = use_location().pathname;
    let room = move |name: &'static str| path.with(|path| path.starts_with(name)).then_some("page");
    view! {
        <nav class="rail" aria-label="Rooms">
            <a href="/inbox" aria-current=move || room("/inbox") title="Inbox (g i)"
                data-testid="room-inbox">
                <Icon d=INBOX/>
                <span>"Inbox"</span>
            </a>
            {move || {
                ui.desk.with(|desk| desk.role() == domain::Role::Admin).then(|| {
                    view! {
                        <a href="/admin/dead-letters" aria-current=move || room("/admin")
                            title="Administration" data-testid="admin">
                            <Icon d=ADMIN/>
                            <span>"Admin"</span>
                        </a>
                    }
                    .into_any()
                })
            }}
            <button class="rail-help" type="button" title="Keys (?)"
                on:click=|_| browser::open_dialog("#help")>
                <Icon d=HELP/>
                <span>"Keys"</span>
            </button>
        </nav>
    }
    .into_any()
}

//! The desk itself: one page whose parts stay while the address moves on.

use std::time::Duration;

use domain::InteractionId;
use leptos::prelude::*;
use leptos::task::spawn_local;
use leptos_meta::Title;
use leptos_router::NavigateOptions;
use leptos_router::components::Redirect;
use leptos_router::hooks::{use_navigate, use_params_map, use_query_map};

use super::bar::TopBar;
use super::calls::{CallBar, Offers};
use super::context::ContextPane;
use super::help::Help;
use super::icons::{ChannelIcon, INBOX, Icon};
use super::list::ListPane;
use super::thread::ThreadPane;
use super::wiring::{Tell, Wiring, address};
use super::{icons, keys};
use crate::api::{self, Boot};
use crate::browser;
use crate::codec::with_page;
use crate::desk::{DeskError, ListRequest};
use crate::state::{Filter, ListView};

/// `/inbox` and `/inbox/ID`
#[component]
pub(super) fn Inbox() -> impl IntoView {
    let params = use_params_map();
    let query = use_query_map();
    let search = RwSignal::new(String::new());
    let selected: Memo<Option<InteractionId>> =
        Memo::new(move |_| params.read().get("id").and_then(|text| text.parse().ok()));
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
    let ui: Wiring = expect_context();
    live(ui, boot);
    let title = move || {
        ui.desk.with(|desk| {
            let offers = desk.offers(ui.now.get()).len();
            if offers > 0 { format!("({offers}) Warren") } else { "Warren".to_owned() }
        })
    };
    view! {
        <Title text=title/>
        <div class="desk" class:has-selection=move || ui.selected.get().is_some()
            class:drawer-open=move || ui.drawer.get()>
            <TopBar/>
            <CallBar/>
            <Rail/>
            <ListPane/>
            <ThreadPane/>
            <ContextPane/>
            <Offers/>
            <Help/>
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

#[component]
fn Rail() -> impl IntoView {
    let ui: Wiring = expect_context();
    let to = move |channel| ui.filter.with(|filter| address(None, filter.view, channel));
    let current =
        move |channel| ui.filter.with(|filter| (filter.channel == channel).then_some("page"));
    view! {
        <nav class="rail" aria-label="Channels">
            <a href=move || to(None) aria-current=move || current(None) title="All channels">
                <Icon d=INBOX/>
                <span>"All"</span>
            </a>
            {domain::Channel::ALL
                .iter()
                .map(|channel| {
                    let label = match channel {
                        domain::Channel::Voice => "Calls",
                        domain::Channel::Chat => "Chats",
                        domain::Channel::Tickets => "Tickets",
                    };
                    view! {
                        <a href=move || to(Some(*channel))
                            aria-current=move || current(Some(*channel)) title=label>
                            <ChannelIcon channel=*channel/>
                            <span>{label}</span>
                        </a>
                    }
                })
                .collect_view()}
            {move || {
                ui.desk.with(|desk| desk.role() == domain::Role::Admin).then(|| {
                    view! {
                        <a class="rail-end" href="/admin/dead-letters" title="Administration"
                            data-testid="admin">
                            <Icon d=icons::ADMIN/>
                            <span>"Admin"</span>
                        </a>
                    }
                })
            }}
            <button class="rail-help" type="button" title="Keys (?)"
                on:click=|_| browser::toggle_dialog("#help")>
                <Icon d=icons::HELP/>
                <span>"Keys"</span>
            </button>
        </nav>
    }
    .into_any()
}

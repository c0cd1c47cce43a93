//! Administration: what nobody could do, to be put back or dropped.

use std::collections::HashSet;
use std::time::Duration;

use domain::{Channel, Timestamp};
use leptos::prelude::*;
use leptos::task::spawn_local;
use leptos_meta::Title;
use leptos_router::components::Redirect;
use leptos_router::hooks::use_location;
use protocol::{DeadLetterList, DeadLetterView};

use super::erased::{Key, each, effect};
use super::icons::ChannelIcon;
use crate::api;
use crate::codec::with_page;
use crate::desk::DeskError;

/// How often the list is read again.
const REFRESH: Duration = Duration::from_secs(5);

/// `/admin/dead-letters`
#[component]
pub(super) fn DeadLettersPage() -> impl IntoView {
    let first = with_page(api::dead_letters);
    let letters = move || {
        Suspend::new(async move {
            match first.await {
                Ok(list) => view! { <Letters first=list/> }.into_any(),
                Err(error) => refused(&error),
            }
        })
    };
    view! {
        <Title text="Dead letters - Warren"/>
        <main class="admin">
            <AdminTabs/>
            <h1>"Dead letters"</h1>
            <p class="admin-hint">
                "Events and commands that waited too long or failed again and again. \
                 Replaying one puts it back into its queue under the same id: what it has \
                 brought about already isn't brought about twice."
            </p>
            <Suspense fallback=|| {
                view! { <p class="loading">"Reading the dead letters\u{2026}"</p> }
            }>{letters}</Suspense>
        </main>
    }
    .into_any()
}

/// In the place of a page that the server doesn't give.
pub(super) fn refused(error: &DeskError) -> AnyView {
    let words = match error {
        DeskError::SignedOut => return view! { <Redirect path="/sign-in"/> }.into_any(),
        DeskError::Forbidden => "Only an admin sees this page.".to_owned(),
        error => error.to_string(),
    };
    view! { <p class="form-error" role="alert">{words}</p> }.into_any()
}

/// To the second, UTC: the same for every reader, and in the log.
pub(super) fn moment(at: Timestamp) -> String {
    let text = at.to_string();
    format!("{} UTC", text.get(..19).unwrap_or(&text).replace('T', " "))
}

/// From one page of the room to another.
#[component]
pub(super) fn AdminTabs() -> impl IntoView {
    let path = use_location().pathname;
    let tab = move |to: &'static str, label: &'static str| {
        let current = move || path.with(|path| path == to).then_some("page");
        view! { <a href=to aria-current=current>{label}</a> }
    };
    view! {
        <nav class="admin-tabs" aria-label="Administration">
            {tab("/admin/dead-letters", "Dead letters")} {tab("/admin/audit", "Loss auditor")}
        </nav>
    }
    .into_any()
}

/// The signals of the page. Copies share.
#[derive(Clone, Copy)]
struct Ui {
    list: RwSignal<DeadLetterList>,
    /// On their way.
    busy: RwSignal<HashSet<String>>,
    /// The one that is to be dropped, once that is said again.
    dropping: RwSignal<Option<String>>,
    /// The one that is read, and how it reads.
    open: RwSignal<Option<String>>,
    shown: RwSignal<Option<DeadLetterView>>,
    said: RwSignal<Option<String>>,
}

impl Ui {
    fn refresh(self) {
        spawn_local(async move { self.read().await });
    }

    async fn read(self) {
        match api::dead_letters().await {
            Ok(list) => {
                // A list that hasn't changed is not drawn again.
                if self.list.with_untracked(|known| *known != list) {
                    self.list.set(list);
                }
            }
            Err(error) => self.said.set(Some(error.to_string())),
        }
    }

    fn settle(self, ids: Vec<String>, replay: bool) {
        self.dropping.set(None);
        self.said.set(None);
        spawn_local(async move {
            for id in ids {
                self.busy.update(|busy| {
                    busy.insert(id.clone());
                });
                let done = api::settle_dead_letter(id.clone(), replay).await;
                self.busy.update(|busy| {
                    busy.remove(&id);
                });
                match done {
                    Ok(true) => {}
                    Ok(false) => self.said.set(Some(format!("{id} was gone already"))),
                    Err(error) => {
                        self.said.set(Some(format!("{id}: {error}")));
                        break;
                    }
                }
            }
            self.read().await;
        });
    }

    fn toggle(self, id: &str) {
        self.shown.set(None);
        if self.open.with_untracked(|open| open.as_deref() == Some(id)) {
            self.open.set(None);
            return;
        }
        let id = id.to_owned();
        self.open.set(Some(id.clone()));
        spawn_local(async move {
            match api::dead_letter(id.clone()).await {
                Ok(Some(letter)) => {
                    if self.open.with_untracked(|open| open.as_ref() == Some(&id)) {
                        self.shown.set(Some(letter));
                    }
                }
                Ok(None) => self.refresh(),
                Err(error) => self.said.set(Some(error.to_string())),
            }
        });
    }
}

#[component]
fn Letters(first: DeadLetterList) -> impl IntoView {
    let ui = Ui {
        list: RwSignal::new(first),
        busy: RwSignal::new(HashSet::new()),
        dropping: RwSignal::new(None),
        open: RwSignal::new(None),
        shown: RwSignal::new(None),
        said: RwSignal::new(None),
    };
    provide_context(ui);
    effect(move || {
        if let Ok(again) = set_interval_with_handle(move || ui.refresh(), REFRESH) {
            on_cleanup(move || again.clear());
        }
    });
    let count = move || ui.list.with(|list| (list.dead.len(), list.more));
    let told = move || match count() {
        (0, _) => "None: nothing has failed for good.".to_owned(),
        (1, _) => "1 dead letter".to_owned(),
        (count, false) => format!("{count} dead letters"),
        (count, true) => format!("The oldest {count}; there are more"),
    };
    let all = move |_| {
        let ids = ui.list.with_untracked(|list| list.dead.iter().map(|it| it.id.clone()).collect());
        ui.settle(ids, true);
    };
    view! {
        <div class="letters-head">
            <p role="status" data-testid="dead-count">{move || told()}</p>
            {move || (count().0 > 1).then(|| view! {
                <button class="button" type="button" data-testid="replay-all"
                    disabled=move || !ui.busy.with(HashSet::is_empty) on:click=all>
                    "Replay all"
                </button>
            }.into_any())}
        </div>
        {move || ui.said.get().map(|said| {
            view! { <p class="form-error" role="alert">{said}</p> }.into_any()
        })}
        <ul class="letters">
            {each(
                move || ui.list.get().dead,
                |one| Key::Text(format!("{} {} {}", one.channel, one.deaths.len(), one.id)),
                |letter| view! { <Letter letter=letter/> }.into_any(),
            )}
        </ul>
    }
    .into_any()
}

#[component]
fn Letter(letter: DeadLetterView) -> impl IntoView {
    let ui: Ui = expect_context();
    let DeadLetterView { id, channel, kind, deaths, .. } = letter;
    let id = StoredValue::new(id);
    let busy = move || ui.busy.with(|busy| id.with_value(|id| busy.contains(id)));
    let open =
        Memo::new(move |_| ui.open.with(|open| id.with_value(|id| open.as_ref() == Some(id))));
    let dropping =
        Memo::new(move |_| ui.dropping.with(|one| id.with_value(|id| one.as_ref() == Some(id))));
    let last = deaths.last().cloned();
    let times = deaths.len();
    let reason = last.as_ref().map_or_else(String::new, |death| reason_words(&death.reason));
    let at = last.and_then(|death| death.at);
    view! {
        <li class="letter" data-testid="dead-letter" aria-busy=move || busy().to_string()>
            <div class="letter-row">
                <ChannelIcon channel=channel/>
                <div class="letter-words">
                    <strong>{kind_words(&kind, channel)}</strong>
                    <span class="chip chip-act">{reason}</span>
                    {(times > 1).then(|| view! {
                        <span class="chip">{format!("died {times} times")}</span>
                    }.into_any())}
                    <span class="letter-at">{at.map(moment)}</span>
                    <code>{id.get_value()}</code>
                </div>
                <div class="letter-actions">
                    <button class="button" type="button" aria-expanded=move || open.get().to_string()
                        data-testid="dead-show" on:click=move |_| id.with_value(|id| ui.toggle(id))>
                        {move || if open.get() { "Hide" } else { "Show" }}
                    </button>
                    <button class="button primary" type="button" data-testid="dead-replay"
                        disabled=busy on:click=move |_| ui.settle(vec![id.get_value()], true)>
                        "Replay"
                    </button>
                    {move || {
                        if dropping.get() {
                            view! {
                                <button class="button danger" type="button" disabled=busy
                                    data-testid="dead-drop-sure"
                                    on:click=move |_| ui.settle(vec![id.get_value()], false)>
                                    "Delete for good"
                                </button>
                                <button class="button" type="button"
                                    on:click=move |_| ui.dropping.set(None)>
                                    "Keep"
                                </button>
                            }
                            .into_any()
                        } else {
                            view! {
                                <button class="button danger" type="button" disabled=busy
                                    data-testid="dead-drop"
                                    on:click=move |_| ui.dropping.set(Some(id.get_value()))>
                                    "Drop"
                                </button>
                            }
                            .into_any()
                        }
                    }}
                </div>
            </div>
            {move || {
                let shown = open.get().then(|| ui.shown.get()).flatten();
                shown.map(|letter| view! { <Body letter=letter/> }.into_any())
            }}
        </li>
    }
    .into_any()
}

#[component]
fn Body(letter: DeadLetterView) -> impl IntoView {
    let body = letter.body.as_ref().map(|body| match body {
        serde_json::Value::String(text) => text.clone(),
        json => serde_json::to_string_pretty(json).unwrap_or_default(),
    });
    let fact = |name: String, value: String| {
        view! { <div><dt>{name}</dt><dd>{value}</dd></div> }.into_any()
    };
    let partition = letter.partition.map_or("unknown".to_owned(), |index| index.to_string());
    view! {
        <div class="letter-body" data-testid="dead-body">
            <dl>
                {fact("Sent by".into(), letter.app_id)}
                {fact("Made".into(), moment(letter.at))}
                {fact("Partition".into(), partition)}
                {letter
                    .deaths
                    .into_iter()
                    .map(|death| {
                        let at = death.at.map(moment).unwrap_or_default();
                        fact("Died".into(), format!("{at}: {}", reason_words(&death.reason)))
                    })
                    .collect_view()}
                {letter
                    .headers
                    .into_iter()
                    .map(|(name, value)| fact(name, value))
                    .collect_view()}
            </dl>
            <pre tabindex="0">{body}</pre>
        </div>
    }
    .into_any()
}

fn reason_words(reason: &str) -> String {
    match reason {
        "expired" => "waited too long".into(),
        "delivery_limit" => "failed again and again".into(),
        other => other.to_owned(),
    }
}

fn kind_words(kind: &str, channel: Channel) -> String {
    if kind.is_empty() { format!("something for {channel}") } else { kind.to_owned() }
}

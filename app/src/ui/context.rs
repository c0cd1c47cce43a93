//! The context: the person, the facts, tags, other interactions, and the
//! journey of one entry.

use std::time::Duration;

use domain::{AgentCommand, Interaction, InteractionId, Recorded};
use leptos::prelude::*;
use leptos::task::spawn_local;
use protocol::JourneyStage;
use uuid::Uuid;

use super::erased::{Key, each, effect, live};
use super::icons::{CLOSE, ChannelIcon, Icon};
use super::wiring::{address, wiring};
use crate::api;
use crate::state::title;

#[component]
pub(super) fn ContextPane() -> impl IntoView {
    let ui = wiring();
    let current = ui.current();
    let shown = Memo::new(move |_| current.with(|row| row.as_ref().map(|row| row.id)));
    view! {
        <aside class="context" aria-label="Details">
            <button class="icon-button drawer-close" type="button"
                on:click=move |_| ui.drawer.set(false)>
                <Icon d=CLOSE/>
                <span class="hidden">"Close"</span>
            </button>
            {move || {
                shown.get().map(|id| {
                    view! {
                        <Person id=id/>
                        <Tags id=id/>
                        <Facts id=id/>
                        <Journey id=id/>
                        <Related id=id/>
                    }
                    .into_any()
                })
            }}
        </aside>
    }
    .into_any()
}

fn fact(name: &'static str, value: Option<String>) -> Option<AnyView> {
    value.map(|value| view! { <div><dt>{name}</dt><dd>{value}</dd></div> }.into_any())
}

#[component]
fn Person(id: InteractionId) -> impl IntoView {
    let row = wiring().row(id);
    live(move || {
        row.with(|row| {
            let row = row.as_ref()?;
            let contact = row.contact.clone().unwrap_or_default();
            let name = title(row);
            let initial =
                name.chars().find(|c| c.is_alphanumeric()).map(|c| c.to_uppercase().to_string());
            Some(
                view! {
                    <section class="person">
                        <span class="avatar" aria-hidden="true">{initial}</span>
                        <h2>{name}</h2>
                        <dl>
                            {fact("Email", contact.email)}
                            {fact("Phone", contact.phone.or_else(|| row.from.clone()))}
                        </dl>
                    </section>
                }
                .into_any(),
            )
        })
    })
}

#[component]
fn Facts(id: InteractionId) -> impl IntoView {
    let ui = wiring();
    let row = ui.row(id);
    let facts = move |row: &Interaction| {
        let assignee = row.assignee.as_ref().map(|it| ui.desk.with(|desk| desk.name_of(it)));
        view! {
            {fact("State", Some(row.stage.as_str().replace('_', " ")))}
            {fact("Assignee", Some(assignee.unwrap_or_else(|| "nobody".into())))}
            {fact("Queue", row.queue.clone())}
            {fact("Priority", row.priority.map(|it| it.to_string()))}
            {fact("Line", row.to.clone())}
            {fact("From", Some(if row.integration.is_empty() { "an agent".into() } else { row.integration.clone() }))}
            {fact("Their id", Some(row.external_id.clone()))}
            {fact("Opened", Some(format!("{} ago", ui.ago(row.created_at))))}
            {fact("Answered", row.answered_at.map(|at| format!("{} ago", ui.ago(at))))}
            {fact("Ended", row.end_reason.map(|it| it.as_str().replace('_', " ")))}
            {fact("Back in", row.until.map(|until| ui.left(until)))}
        }
        .into_any()
    };
    view! {
        <section>
            <h3>"Details"</h3>
            <dl>{move || row.with(|row| row.as_ref().map(facts))}</dl>
        </section>
    }
    .into_any()
}

#[component]
fn Tags(id: InteractionId) -> impl IntoView {
    let ui = wiring();
    let row = ui.row(id);
    let tags = Memo::new(move |_| {
        row.with(|row| row.as_ref().map_or_else(Vec::new, |row| row.tags.clone()))
    });
    let draft = RwSignal::new(String::new());
    let add = move |event: leptos::ev::SubmitEvent| {
        event.prevent_default();
        let tag = draft.get_untracked().trim().to_lowercase();
        if !tag.is_empty() {
            ui.give(AgentCommand::Tag { interaction_id: id, tag });
            draft.set(String::new());
        }
    };
    let tag = move |tag: String| {
        let (label, words) = (format!("Remove the tag {tag}"), tag.clone());
        let remove = move |_| ui.give(AgentCommand::Untag { interaction_id: id, tag: tag.clone() });
        view! {
            <li>
                {words}
                <button type="button" aria-label=label on:click=remove>"\u{d7}"</button>
            </li>
        }
        .into_any()
    };
    view! {
        <section>
            <h3>"Tags"</h3>
            <ul class="tags">
                {each(move || tags.get(), |tag| Key::Text(tag.clone()), tag)}
            </ul>
            <form class="tag-form" on:submit=add>
                <input aria-label="Add a tag" placeholder="Add a tag" maxlength="60"
                    data-testid="tag-input" prop:value=move || draft.get()
                    on:input=move |event| draft.set(event_target_value(&event))/>
            </form>
        </section>
    }
    .into_any()
}

/// How often a journey that goes on is read again.
const JOURNEY_AGAIN: Duration = Duration::from_secs(3);

/// What brought the chosen entry about, and how far it has got.
#[component]
fn Journey(id: InteractionId) -> impl IntoView {
    let ui = wiring();
    let chosen: Memo<Option<Recorded>> = Memo::new(move |_| {
        let entry = ui.entry.get()?;
        ui.desk.with(|desk| desk.thread(id)?.entries.iter().find(|one| one.id == entry).cloned())
    });
    let journey = RwSignal::new(None::<protocol::Journey>);
    let read = move |cause: Uuid| {
        spawn_local(async move {
            let found = api::read_journey(id, cause).await;
            // Another entry may have been chosen meanwhile.
            let still = chosen.try_get_untracked().flatten().is_some_and(|it| it.cause == cause);
            if let (true, Ok(found)) = (still, found) {
                journey.set(found);
            }
        });
    };
    effect(move || {
        journey.set(None);
        let Some(cause) = chosen.get().map(|entry| entry.cause) else { return };
        read(cause);
        if let Ok(again) = set_interval_with_handle(move || read(cause), JOURNEY_AGAIN) {
            on_cleanup(move || again.clear());
        }
    });
    live(move || {
        chosen.get().map(|entry| {
            view! {
                <section class="journey" data-testid="journey">
                    <h3>"Journey"</h3>
                    <ol class="stages">
                        {move || journey.with(|it| it.as_ref().map(|it| stages(&it.stages)))}
                    </ol>
                    <dl>
                        {fact("Event", Some(entry.event.name().to_owned()))}
                        {fact("Version", entry.version.map(|it| it.to_string()))}
                        {fact("Cause", Some(entry.cause.to_string()))}
                        {fact("Event id", Some(entry.id.to_string()))}
                        {fact("Trace", entry.trace.clone())}
                    </dl>
                </section>
            }
            .into_any()
        })
    })
}

/// Each step with how long after the first it was reached, and by how many.
fn stages(reached: &[JourneyStage]) -> Vec<AnyView> {
    let began = reached.first().map(|first| first.at);
    reached
        .iter()
        .map(|one| {
            let after = began.map_or(0, |began| one.at.as_millis() - began.as_millis());
            let when = match began {
                Some(began) if began == one.at => {
                    one.at.to_string().get(11..23).map(|it| format!("{it} UTC"))
                }
                _ => Some(format!("+{after} ms")),
            };
            let many = one.count.filter(|count| *count > 1).map(|count| format!("{count} screens"));
            let who: Vec<String> = one.agents.keys().map(ToString::to_string).collect();
            view! {
                <li data-stage=one.stage.as_str()>
                    <span>{one.stage.as_str()}</span>
                    <span class="stage-who">
                        {if who.is_empty() { many.unwrap_or_default() } else { who.join(", ") }}
                    </span>
                    <span class="stage-at">{when}</span>
                </li>
            }
            .into_any()
        })
        .collect()
}

#[component]
fn Related(id: InteractionId) -> impl IntoView {
    let ui = wiring();
    let related = Memo::new(move |_| {
        ui.desk.with(|desk| {
            let known = desk.thread(id).map(|thread| thread.related.as_slice()).unwrap_or_default();
            known
                .iter()
                .map(|row| desk.rows.get(&row.id).unwrap_or(row).clone())
                .collect::<Vec<_>>()
        })
    });
    let item = move |row: Interaction| {
        let href =
            ui.filter.with_untracked(|filter| address(Some(row.id), filter.view, filter.channel));
        let words = row.subject.clone().unwrap_or_else(|| row.preview.clone());
        let at = row.updated_at;
        view! {
            <li>
                <a href=href>
                    <ChannelIcon channel=row.stage.kind().channel()/>
                    <span class="related-words">
                        {if words.is_empty() { row.stage.kind().to_string() } else { words }}
                    </span>
                    <span class="age">{move || ui.ago(at)}</span>
                </a>
            </li>
        }
        .into_any()
    };
    live(move || {
        let related = related.get();
        (!related.is_empty()).then(|| {
            view! {
                <section>
                    <h3>"Earlier"</h3>
                    <ul class="related">{related.into_iter().map(item).collect_view()}</ul>
                </section>
            }
            .into_any()
        })
    })
}

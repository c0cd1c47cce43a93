//! The dialog that lists the keys.

use leptos::prelude::*;

use super::erased::effect;
use super::wiring::wiring;
use crate::browser;

const KEYS: [(&str, &str); 20] = [
    ("j  k", "Next, previous in the list"),
    ("Enter", "Open, or go to the composer"),
    ("r", "Reply"),
    ("n", "Note"),
    ("Ctrl Enter", "Send"),
    ("i", "Assign to me"),
    ("a", "Assign, or transfer a call"),
    ("e", "Resolve a ticket, end a chat"),
    ("Shift E", "The same, and on to the next"),
    ("s", "Snooze"),
    ("p", "Priority"),
    ("t", "Tag"),
    ("c", "Open a ticket"),
    ("Shift A", "Accept the top offer"),
    ("Shift R", "Reject the top offer"),
    ("Shift H", "Hold the call, or take it off hold"),
    ("/", "Search"),
    ("g i", "Inbox"),
    ("g a", "Administration"),
    ("?", "This list"),
];

#[component]
pub(super) fn Help() -> impl IntoView {
    let ui = wiring();
    let off = RwSignal::new(false);
    effect(move || {
        if ui.alive.get() {
            off.set(browser::load("keys").as_deref() == Some("off"));
        }
    });
    let switch = move |event: leptos::ev::Event| {
        let on = event_target_checked(&event);
        browser::save("keys", if on { "" } else { "off" });
        off.set(!on);
    };
    view! {
        <dialog id="help" class="dialog help" aria-labelledby="help-title">
            <form method="dialog">
                <h2 id="help-title">"Keys"</h2>
                <dl>
                    {KEYS
                        .into_iter()
                        .map(|(keys, what)| {
                            view! { <div><dt><kbd>{keys}</kbd></dt><dd>{what}</dd></div> }
                                .into_any()
                        })
                        .collect_view()}
                </dl>
                <label class="check">
                    <input type="checkbox" prop:checked=move || !off.get() on:change=switch/>
                    "Single keys work"
                </label>
                <button class="button primary">"Close"</button>
            </form>
        </dialog>
    }
    .into_any()
}

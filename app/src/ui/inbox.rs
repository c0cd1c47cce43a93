//! The inbox: the list, one thread, its context.

use leptos::prelude::*;

use super::context::ContextPane;
use super::list::ListPane;
use super::thread::ThreadPane;

/// `/inbox` and `/inbox/ID`: one room whose parts stay while the address moves on.
#[component]
pub(super) fn Inbox() -> impl IntoView {
    view! {
        <ListPane/>
        <ThreadPane/>
        <ContextPane/>
    }
    .into_any()
}

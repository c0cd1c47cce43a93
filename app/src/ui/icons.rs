//! Inline icons, drawn on a grid of 24.

use domain::Channel;
use leptos::prelude::*;

#[component]
pub(super) fn Icon(
    /// The path to stroke.
    d: &'static str,
) -> impl IntoView {
    view! {
        <svg class="icon" viewBox="0 0 24 24" width="18" height="18" fill="none" stroke="currentColor"
            stroke-width="1.75" stroke-linecap="round" stroke-linejoin="round" aria-hidden="true">
            <path d=d></path>
        </svg>
    }
}

pub(super) const PHONE: &str =
    "M5 4h4l2 5-2.5 1.5a11 11 0 0 0 5 5L15 13l5 2v4a2 2 0 0 1-2 2A16 16 0 0 1 3 6a2 2 0 0 1 2-2";
pub(super) const CHAT: &str =
    "M4 5h16a1 1 0 0 1 1 1v10a1 1 0 0 1-1 1h-8l-5 4v-4H4a1 1 0 0 1-1-1V6a1 1 0 0 1 1-1z";
pub(super) const TICKET: &str = "M4 6h16v4a2 2 0 0 0 0 4v4H4v-4a2 2 0 0 0 0-4V6zM14 6v12";
pub(super) const INBOX: &str = "M4 13l3-8h10l3 8v6H4v-6zM4 13h5a3 3 0 0 0 6 0h5";
pub(super) const SEARCH: &str = "M11 4a7 7 0 1 0 0 14 7 7 0 0 0 0-14zM20 20l-4-4";
pub(super) const BACK: &str = "M15 5l-7 7 7 7";
pub(super) const CLOSE: &str = "M6 6l12 12M18 6L6 18";
pub(super) const INFO: &str = "M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18zM12 11v5M12 8h.01";
pub(super) const HELP: &str = "M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18zM9.5 9.5a2.5 2.5 0 1 1 3.5 2.3c-.7.3-1 .8-1 1.7M12 16.5h.01";
pub(super) const THEME: &str = "M12 3a9 9 0 1 0 0 18V3z";
pub(super) const ADMIN: &str = "M12 3l8 3v6c0 5-3.5 8-8 9-4.5-1-8-4-8-9V6l8-3zM9 12l2 2 4-4";
pub(super) const BELL: &str = "M6 9a6 6 0 0 1 12 0c0 6 2 7 2 8H4c0-1 2-2 2-8zM10 20a2 2 0 0 0 4 0";
pub(super) const BELL_OFF: &str =
    "M6 9a6 6 0 0 1 12 0c0 6 2 7 2 8H4c0-1 2-2 2-8zM10 20a2 2 0 0 0 4 0M3 3l18 18";
pub(super) const PLUS: &str = "M12 5v14M5 12h14";
pub(super) const EXIT: &str = "M14 4h5v16h-5M10 8l-4 4 4 4M6 12h9";

#[component]
pub(super) fn ChannelIcon(channel: Channel) -> impl IntoView {
    let (d, label) = match channel {
        Channel::Voice => (PHONE, "Call"),
        Channel::Chat => (CHAT, "Chat"),
        Channel::Tickets => (TICKET, "Ticket"),
    };
    view! {
        <span class=format!("channel channel-{channel}") role="img" aria-label=label title=label>
            <Icon d=d/>
        </span>
    }
}

#[component]
pub(super) fn Logo() -> impl IntoView {
    view! {
        <svg class="logo" viewBox="0 0 32 32" width="28" height="28" aria-hidden="true">
            <rect width="32" height="32" rx="8" class="logo-ground"></rect>
            <path class="logo-ears" d="M10 18V9a2.5 2.5 0 0 1 5 0v6h2V9a2.5 2.5 0 0 1 5 0v9a6 6 0 0 1-12 0z"></path>
        </svg>
    }
}

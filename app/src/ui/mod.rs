//! The pages: sign-in, first set-up, and the desk.
#![allow(unreachable_pub, reason = "the component macro makes its property types public")]

mod admin;
mod alerts;
mod audit;
mod bar;
mod calls;
mod composer;
mod context;
mod controls;
mod dialog;
mod door;
mod entries;
mod erased;
mod failures;
mod help;
mod icons;
mod inbox;
mod keys;
mod list;
mod new_ticket;
mod presence;
mod shell;
mod thread;
mod transfer;
mod wiring;

use leptos::config::LeptosOptions;
use leptos::prelude::*;
use leptos::tachys::html::InertElement;
use leptos_meta::{MetaTags, Title, provide_meta_context};
use leptos_router::components::{ParentRoute, Redirect, Route, Router, Routes};
use leptos_router::{SsrMode, path};

use crate::browser;

/// The document around the app. `head_html` are the links and scripts of the
/// built page, nonces included; they start the app in the browser.
pub fn shell(options: LeptosOptions, head_html: String) -> impl IntoView {
    let _ = options;
    view! {
        <!DOCTYPE html>
        <html lang="en">
            <head>
                <meta charset="utf-8"/>
                <meta name="viewport" content="width=device-width, initial-scale=1"/>
                <meta name="color-scheme" content="light dark"/>
                <MetaTags/>
                {InertElement::new(head_html)}
            </head>
            <body>
                <App/>
            </body>
        </html>
    }
}

/// Every page.
#[component]
pub fn App() -> impl IntoView {
    provide_meta_context();
    Effect::new(|| {
        if let Some(theme) = browser::load("theme") {
            browser::mark_root("data-theme", &theme);
        }
        browser::mark_hydrated();
    });
    view! {
        <Title text="Warren"/>
        <Router>
            <Routes fallback=|| view! { <NotFound/> }>
                <Route path=path!("/") view=|| view! { <Redirect path="/inbox"/> } ssr=SsrMode::Async/>
                <Route path=path!("/sign-in") view=door::SignInPage ssr=SsrMode::Async/>
                <Route path=path!("/setup") view=door::SetupPage ssr=SsrMode::Async/>
                <ParentRoute path=path!("") view=shell::Shell ssr=SsrMode::Async>
                    <Route path=path!("/inbox/:id?") view=inbox::Inbox/>
                    <Route path=path!("/admin/dead-letters") view=admin::DeadLettersPage/>
                    <Route path=path!("/admin/audit") view=audit::AuditPage/>
                </ParentRoute>
            </Routes>
        </Router>
    }
}

#[component]
fn NotFound() -> impl IntoView {
    view! {
        <main class="door">
            <div class="door-card">
                <h1>"There is no such page"</h1>
                <p><a href="/inbox">"Back to the inbox"</a></p>
            </div>
        </main>
    }
}

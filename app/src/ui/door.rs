//! The pages before the desk: sign-in, and the first admin's set-up. Both
//! work as plain forms.

use leptos::ev::SubmitEvent;
use leptos::prelude::*;
use leptos::server_fn::ServerFn;
use leptos_router::components::Redirect;

use super::erased::{effect, live};
use super::icons::Logo;
use crate::api::{self, CreateFirstAdmin, SignIn};
use crate::browser;
use crate::codec::with_page;
use crate::desk::DeskError;

/// Goes to the desk once the form was taken.
fn enter_when_done(value: impl Fn() -> Option<Result<(), DeskError>> + 'static) {
    effect(move || {
        if let Some(Ok(())) = value() {
            browser::go("/inbox");
        }
    });
}

#[component]
fn FormError(value: Signal<Option<Result<(), DeskError>>>) -> impl IntoView {
    live(move || {
        value.get().and_then(Result::err).map(|error| {
            view! { <p class="form-error" role="alert" data-testid="error">{sentence(&error)}</p> }
                .into_any()
        })
    })
}

fn sentence(error: &DeskError) -> String {
    match error {
        DeskError::SignedOut => "The login or the password is wrong.".into(),
        DeskError::Forbidden => "You may not do this.".into(),
        DeskError::Invalid(detail) => {
            let mut letters = detail.chars();
            let first = letters.next().map(|first| first.to_uppercase().to_string());
            let dot = if detail.ends_with('.') { "" } else { "." };
            format!("{}{}{dot}", first.unwrap_or_default(), letters.as_str())
        }
        DeskError::Unavailable => {
            "The server can't answer right now. Try again in a moment.".into()
        }
    }
}

/// `/sign-in`
#[component]
pub(super) fn SignInPage() -> impl IntoView {
    let action = ServerAction::<SignIn>::new();
    let submit = move |event: SubmitEvent| {
        let [login, password] = browser::fields_of(&event, ["login", "password"]);
        action.dispatch(SignIn { login, password });
    };
    let value = action.value();
    enter_when_done(move || value.get());
    let door = with_page(api::read_door);
    let elsewhere = move || {
        Suspend::new(async move {
            match door.await {
                Ok(door) if door.needs_first_admin => {
                    Some(view! { <Redirect path="/setup"/> }.into_any())
                }
                Ok(door) if door.signed_in => Some(view! { <Redirect path="/inbox"/> }.into_any()),
                _ => None,
            }
        })
    };
    view! {
        <main class="door">
            <div class="door-card">
                <Logo/>
                <h1>"Sign in to Warren"</h1>
                <p class="door-hint">"Voice, chat and tickets on one desk."</p>
                <form method="post" action=SignIn::url() on:submit=submit>
                    <label>
                        "Login"
                        <input name="login" autocomplete="username" autocapitalize="none"
                            spellcheck="false" required autofocus data-testid="login"/>
                    </label>
                    <label>
                        "Password"
                        <input name="password" type="password" autocomplete="current-password"
                            required data-testid="password"/>
                    </label>
                    <FormError value=value.into()/>
                    <button class="button primary" type="submit" data-testid="sign-in"
                        disabled=move || action.pending().get()>
                        "Sign in"
                    </button>
                </form>
                <Suspense>{elsewhere}</Suspense>
            </div>
        </main>
    }
    .into_any()
}

/// `/setup`
#[component]
pub(super) fn SetupPage() -> impl IntoView {
    let action = ServerAction::<CreateFirstAdmin>::new();
    let submit = move |event: SubmitEvent| {
        let [login, name, password] = browser::fields_of(&event, ["login", "name", "password"]);
        action.dispatch(CreateFirstAdmin { login, name, password });
    };
    let value = action.value();
    enter_when_done(move || value.get());
    let door = with_page(api::read_door);
    let elsewhere = move || {
        Suspend::new(async move {
            match door.await {
                Ok(door) if !door.needs_first_admin => {
                    Some(view! { <Redirect path="/sign-in"/> }.into_any())
                }
                _ => None,
            }
        })
    };
    view! {
        <main class="door">
            <div class="door-card">
                <Logo/>
                <h1>"Set up Warren"</h1>
                <p class="door-hint">"Nobody is here yet. Make the first administrator."</p>
                <form method="post" action=CreateFirstAdmin::url() on:submit=submit>
                    <label>
                        "Login"
                        <input name="login" autocomplete="username" autocapitalize="none"
                            spellcheck="false" required autofocus data-testid="setup-login"/>
                        <small>"Small letters, digits, and . _ - @"</small>
                    </label>
                    <label>
                        "Your name"
                        <input name="name" autocomplete="name" required data-testid="setup-name"/>
                    </label>
                    <label>
                        "Password"
                        <input name="password" type="password" autocomplete="new-password"
                            required data-testid="setup-password"/>
                    </label>
                    <FormError value=value.into()/>
                    <button class="button primary" type="submit" data-testid="setup-submit"
                        disabled=move || action.pending().get()>
                        "Create and sign in"
                    </button>
                </form>
                <Suspense>{elsewhere}</Suspense>
            </div>
        </main>
    }
    .into_any()
}

//! A dialog that asks for something: its title, its fields, and the foot with the
//! way out and the way on.

use leptos::ev::SubmitEvent;
use leptos::prelude::*;

use crate::browser;

/// `NAME` is the dialog's id; its form is called `NAME-form`, its title `NAME-title`.
#[component]
pub(super) fn FormDialog(
    name: &'static str,
    title: &'static str,
    #[prop(optional)] wide: bool,
    submit: Callback<SubmitEvent>,
    /// The button that sends the form.
    #[prop(into)]
    send: AnyView,
    children: Children,
) -> impl IntoView {
    view! {
        <dialog id=name class="dialog" class:dialog-wide=wide
            aria-labelledby=format!("{name}-title")>
            <h2 id=format!("{name}-title")>{title}</h2>
            <form id=format!("{name}-form") on:submit=move |event| submit.run(event)>
                {children()}
                <div class="dialog-foot">
                    <button class="button" type="button"
                        on:click=move |_| { browser::close_dialog(&format!("#{name}")); }>
                        "Cancel"
                    </button>
                    {send}
                </div>
            </form>
        </dialog>
    }
    .into_any()
}

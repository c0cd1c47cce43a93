//! Lists, effects and what is drawn anew, each as one type. Leptos compiles its own
//! for every closure that it is given, and the browser loads all of them.

use std::sync::{Arc, Mutex};

use leptos::prelude::*;
use leptos::tachys::reactive_graph::SharedReactiveFunction;
use uuid::Uuid;

/// What tells a row of a list from the others.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) enum Key {
    Id(Uuid),
    Text(String),
}

struct Item {
    key: Key,
    draw: Box<dyn FnOnce() -> AnyView + Send>,
}

/// Draws a row for each item. One whose key stays is left as it is, whatever
/// comes and goes around it.
pub(super) fn each<T: Send + 'static>(
    items: impl Fn() -> Vec<T> + Send + 'static,
    key: impl Fn(&T) -> Key + Send + 'static,
    row: impl Fn(T) -> AnyView + Copy + Send + 'static,
) -> AnyView {
    rows(Box::new(move || {
        let item = |one| Item { key: key(&one), draw: Box::new(move || row(one)) };
        items().into_iter().map(item).collect()
    }))
}

fn rows(items: Box<dyn Fn() -> Vec<Item> + Send>) -> AnyView {
    let key = |item: &Item| item.key.clone();
    view! { <For each=items key=key children=|item| (item.draw)()/> }.into_any()
}

/// Draws it, and again whenever something changes that it has read. A closure that is
/// written in its place in `view!` is the same; one that is only named there isn't.
pub(super) fn live<T: IntoView + 'static>(draw: impl FnMut() -> T + Send + 'static) -> AnyView {
    let draw: SharedReactiveFunction<T> = Arc::new(Mutex::new(draw));
    draw.into_any()
}

/// Done where there is a browser, and again whenever something changes that it has read.
pub(super) fn effect(run: impl FnMut() + 'static) {
    let run: Box<dyn FnMut()> = Box::new(run);
    Effect::new(run);
}

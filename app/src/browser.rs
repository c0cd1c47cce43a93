//! The little that pages need of a browser; nothing happens where there is none.

#[cfg(feature = "browser")]
pub(crate) use real::*;
#[cfg(not(feature = "browser"))]
pub(crate) use stand_in::*;

#[cfg(feature = "browser")]
mod real {
    use domain::{CommandId, Timestamp};
    use wasm_bindgen::{JsCast, JsValue};

    fn window() -> Option<web_sys::Window> {
        web_sys::window()
    }

    fn document() -> Option<web_sys::Document> {
        window().and_then(|window| window.document())
    }

    /// This computer's time.
    pub(crate) fn now() -> Timestamp {
        #[allow(clippy::cast_possible_truncation, reason = "milliseconds of this century")]
        Timestamp::from_millis(js_sys::Date::now() as i64)
    }

    /// Milliseconds of a clock that never jumps.
    pub(crate) fn steady_ms() -> u64 {
        let ms = window().and_then(|window| window.performance()).map_or(0.0, |it| it.now());
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is small")]
        let ms = ms as u64;
        ms
    }

    fn random_bytes() -> [u8; 10] {
        let mut bytes = [0; 10];
        if let Some(crypto) = window().and_then(|window| window.crypto().ok()) {
            let _ = crypto.get_random_values_with_u8_array(&mut bytes);
        }
        bytes
    }

    /// A number that nobody guesses.
    pub(crate) fn seed() -> u64 {
        random_bytes().iter().take(8).fold(0, |seed, byte| seed << 8 | u64::from(*byte))
    }

    /// A new UUIDv7.
    pub(crate) fn new_command_id() -> CommandId {
        let ms = u64::try_from(now().as_millis()).unwrap_or(0);
        CommandId(uuid::Builder::from_unix_timestamp_millis(ms, &random_bytes()).into_uuid())
    }

    /// Hours and minutes where the reader is.
    pub(crate) fn local_clock(at: Timestamp) -> String {
        #[allow(clippy::cast_precision_loss, reason = "milliseconds of this century")]
        let date = js_sys::Date::new(&JsValue::from_f64(at.as_millis() as f64));
        format!("{:02}:{:02}", date.get_hours(), date.get_minutes())
    }

    fn storage() -> Option<web_sys::Storage> {
        window().and_then(|window| window.local_storage().ok().flatten())
    }

    /// Reads from the local storage.
    pub(crate) fn load(key: &str) -> Option<String> {
        storage().and_then(|storage| storage.get_item(key).ok().flatten())
    }

    /// Writes to the local storage; empty text removes.
    pub(crate) fn save(key: &str, text: &str) {
        if let Some(storage) = storage() {
            let _ = if text.is_empty() {
                storage.remove_item(key)
            } else {
                storage.set_item(key, text)
            };
        }
    }

    /// Says on the root element that the page is alive.
    pub(crate) fn mark_hydrated() {
        if let Some(root) = document().and_then(|document| document.document_element()) {
            let _ = root.set_attribute("data-hydrated", "true");
        }
    }

    /// Puts a `data-` attribute on the root element.
    pub(crate) fn mark_root(name: &str, value: &str) {
        if let Some(root) = document().and_then(|document| document.document_element()) {
            let _ = if value.is_empty() {
                root.remove_attribute(name)
            } else {
                root.set_attribute(name, value)
            };
        }
    }

    fn find(selector: &str) -> Option<web_sys::HtmlElement> {
        document()?.query_selector(selector).ok()??.dyn_into().ok()
    }

    /// Focuses the first element that fits.
    pub(crate) fn focus(selector: &str) {
        if let Some(element) = find(selector) {
            let _ = element.focus();
        }
    }

    /// Focuses a choice and opens it.
    pub(crate) fn pick(selector: &str) {
        let Some(element) = find(selector) else { return };
        let _ = element.focus();
        // Older browsers have no such function: the focus is enough.
        if let Ok(open) = js_sys::Reflect::get(&element, &"showPicker".into())
            && let Some(open) = open.dyn_ref::<js_sys::Function>()
        {
            let _ = open.call0(&element);
        }
    }

    /// Presses the first element that fits.
    pub(crate) fn press(selector: &str) {
        if let Some(element) = find(selector) {
            element.click();
        }
    }

    fn dialog(selector: &str) -> Option<web_sys::HtmlDialogElement> {
        find(selector)?.dyn_into().ok()
    }

    /// Opens a dialog.
    pub(crate) fn open_dialog(selector: &str) {
        if let Some(dialog) = dialog(selector).filter(|dialog| !dialog.open()) {
            let _ = dialog.show_modal();
        }
    }

    pub(crate) fn is_dialog_open(selector: &str) -> bool {
        dialog(selector).is_some_and(|dialog| dialog.open())
    }

    /// Closes a dialog. True if it was open.
    pub(crate) fn close_dialog(selector: &str) -> bool {
        let open = dialog(selector).filter(web_sys::HtmlDialogElement::open);
        open.inspect(web_sys::HtmlDialogElement::close).is_some()
    }

    /// Empties the fields of a form.
    pub(crate) fn reset_form(selector: &str) {
        if let Some(form) =
            find(selector).and_then(|it| it.dyn_into::<web_sys::HtmlFormElement>().ok())
        {
            form.reset();
        }
    }

    /// True if keys go into a field, or a dialog is open.
    pub(crate) fn is_typing() -> bool {
        let Some(document) = document() else { return false };
        let active = document.active_element().map(|active| active.tag_name());
        matches!(active.as_deref(), Some("INPUT" | "TEXTAREA" | "SELECT"))
            || document.query_selector("dialog[open]").ok().flatten().is_some()
    }

    /// How far an element is scrolled, and how far it is from its end.
    pub(crate) fn scroll_of(selector: &str) -> (i32, i32) {
        find(selector).map_or((0, 0), |it| {
            (it.scroll_top(), it.scroll_height() - it.scroll_top() - it.client_height())
        })
    }

    /// How far an element is scrolled, and how high it is.
    pub(crate) fn sight_of(selector: &str) -> (i32, i32) {
        find(selector).map_or((0, 0), |it| (it.scroll_top(), it.client_height()))
    }

    /// Scrolls an element as little as it takes to see what begins at `top`.
    pub(crate) fn scroll_into_sight(selector: &str, top: i32, height: i32) {
        let Some(element) = find(selector) else { return };
        let lowest = top + height - element.client_height();
        if element.scroll_top() > top {
            element.set_scroll_top(top);
        } else if element.scroll_top() < lowest {
            element.set_scroll_top(lowest);
        }
    }

    /// Gives an element its height, and empty room before its content.
    pub(crate) fn pad(selector: &str, before: i32, height: i32) {
        let Some(element) = find(selector) else { return };
        let style = element.style();
        let _ = style.set_property("padding-top", &format!("{before}px"));
        let _ = style.set_property("height", &format!("{height}px"));
    }

    /// Scrolls an element to its end.
    pub(crate) fn scroll_to_end(selector: &str) {
        if let Some(element) = find(selector) {
            element.set_scroll_top(element.scroll_height());
        }
    }

    /// Scrolls an element to its beginning.
    pub(crate) fn scroll_to_start(selector: &str) {
        if let Some(element) = find(selector) {
            element.set_scroll_top(0);
        }
    }

    /// True if somebody can see the page.
    pub(crate) fn is_visible() -> bool {
        document().is_none_or(|it| it.visibility_state() == web_sys::VisibilityState::Visible)
    }

    /// Holds a form back, and reads its fields.
    pub(crate) fn fields_of<const N: usize>(
        event: &web_sys::SubmitEvent,
        names: [&str; N],
    ) -> [String; N] {
        event.prevent_default();
        let form = event.target().and_then(|it| it.dyn_into::<web_sys::HtmlFormElement>().ok());
        let data = form.and_then(|form| web_sys::FormData::new_with_form(&form).ok());
        names.map(|name| {
            data.as_ref().and_then(|data| data.get(name).as_string()).unwrap_or_default()
        })
    }

    /// Loads another page.
    pub(crate) fn go(path: &str) {
        if let Some(window) = window() {
            let _ = window.location().set_href(path);
        }
    }

    /// This page's own WebSocket address.
    pub(crate) fn own_socket() -> Option<String> {
        let location = window()?.location();
        let scheme = if location.protocol().ok()? == "https:" { "wss" } else { "ws" };
        Some(format!("{scheme}://{}/ws", location.host().ok()?))
    }
}

#[cfg(not(feature = "browser"))]
mod stand_in {
    #![allow(dead_code, reason = "what only a browser calls")]

    use domain::{CommandId, Timestamp};

    pub(crate) fn now() -> Timestamp {
        Timestamp::from_millis(0)
    }

    pub(crate) fn new_command_id() -> CommandId {
        CommandId(uuid::Uuid::nil())
    }

    pub(crate) fn local_clock(_at: Timestamp) -> String {
        String::new()
    }

    pub(crate) fn load(_key: &str) -> Option<String> {
        None
    }

    pub(crate) fn save(_key: &str, _text: &str) {}

    pub(crate) fn mark_hydrated() {}

    pub(crate) fn mark_root(_name: &str, _value: &str) {}

    pub(crate) fn focus(_selector: &str) {}

    pub(crate) fn pick(_selector: &str) {}

    pub(crate) fn press(_selector: &str) {}

    pub(crate) fn open_dialog(_selector: &str) {}

    pub(crate) fn is_dialog_open(_selector: &str) -> bool {
        false
    }

    pub(crate) fn close_dialog(_selector: &str) -> bool {
        false
    }

    pub(crate) fn reset_form(_selector: &str) {}

    pub(crate) fn is_typing() -> bool {
        false
    }

    pub(crate) fn scroll_of(_selector: &str) -> (i32, i32) {
        (0, 0)
    }

    pub(crate) fn sight_of(_selector: &str) -> (i32, i32) {
        (0, 0)
    }

    pub(crate) fn scroll_into_sight(_selector: &str, _top: i32, _height: i32) {}

    pub(crate) fn pad(_selector: &str, _before: i32, _height: i32) {}

    pub(crate) fn scroll_to_end(_selector: &str) {}

    pub(crate) fn scroll_to_start(_selector: &str) {}

    pub(crate) fn is_visible() -> bool {
        true
    }

    pub(crate) fn fields_of<const N: usize>(
        _event: &leptos::ev::SubmitEvent,
        _names: [&str; N],
    ) -> [String; N] {
        [const { String::new() }; N]
    }

    pub(crate) fn go(_path: &str) {}
}

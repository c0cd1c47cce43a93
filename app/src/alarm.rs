//! Sound, notifications and the tab's icon; nothing happens where there is no browser.

#[cfg(feature = "browser")]
pub(crate) use real::*;
#[cfg(not(feature = "browser"))]
pub(crate) use stand_in::*;

#[cfg(feature = "browser")]
mod real {
    use std::cell::{Cell, OnceCell};

    use leptos::task::spawn_local;
    use wasm_bindgen::JsValue;
    use wasm_bindgen::closure::Closure;
    use wasm_bindgen_futures::JsFuture;
    use web_sys::{AudioContext, AudioContextState, Notification, NotificationPermission};

    use crate::browser::steady_ms;

    /// style/icon.svg with a mark on it.
    const MARKED: &str = "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 32 32'%3E%3Crect width='32' height='32' rx='8' fill='%233b4fd8'/%3E%3Cpath fill='%23fff' d='M10 18V9a2.5 2.5 0 0 1 5 0v6h2V9a2.5 2.5 0 0 1 5 0v9a6 6 0 0 1-12 0z'/%3E%3Ccircle cx='25' cy='7' r='7' fill='%23e5484d'/%3E%3C/svg%3E";
    /// A sound that the browser lets out later than this is none any more.
    const LATE_MS: u64 = 1_000;

    thread_local! {
        static AUDIO: OnceCell<Option<AudioContext>> = const { OnceCell::new() };
        static WAITS: Cell<bool> = const { Cell::new(false) };
    }

    /// Something is offered.
    pub(crate) fn ring() {
        play([880.0, 660.0]);
    }

    /// Something has come.
    pub(crate) fn chime() {
        play([740.0]);
    }

    /// Browsers let no sound out before somebody has pressed something.
    fn play<const N: usize>(hertz: [f32; N]) {
        let audio = AUDIO.with(|audio| audio.get_or_init(|| AudioContext::new().ok()).clone());
        let Some(audio) = audio.filter(|_| !WAITS.replace(true)) else { return };
        let asked = steady_ms();
        spawn_local(async move {
            if audio.state() != AudioContextState::Running
                && let Ok(running) = audio.resume()
            {
                let _ = JsFuture::from(running).await;
            }
            WAITS.set(false);
            if steady_ms().saturating_sub(asked) < LATE_MS {
                let mut at = audio.current_time();
                for hertz in hertz {
                    let _ = tone(&audio, hertz, at);
                    at += 0.18;
                }
            }
        });
    }

    fn tone(audio: &AudioContext, hertz: f32, at: f64) -> Result<(), JsValue> {
        let (voice, volume) = (audio.create_oscillator()?, audio.create_gain()?);
        voice.frequency().set_value(hertz);
        volume.gain().set_value_at_time(0.0, at)?;
        volume.gain().linear_ramp_to_value_at_time(0.15, at + 0.02)?;
        volume.gain().linear_ramp_to_value_at_time(0.0, at + 0.16)?;
        voice.connect_with_audio_node(&volume)?.connect_with_audio_node(&audio.destination())?;
        voice.start_with_when(at)?;
        voice.stop_with_when(at + 0.17)
    }

    /// Asks for leave to notify, once.
    pub(crate) fn ask_to_notify() {
        if Notification::permission() == NotificationPermission::Default {
            let _ = Notification::request_permission();
        }
    }

    /// Beside the browser; a later one of the same tag takes its place.
    pub(crate) fn notify(text: &str, tag: &str) {
        if Notification::permission() != NotificationPermission::Granted {
            return;
        }
        let options = web_sys::NotificationOptions::new();
        options.set_tag(tag);
        if let Ok(shown) = Notification::new_with_options(text, &options) {
            let pressed = Closure::once_into_js(|| {
                if let Some(window) = web_sys::window() {
                    let _ = window.focus();
                }
            });
            shown.set_onclick(wasm_bindgen::JsCast::dyn_ref(&pressed));
        }
    }

    /// Marks the tab's icon.
    pub(crate) fn badge(on: bool) {
        let document = web_sys::window().and_then(|window| window.document());
        let icon = document.and_then(|it| it.query_selector("link[rel=icon]").ok().flatten());
        let Some(icon) = icon else { return };
        if let Some(plain) =
            icon.get_attribute("href").filter(|_| !icon.has_attribute("data-plain"))
        {
            let _ = icon.set_attribute("data-plain", &plain);
        }
        let plain = icon.get_attribute("data-plain").unwrap_or_default();
        let _ = icon.set_attribute("href", if on { MARKED } else { &plain });
    }
}

#[cfg(not(feature = "browser"))]
mod stand_in {
    pub(crate) fn ring() {}

    pub(crate) fn chime() {}

    pub(crate) fn ask_to_notify() {}

    pub(crate) fn notify(_text: &str, _tag: &str) {}

    pub(crate) fn badge(_on: bool) {}
}

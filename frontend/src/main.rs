//! The browser's entry point: reports panics, then hydrates the page that the
//! server has rendered, or mounts one from nothing.

fn main() {
    console_error_panic_hook::set_once();
    #[cfg(feature = "hydrate")]
    leptos::mount::hydrate_body(app::App);
    #[cfg(all(feature = "csr", not(feature = "hydrate")))]
    leptos::mount::mount_to_body(app::App);
}

//! The commands without an answer, in the browser's own database, so that a
//! closed tab loses none.

use domain::{CommandId, FromJson, Login, Timestamp, from_fields};
use serde::Serialize;
use serde_json::Value;
use wasm_bindgen::closure::Closure;
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::JsFuture;
use web_sys::{IdbDatabase, IdbObjectStore, IdbOpenDbRequest, IdbRequest, IdbTransactionMode};

const DATABASE: &str = "warren";
const COMMANDS: &str = "commands";

/// A command as it is kept.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Kept {
    pub(super) id: CommandId,
    pub(super) login: Login,
    pub(super) at: Timestamp,
    pub(super) command: Value,
    pub(super) deadline_ms: Option<u64>,
}

from_fields!(Kept { id, login, at, command, deadline_ms });

/// The database. Where the browser has none to give, nothing is kept.
#[derive(Clone)]
pub(super) struct Store(Option<IdbDatabase>);

async fn answer(request: &IdbRequest) -> Result<JsValue, JsValue> {
    let mut listen = |resolve: js_sys::Function, reject: js_sys::Function| {
        request.set_onsuccess(Some(&resolve));
        request.set_onerror(Some(&reject));
    };
    JsFuture::from(js_sys::Promise::new(&mut listen)).await?;
    request.result()
}

async fn open() -> Result<IdbDatabase, JsValue> {
    let window = web_sys::window().ok_or(JsValue::NULL)?;
    let factory = window.indexed_db()?.ok_or(JsValue::NULL)?;
    let request: IdbOpenDbRequest = factory.open_with_u32(DATABASE, 1)?;
    let asked = request.clone();
    let upgrade = Closure::once_into_js(move || {
        if let Ok(database) = asked.result().and_then(JsCast::dyn_into::<IdbDatabase>) {
            let _ = database.create_object_store(COMMANDS);
        }
    });
    request.set_onupgradeneeded(Some(upgrade.unchecked_ref()));
    answer(&request).await?.dyn_into()
}

impl Store {
    pub(super) async fn open() -> Self {
        Self(open().await.ok())
    }

    /// Keeps nothing.
    pub(super) fn none() -> Self {
        Self(None)
    }

    pub(super) fn keeps(&self) -> bool {
        self.0.is_some()
    }

    fn commands(&self, mode: IdbTransactionMode) -> Option<IdbObjectStore> {
        let database = self.0.as_ref()?;
        let transaction = database.transaction_with_str_and_mode(COMMANDS, mode).ok()?;
        transaction.object_store(COMMANDS).ok()
    }

    /// What `login` has given and has no answer to, oldest first.
    pub(super) async fn all(&self, login: &Login) -> Vec<Kept> {
        let Some(commands) = self.commands(IdbTransactionMode::Readonly) else { return Vec::new() };
        let Ok(request) = commands.get_all() else { return Vec::new() };
        let Ok(values) = answer(&request).await else { return Vec::new() };
        // They come in the order of their keys, and an id begins with its time.
        js_sys::Array::from(&values)
            .iter()
            .filter_map(|value| value.as_string())
            .filter_map(|json| Kept::from_text(&json))
            .filter(|one: &Kept| &one.login == login)
            .collect()
    }

    pub(super) fn put(&self, one: &Kept) {
        if let (Some(commands), Ok(json)) =
            (self.commands(IdbTransactionMode::Readwrite), serde_json::to_string(one))
        {
            let key = JsValue::from_str(&one.id.to_string());
            let _ = commands.put_with_key(&JsValue::from_str(&json), &key);
        }
    }

    pub(super) fn remove(&self, id: CommandId) {
        if let Some(commands) = self.commands(IdbTransactionMode::Readwrite) {
            let _ = commands.delete(&JsValue::from_str(&id.to_string()));
        }
    }
}

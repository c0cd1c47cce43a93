//! Server functions: a page's way to the server's [`Desk`](crate::desk::Desk).

use domain::{InteractionId, Timestamp, from_fields};
use leptos::prelude::*;
use leptos::server_fn::codec::Json;
use protocol::{
    AgentView, AuditView, DeadLetterList, DeadLetterView, InteractionDetail, InteractionList,
    Journey, Me,
};
use serde::Serialize;
use uuid::Uuid;

use crate::codec::{Answer, Form};
use crate::desk::{DeskError, ListRequest};

/// All that the desk begins with.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Boot {
    /// Who is signed in.
    pub me: Me,
    /// Everybody.
    pub agents: Vec<AgentView>,
    /// What is open, and where the channels stood.
    pub open: InteractionList,
    /// What is over, if that was asked for.
    pub closed: Option<InteractionList>,
    /// The interaction in the address.
    pub detail: Option<InteractionDetail>,
    /// The server's time.
    pub now: Timestamp,
}

from_fields!(Boot { me, agents, open, closed, detail, now });

/// What the sign-in pages have to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Door {
    /// True while there is no agent at all.
    pub needs_first_admin: bool,
    /// True if somebody is signed in.
    pub signed_in: bool,
}

from_fields!(Door { needs_first_admin, signed_in });

#[cfg(feature = "ssr")]
fn desk() -> Result<std::sync::Arc<dyn crate::desk::Desk>, DeskError> {
    use_context::<std::sync::Arc<dyn crate::desk::Desk>>().ok_or(DeskError::Unavailable)
}

#[cfg(feature = "ssr")]
#[allow(clippy::disallowed_methods, reason = "the page's ages begin with the server's time")]
fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let ms = since.map_or(0, |since| since.as_millis());
    Timestamp::from_millis(i64::try_from(ms).unwrap_or(i64::MAX))
}

/// See [`Desk::create_first_admin`](crate::desk::Desk::create_first_admin).
///
/// # Errors
/// As the desk says.
#[server(prefix = "/api/desk", endpoint = "create_first_admin", input = Form, output = Answer)]
pub async fn create_first_admin(
    login: String,
    name: String,
    password: String,
) -> Result<(), DeskError> {
    desk()?.create_first_admin(login, name, password).await
}

/// See [`Desk::sign_in`](crate::desk::Desk::sign_in).
///
/// # Errors
/// As the desk says.
#[server(prefix = "/api/desk", endpoint = "sign_in", input = Form, output = Answer)]
pub async fn sign_in(login: String, password: String) -> Result<(), DeskError> {
    desk()?.sign_in(login, password).await
}

/// See [`Desk::sign_out`](crate::desk::Desk::sign_out).
///
/// # Errors
/// As the desk says.
#[server(prefix = "/api/desk", endpoint = "sign_out", input = Form, output = Answer)]
pub async fn sign_out() -> Result<(), DeskError> {
    desk()?.sign_out().await
}

/// What the sign-in pages have to know.
///
/// # Errors
/// As the desk says.
#[server(prefix = "/api/desk", endpoint = "door", input = Json, output = Answer)]
pub async fn read_door() -> Result<Door, DeskError> {
    let desk = desk()?;
    let needs_first_admin = desk.needs_first_admin().await?;
    let signed_in = !needs_first_admin && desk.me().await?.is_some();
    Ok(Door { needs_first_admin, signed_in })
}

/// All that the desk begins with; none if nobody is signed in.
///
/// # Errors
/// As the desk says.
#[server(prefix = "/api/desk", endpoint = "boot", input = Json, output = Answer)]
pub async fn read_boot(id: Option<InteractionId>, closed: bool) -> Result<Option<Boot>, DeskError> {
    use protocol::View;
    let desk = desk()?;
    let Some(me) = desk.me().await? else { return Ok(None) };
    // Read first: the channels are followed from where this one stood.
    let open =
        desk.interactions(ListRequest { view: View::Open, ..ListRequest::default() }).await?;
    let closed = match closed {
        true => Some(
            desk.interactions(ListRequest { view: View::Closed, ..ListRequest::default() }).await?,
        ),
        false => None,
    };
    let detail = match id {
        Some(id) => desk.interaction(id).await?,
        None => None,
    };
    Ok(Some(Boot { me, agents: desk.agents().await?, open, closed, detail, now: now() }))
}

/// See [`Desk::interactions`](crate::desk::Desk::interactions).
///
/// # Errors
/// As the desk says.
#[server(prefix = "/api/desk", endpoint = "interactions", input = Json, output = Answer)]
pub async fn interactions(request: ListRequest) -> Result<InteractionList, DeskError> {
    desk()?.interactions(request).await
}

/// See [`Desk::interaction`](crate::desk::Desk::interaction).
///
/// # Errors
/// As the desk says.
#[server(prefix = "/api/desk", endpoint = "interaction", input = Json, output = Answer)]
pub async fn interaction(id: InteractionId) -> Result<Option<InteractionDetail>, DeskError> {
    desk()?.interaction(id).await
}

/// See [`Desk::agents`](crate::desk::Desk::agents).
///
/// # Errors
/// As the desk says.
#[server(prefix = "/api/desk", endpoint = "agents", input = Json, output = Answer)]
pub async fn agents() -> Result<Vec<AgentView>, DeskError> {
    desk()?.agents().await
}

/// See [`Desk::journey`](crate::desk::Desk::journey).
///
/// # Errors
/// As the desk says.
#[server(prefix = "/api/desk", endpoint = "journey", input = Json, output = Answer)]
pub async fn read_journey(
    interaction: InteractionId,
    cause: Uuid,
) -> Result<Option<Journey>, DeskError> {
    desk()?.journey(interaction, cause).await
}

/// See [`Desk::dead_letters`](crate::desk::Desk::dead_letters).
///
/// # Errors
/// As the desk says.
#[server(prefix = "/api/desk", endpoint = "dead_letters", input = Json, output = Answer)]
pub async fn dead_letters() -> Result<DeadLetterList, DeskError> {
    desk()?.dead_letters().await
}

/// See [`Desk::dead_letter`](crate::desk::Desk::dead_letter).
///
/// # Errors
/// As the desk says.
#[server(prefix = "/api/desk", endpoint = "dead_letter", input = Json, output = Answer)]
pub async fn dead_letter(id: String) -> Result<Option<DeadLetterView>, DeskError> {
    desk()?.dead_letter(id).await
}

/// See [`Desk::settle_dead_letter`](crate::desk::Desk::settle_dead_letter).
///
/// # Errors
/// As the desk says.
#[server(prefix = "/api/desk", endpoint = "settle_dead_letter", input = Json, output = Answer)]
pub async fn settle_dead_letter(id: String, replay: bool) -> Result<bool, DeskError> {
    desk()?.settle_dead_letter(id, replay).await
}

/// See [`Desk::audit`](crate::desk::Desk::audit).
///
/// # Errors
/// As the desk says.
#[server(prefix = "/api/desk", endpoint = "audit", input = Json, output = Answer)]
pub async fn audit() -> Result<AuditView, DeskError> {
    desk()?.audit().await
}

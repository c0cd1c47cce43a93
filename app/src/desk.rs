//! What the pages ask of the server. The server gives an implementation for
//! each request by context, bound to who is signed in; server functions call it.

use async_trait::async_trait;
use domain::{Channel, Fields, FromJson, InteractionId};
use protocol::{
    AgentView, AuditView, DeadLetterList, DeadLetterView, InteractionDetail, InteractionList,
    Journey, Me, View,
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Why the server says no.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum DeskError {
    /// Nobody is signed in.
    #[error("you are signed out")]
    SignedOut,
    /// Signed in, and not allowed.
    #[error("your role does not allow this")]
    Forbidden,
    /// Something in the form is wrong.
    #[error("{0}")]
    Invalid(String),
    /// The store is gone for now.
    #[error("the server can't answer right now")]
    Unavailable,
}

impl FromJson for DeskError {
    fn from_json(json: serde_json::Value) -> Option<Self> {
        match json.as_str() {
            Some("SignedOut") => Some(Self::SignedOut),
            Some("Forbidden") => Some(Self::Forbidden),
            Some("Unavailable") => Some(Self::Unavailable),
            Some(_) => None,
            None => Fields::of(json)?.take("Invalid").map(Self::Invalid),
        }
    }
}

/// Which interactions to list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ListRequest {
    /// Only of this channel.
    #[serde(default)]
    pub channel: Option<Channel>,
    /// Which of them.
    #[serde(default)]
    pub view: View,
    /// Only of this queue.
    #[serde(default)]
    pub queue: Option<String>,
    /// Where the last page ended.
    #[serde(default)]
    pub cursor: Option<String>,
}

/// What the pages ask of the server.
#[async_trait]
pub trait Desk: Send + Sync {
    /// True while there is no agent at all.
    async fn needs_first_admin(&self) -> Result<bool, DeskError>;
    /// Makes the first admin and signs in: the answer sets the session cookie.
    async fn create_first_admin(
        &self,
        login: String,
        name: String,
        password: String,
    ) -> Result<(), DeskError>;
    /// Signs in: the answer sets the session cookie.
    async fn sign_in(&self, login: String, password: String) -> Result<(), DeskError>;
    /// Ends the session and clears the cookie.
    async fn sign_out(&self) -> Result<(), DeskError>;
    /// Who is signed in, if anybody is, and where the aggregators are.
    async fn me(&self) -> Result<Option<Me>, DeskError>;
    /// A page of interactions.
    async fn interactions(&self, request: ListRequest) -> Result<InteractionList, DeskError>;
    /// One interaction with its timeline; none if there is none that this agent may see.
    async fn interaction(&self, id: InteractionId) -> Result<Option<InteractionDetail>, DeskError>;
    /// Where what brought an entry of this interaction about has got to; none
    /// if this agent may not see it.
    async fn journey(
        &self,
        interaction: InteractionId,
        cause: Uuid,
    ) -> Result<Option<Journey>, DeskError>;
    /// The oldest dead letters of each channel; for admins.
    async fn dead_letters(&self) -> Result<DeadLetterList, DeskError>;
    /// One with its body; none if it is gone.
    async fn dead_letter(&self, id: String) -> Result<Option<DeadLetterView>, DeskError>;
    /// Puts one back into its queue, or deletes it. False if it was gone already.
    async fn settle_dead_letter(&self, id: String, replay: bool) -> Result<bool, DeskError>;
    /// What the loss auditor says; for admins.
    async fn audit(&self) -> Result<AuditView, DeskError>;
    /// Every agent.
    async fn agents(&self) -> Result<Vec<AgentView>, DeskError>;
}

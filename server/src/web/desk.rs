//! What the pages ask, answered for one request: bound to who sends it.

use app::desk::{Desk, DeskError, ListRequest};
use async_trait::async_trait;
use axum::http::{HeaderMap, header};
use domain::{InteractionId, Login, Role, Timestamp};
use leptos_axum::ResponseOptions;
use protocol::{
    AgentView, AuditView, DeadLetterList, DeadLetterView, InteractionDetail, InteractionList,
    Journey, Me, Principal,
};
use uuid::Uuid;

use super::Web;
use super::session;
use crate::auth::{self, Secret};
use crate::dead_letters::{DeadLetterError, Deed, LIST_MAX};
use crate::store::{AgentRecord, ListQuery, StoreError};

const PASSWORD_CHARS_MIN: usize = 10;
const PASSWORD_BYTES_MAX: usize = 1_024;
const NAME_CHARS_MAX: usize = 100;
/// Rows on a page of the list.
const PAGE: u32 = 200;

/// The desk of one request.
pub(super) struct RequestDesk {
    web: Web,
    secret: Option<String>,
    address: String,
    answer: ResponseOptions,
}

fn unavailable(error: StoreError) -> DeskError {
    tracing::warn!(%error, "store not read");
    DeskError::Unavailable
}

/// None if it is gone.
fn settled<T>(done: Result<T, DeadLetterError>) -> Result<Option<T>, DeskError> {
    match done {
        Ok(done) => Ok(Some(done)),
        Err(DeadLetterError::Unknown) => Ok(None),
        Err(error) => {
            tracing::warn!(%error, "dead letters not reached");
            Err(DeskError::Unavailable)
        }
    }
}

impl RequestDesk {
    pub(super) fn new(
        web: Web,
        headers: &HeaderMap,
        address: String,
        answer: ResponseOptions,
    ) -> Self {
        Self { web, secret: session::secret(headers), address, answer }
    }

    fn now(&self) -> Timestamp {
        self.web.state.clock.now()
    }

    async fn signed_in(&self) -> Result<Principal, DeskError> {
        let found = self.web.principal(self.secret.as_deref()).await;
        found.map_err(|_| DeskError::Unavailable)?.ok_or(DeskError::SignedOut)
    }

    async fn admin(&self) -> Result<Principal, DeskError> {
        let principal = self.signed_in().await?;
        if principal.role == Role::Admin { Ok(principal) } else { Err(DeskError::Forbidden) }
    }

    async fn open_session(&self, login: &Login) -> Result<(), DeskError> {
        let secret = Secret::session();
        let now = self.now();
        let expires_at = now.plus(self.web.state.config.session);
        let store = &self.web.state.store;
        store.add_session(secret.hash(), login, now, expires_at).await.map_err(unavailable)?;
        let cookie = self.web.cookie(Some(&secret)).ok_or(DeskError::Unavailable)?;
        self.answer.append_header(header::SET_COOKIE, cookie);
        Ok(())
    }

    async fn check_password(&self, login: &str, password: &str) -> Result<Login, DeskError> {
        let known = match login.parse::<Login>() {
            Ok(login) => self.web.state.store.agent(&login).await.map_err(unavailable)?,
            Err(_) => None,
        };
        let busy = |error: auth::AuthError| {
            tracing::warn!(%error, "password not checked");
            DeskError::Unavailable
        };
        match known.filter(|agent| !agent.disabled) {
            Some(agent) => {
                let right =
                    auth::verify_password(password, &agent.password_hash).await.map_err(busy)?;
                right.then_some(agent.principal.login).ok_or(DeskError::SignedOut)
            }
            None => {
                // The same time for who isn't there.
                auth::verify_nobody(password).await.map_err(busy)?;
                Err(DeskError::SignedOut)
            }
        }
    }
}

#[async_trait]
impl Desk for RequestDesk {
    async fn needs_first_admin(&self) -> Result<bool, DeskError> {
        Ok(self.web.state.store.agents().await.map_err(unavailable)?.is_empty())
    }

    async fn create_first_admin(
        &self,
        login: String,
        name: String,
        password: String,
    ) -> Result<(), DeskError> {
        let invalid = |text: &str| DeskError::Invalid(text.to_owned());
        let login: Login = login
            .trim()
            .parse()
            .map_err(|error| DeskError::Invalid(format!("the login {error}")))?;
        let name = name.trim();
        if name.chars().count() > NAME_CHARS_MAX {
            return Err(invalid("the name has more than 100 characters"));
        }
        if password.chars().count() < PASSWORD_CHARS_MIN {
            return Err(invalid("the password has fewer than 10 characters"));
        }
        if password.len() > PASSWORD_BYTES_MAX {
            return Err(invalid("the password has more than 1,024 bytes"));
        }
        if !self.needs_first_admin().await? {
            return Err(invalid("there is an admin already: sign in"));
        }
        let password_hash =
            auth::hash_password(&password).await.map_err(|_| DeskError::Unavailable)?;
        let name = if name.is_empty() { login.as_str() } else { name }.to_owned();
        let principal =
            Principal { id: Uuid::now_v7(), login: login.clone(), name, role: Role::Admin };
        let agent = AgentRecord { principal, password_hash, disabled: false };
        let first = self.web.state.store.add_first_agent(&agent, self.now()).await;
        if !first.map_err(unavailable)? {
            return Err(invalid("there is an admin already: sign in"));
        }
        self.open_session(&login).await
    }

    async fn sign_in(&self, login: String, password: String) -> Result<(), DeskError> {
        let login = login.trim().to_lowercase();
        let keys = [format!("login {login:.100}"), format!("address {}", self.address)];
        if let Some(wait) = self.web.throttle.wait(&keys) {
            let seconds = wait.as_secs() + 1;
            return Err(DeskError::Invalid(format!("too many tries: wait {seconds} s")));
        }
        if password.len() > PASSWORD_BYTES_MAX {
            return Err(DeskError::SignedOut);
        }
        match self.check_password(&login, &password).await {
            Ok(login) => {
                self.web.throttle.succeeded(&keys);
                self.open_session(&login).await
            }
            Err(error) => {
                if error == DeskError::SignedOut {
                    self.web.throttle.failed(&keys);
                }
                Err(error)
            }
        }
    }

    async fn sign_out(&self) -> Result<(), DeskError> {
        if let Some(secret) = &self.secret {
            let ended = self.web.state.store.end_session(auth::hash(secret)).await;
            ended.map_err(unavailable)?;
        }
        if let Some(cookie) = self.web.cookie(None) {
            self.answer.append_header(header::SET_COOKIE, cookie);
        }
        Ok(())
    }

    async fn me(&self) -> Result<Option<Me>, DeskError> {
        match self.signed_in().await {
            Ok(principal) => {
                let aggregators = self.web.state.aggregators.borrow().clone();
                Ok(Some(Me { principal, aggregators }))
            }
            Err(DeskError::SignedOut) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn interactions(&self, request: ListRequest) -> Result<InteractionList, DeskError> {
        let cursor = request.cursor.map(|text| text.parse()).transpose();
        let query = ListQuery {
            viewer: self.signed_in().await?.login,
            channel: request.channel,
            view: request.view,
            queue: request.queue,
            cursor: cursor.map_err(|error| DeskError::Invalid(format!("cursor {error}")))?,
            limit: PAGE,
        };
        self.web.state.store.interactions(&query).await.map_err(unavailable)
    }

    async fn interaction(&self, id: InteractionId) -> Result<Option<InteractionDetail>, DeskError> {
        let viewer = self.signed_in().await?.login;
        self.web.state.store.interaction(id, &viewer).await.map_err(unavailable)
    }

    async fn journey(
        &self,
        interaction: InteractionId,
        cause: Uuid,
    ) -> Result<Option<Journey>, DeskError> {
        let seen = self.interaction(interaction).await?;
        let caused = |detail: InteractionDetail| detail.timeline.iter().any(|it| it.cause == cause);
        if !seen.is_some_and(caused) {
            return Ok(None);
        }
        let found = self.web.state.store.journey(cause).await.map_err(unavailable)?;
        Ok(found.map(|(journey, _)| journey))
    }

    async fn dead_letters(&self) -> Result<DeadLetterList, DeskError> {
        self.admin().await?;
        let listed = self.web.state.dead_letters.list(None, LIST_MAX).await;
        settled(listed)?.ok_or(DeskError::Unavailable)
    }

    async fn dead_letter(&self, id: String) -> Result<Option<DeadLetterView>, DeskError> {
        self.admin().await?;
        settled(self.web.state.dead_letters.show(&id).await)
    }

    async fn settle_dead_letter(&self, id: String, replay: bool) -> Result<bool, DeskError> {
        let who = self.admin().await?.login;
        let deed = if replay { Deed::Replay } else { Deed::Drop };
        let done = self.web.state.dead_letters.settle(&id, deed, who.as_str()).await;
        Ok(settled(done)?.is_some())
    }

    async fn audit(&self) -> Result<AuditView, DeskError> {
        self.admin().await?;
        Ok(self.web.state.members.audit().view())
    }

    async fn agents(&self) -> Result<Vec<AgentView>, DeskError> {
        self.signed_in().await?;
        self.web.state.store.agents().await.map_err(unavailable)
    }
}

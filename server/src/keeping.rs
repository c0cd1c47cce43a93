//! What an operator does beside the running service: agents, keys, tokens,
//! topology, health.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::http::Method;
use domain::{Channel, Login};
use protocol::Principal;
use uuid::Uuid;
use warren::auth::{self, Secret};
use warren::broker::Broker;
use warren::clock::Clock;
use warren::config::Settings;
use warren::store::{AgentRecord, Integration, Store, StoreError};

use crate::cli::{Key, Topology, User};
use crate::{Failure, control};

const PASSWORD_CHARS_MIN: usize = 10;

/// A line on standard output; a reader that went away ends the program.
pub(crate) fn say(line: std::fmt::Arguments<'_>) -> Result<(), Failure> {
    writeln!(std::io::stdout().lock(), "{line}")
        .map_err(|error| Failure::Refused(error.to_string()))
}

fn refused(error: StoreError) -> Failure {
    match error {
        StoreError::Exists(_) => Failure::Refused(error.to_string()),
        _ => Failure::Setup(error.to_string()),
    }
}

pub(crate) async fn user(store: Arc<dyn Store>, action: User) -> Result<(), Failure> {
    let now = Clock::default().now();
    match action {
        User::Add { login, role, name, .. } => {
            let mut password = String::new();
            std::io::stdin()
                .take(4_096)
                .read_to_string(&mut password)
                .map_err(|error| Failure::Refused(format!("standard input: {error}")))?;
            let password = password.trim_end_matches(['\r', '\n']).to_owned();
            if password.chars().count() < PASSWORD_CHARS_MIN {
                let least = format!("the password has fewer than {PASSWORD_CHARS_MIN} characters");
                return Err(Failure::Refused(least));
            }
            let password_hash = auth::hash_password(&password)
                .await
                .map_err(|error| Failure::Refused(error.to_string()))?;
            let name = name.unwrap_or_else(|| login.to_string());
            let principal = Principal { id: Uuid::now_v7(), login: login.clone(), name, role };
            let agent = AgentRecord { principal, password_hash, disabled: false };
            store.add_agent(&agent, now).await.map_err(refused)?;
            store.audit("command line", "user.add", login.as_str(), now).await.map_err(refused)
        }
        User::List { .. } => {
            for agent in store.agents().await.map_err(refused)? {
                say(format_args!("{}\t{}\t{}", agent.login, agent.role, agent.name))?;
            }
            Ok(())
        }
        User::Revoke { login, .. } => {
            if !store.disable_agent(&login).await.map_err(refused)? {
                return Err(Failure::Refused(format!("no agent {login}")));
            }
            store.audit("command line", "user.revoke", login.as_str(), now).await.map_err(refused)
        }
    }
}

/// Adds an integration and gives its key.
pub(crate) async fn add_key(
    store: &dyn Store,
    name: &str,
    scopes: Vec<Channel>,
    signature_required: bool,
) -> Result<Secret, Failure> {
    let good = !name.is_empty()
        && name.len() <= 100
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    if !good {
        let shape = "a name has 1 to 100 letters, digits, -, _ or .";
        return Err(Failure::Refused(shape.to_owned()));
    }
    let key = Secret::key();
    let integration = Integration {
        id: Uuid::now_v7(),
        name: name.to_owned(),
        scopes,
        key_hash: key.hash(),
        signature_required,
        created_at: Clock::default().now(),
        revoked_at: None,
    };
    store.add_integration(&integration).await.map_err(refused)?;
    Ok(key)
}

pub(crate) async fn key(store: Arc<dyn Store>, action: Key) -> Result<(), Failure> {
    let now = Clock::default().now();
    match action {
        Key::Add { name, scopes, require_signature, .. } => {
            let key = add_key(store.as_ref(), &name, scopes, require_signature).await?;
            store.audit("command line", "key.add", &name, now).await.map_err(refused)?;
            say(format_args!("{}", key.expose()))
        }
        Key::List { .. } => {
            for one in store.integrations().await.map_err(refused)? {
                let scopes: Vec<_> = one.scopes.iter().map(|scope| scope.as_str()).collect();
                let state = if one.revoked_at.is_some() { "revoked" } else { "active" };
                say(format_args!("{}\t{}\t{state}", one.name, scopes.join(",")))?;
            }
            Ok(())
        }
        Key::Revoke { name, .. } => {
            if !store.revoke_integration(&name, now).await.map_err(refused)? {
                return Err(Failure::Refused(format!("no key {name}")));
            }
            store.audit("command line", "key.revoke", &name, now).await.map_err(refused)
        }
    }
}

pub(crate) async fn token(
    store: Arc<dyn Store>,
    login: &Login,
    ttl: Duration,
) -> Result<(), Failure> {
    let now = Clock::default().now();
    let agent = store.agent(login).await.map_err(refused)?;
    if agent.is_none_or(|agent| agent.disabled) {
        return Err(Failure::Refused(format!("no agent {login}")));
    }
    let token = Secret::token();
    store.add_session(token.hash(), login, now, now.plus(ttl)).await.map_err(refused)?;
    store.audit("command line", "token.add", login.as_str(), now).await.map_err(refused)?;
    say(format_args!("{}", token.expose()))
}

pub(crate) async fn topology(broker: Arc<dyn Broker>, action: Topology) -> Result<(), Failure> {
    let failed = |error: warren::broker::BrokerError| Failure::Setup(error.to_string());
    match action {
        Topology::Declare { .. } => broker.declare().await.map_err(failed)?,
        Topology::Delete { .. } => {
            broker.delete().await.map_err(failed)?;
            say(format_args!("deleted"))?;
            broker.close().await;
            return Ok(());
        }
        Topology::Show { .. } => {}
    }
    let items = broker.topology().await.map_err(failed)?;
    let wrong = items.iter().filter(|item| item.status != "present").count();
    for item in &items {
        say(format_args!("{}\t{}\t{}", item.name, item.kind, item.status))?;
    }
    broker.close().await;
    match wrong {
        0 => Ok(()),
        wrong => Err(Failure::Refused(format!("{wrong} of {} differ", items.len()))),
    }
}

/// Asks `/readyz` of a listener.
pub(crate) async fn healthcheck(
    settings: &Settings,
    at: Option<SocketAddr>,
) -> Result<(), Failure> {
    let address = at.unwrap_or(settings.web.listen);
    match tokio::time::timeout(Duration::from_secs(5), ready(address)).await {
        Ok(Ok((true, body))) => say(format_args!("{body}")),
        Ok(Ok((false, body))) => Err(Failure::Refused(format!("http://{address}: {body}"))),
        Ok(Err(error)) => Err(Failure::Refused(format!("http://{address}: {error}"))),
        Err(_) => Err(Failure::Refused(format!("http://{address}: no answer in 5 s"))),
    }
}

async fn ready(address: SocketAddr) -> Result<(bool, String), control::AskError> {
    let line = tokio::net::TcpStream::connect(address).await?;
    let (status, body) = control::ask(line, &address.to_string(), Method::GET, "/readyz").await?;
    Ok((status.is_success(), String::from_utf8_lossy(&body).trim().to_owned()))
}

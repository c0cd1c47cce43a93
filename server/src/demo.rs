//! `--demo`: three agents, and customers who call, write and complain.
//!
//! The customers come in by the external API's own routes with a key of
//! their own, as any integration does, and react to what agents do.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, header};
use domain::{Channel, Interaction, InteractionId, Kind, Login, Role, Stage};
use protocol::Principal;
use rand::Rng;
use rand::seq::IndexedRandom;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;
use uuid::Uuid;
use warren::auth;
use warren::clock::Clock;
use warren::config::Settings;
use warren::store::{AgentRecord, Store};

use crate::{Failure, keeping};

const PASSWORD: &str = "warren-demo";
const AGENTS: &[(&str, &str, Role)] = &[
    ("ada", "Ada Lindqvist", Role::Admin),
    ("ben", "Ben Okafor", Role::Supervisor),
    ("cleo", "Cleo Marchetti", Role::Agent),
];
const CONTACTS: &[(&str, &str, &str)] = &[
    ("Ines Duarte", "ines.duarte@example.com", "+351210000101"),
    ("Tomasz Zielinski", "t.zielinski@example.com", "+48220000102"),
    ("Grace Mbeki", "grace@example.org", "+27110000103"),
    ("Hiro Tanaka", "hiro.tanaka@example.net", "+81300000104"),
    ("Lena Vogt", "lena.vogt@example.de", "+49300000105"),
    ("Omar Haddad", "omar@example.com", "+96110000106"),
    ("Sofia Rossi", "sofia.rossi@example.it", "+39060000107"),
    ("Mikael Berg", "mikael.berg@example.se", "+4680000108"),
];
const CHATS: &[&[&str]] = &[
    &[
        "Hi, my parcel has been at the depot since Monday. Is anything wrong?",
        "Order 88213, to Lisbon.",
        "That would be great, thank you.",
        "No, that was all. Have a good day!",
    ],
    &[
        "Can I change the address on an order that isn't shipped yet?",
        "It's the blue jacket, ordered an hour ago.",
        "Perfect, thanks for the quick help.",
    ],
    &[
        "The app signs me out every few minutes.",
        "Version 4.2 on Android 15.",
        "I cleared it, and it works now. Thank you!",
    ],
    &["Do you ship to Iceland?", "And how long does it take?", "Good to know, thanks."],
];
const TICKETS: &[(&str, &str, &str)] = &[
    (
        "Invoice shows the wrong VAT number",
        "Our invoice for October carries our old VAT number. Please send a corrected one.",
        "medium",
    ),
    (
        "Charged twice for one order",
        "My card statement shows the same amount twice, two minutes apart.",
        "high",
    ),
    ("How do I export my data?", "I would like all orders of this year as a spreadsheet.", "low"),
    (
        "Checkout fails with error 502",
        "Since this morning none of our buyers can pay. This costs us money by the minute.",
        "urgent",
    ),
    ("Return label missing", "The parcel came without the return label.", "medium"),
];
const COMMENTS: &[&str] = &[
    "Any news on this?",
    "I have found the order number: it is 88213.",
    "Thank you, that explains it.",
];

/// The most customers at once, by [`Channel::index`]; tickets stay open, so
/// theirs come slowly.
const AT_ONCE: [usize; 3] = [3, 5, 12];
const FIRST: Duration = Duration::from_millis(400);
const NEXT_MS: Range<u64> = 3_000..9_000;
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// # Errors
/// If a listener is open to others: the demo's password is known to all.
pub(crate) fn only_loopback(settings: &Settings) -> Result<(), Failure> {
    for address in [settings.web.listen, settings.external.listen] {
        if !address.ip().is_loopback() {
            let line = format!("{address}: the demo serves this machine only");
            return Err(Failure::Setup(line));
        }
    }
    Ok(())
}

/// Adds the agents where they are missing, and says who they are.
pub(crate) async fn accounts(store: &dyn Store) -> Result<(), Failure> {
    let failed = |error: String| Failure::Setup(error);
    for (login, name, role) in AGENTS {
        let login: Login = login.parse().map_err(|_| failed(format!("bad login {login}")))?;
        if store.agent(&login).await.map_err(|error| failed(error.to_string()))?.is_some() {
            continue;
        }
        let password_hash =
            auth::hash_password(PASSWORD).await.map_err(|error| failed(error.to_string()))?;
        let principal =
            Principal { id: Uuid::now_v7(), login, name: (*name).to_owned(), role: *role };
        let agent = AgentRecord { principal, password_hash, disabled: false };
        let now = Clock::default().now();
        store.add_agent(&agent, now).await.map_err(|error| failed(error.to_string()))?;
    }
    eprintln!("demo accounts, password {PASSWORD}:");
    for (login, name, role) in AGENTS {
        eprintln!("  {login:<6}{name} ({role})");
    }
    Ok(())
}

/// The customers. Clones share the door they come in by.
#[derive(Clone)]
struct Customers {
    store: Arc<dyn Store>,
    api: Router,
    integration: String,
    key: String,
}

/// Begins to send customers until `stop`.
pub(crate) async fn start(
    store: Arc<dyn Store>,
    api: Router,
    data: &Path,
    tracker: &TaskTracker,
    stop: CancellationToken,
) -> Result<(), Failure> {
    let (integration, key) = key(store.as_ref(), &data.join("demo-key")).await?;
    let customers = Customers { store, api, integration, key };
    for channel in Channel::ALL {
        let customers = customers.clone();
        let stop = stop.clone();
        tracker.spawn(async move {
            stop.run_until_cancelled(customers.come(*channel)).await;
        });
    }
    Ok(())
}

/// The key of an earlier run, or a new one.
async fn key(store: &dyn Store, file: &PathBuf) -> Result<(String, String), Failure> {
    let failed = |error: String| Failure::Setup(format!("{}: {error}", file.display()));
    if let Ok(kept) = tokio::fs::read_to_string(file).await
        && let Ok(Some(known)) = store.integration(auth::hash(kept.trim())).await
    {
        return Ok((known.name, kept.trim().to_owned()));
    }
    let name = format!("demo-{:.8}", Uuid::new_v4().simple().to_string());
    let key = keeping::add_key(store, &name, Channel::ALL.to_vec(), false).await?;
    let mut options = tokio::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut opened = options.open(file).await.map_err(|error| failed(error.to_string()))?;
    tokio::io::AsyncWriteExt::write_all(&mut opened, key.expose().as_bytes())
        .await
        .map_err(|error| failed(error.to_string()))?;
    Ok((name, key.expose().to_owned()))
}

fn pick<T>(of: &[T]) -> Option<&T> {
    of.choose(&mut rand::rng())
}

async fn wait(ms: Range<u64>) {
    let ms = rand::rng().random_range(ms);
    tokio::time::sleep(Duration::from_millis(ms)).await;
}

fn own_id(prefix: &str) -> String {
    format!("{prefix}-{:.10}", Uuid::new_v4().simple().to_string())
}

impl Customers {
    /// One customer after the other, so many at once.
    async fn come(self, channel: Channel) {
        let room = Arc::new(Semaphore::new(AT_ONCE[channel.index()]));
        let live = TaskTracker::new();
        tokio::time::sleep(FIRST * u32::try_from(channel.index()).unwrap_or(0)).await;
        loop {
            let Ok(place) = room.clone().acquire_owned().await else { return };
            let one = self.clone();
            live.spawn(async move {
                match channel {
                    Channel::Voice => one.call().await,
                    Channel::Chat => one.chat().await,
                    Channel::Tickets => one.ticket().await,
                }
                drop(place);
            });
            wait(NEXT_MS).await;
        }
    }

    async fn call(&self) {
        let Some((name, email, phone)) = pick(CONTACTS) else { return };
        let call = own_id("call");
        let queue = if rand::rng().random_bool(0.5) { "support" } else { "sales" };
        let contact = json!({ "name": name, "email": email });
        let queued = json!({ "type": "call.queued", "call": call, "from": phone,
            "to": "+18005550100", "queue": queue, "contact": contact });
        self.post(Channel::Voice, queued).await;
        wait(1_000..2_500).await;
        self.post(Channel::Voice, json!({ "type": "call.ringing", "call": call })).await;
        let patience = rand::rng().random_range(15..40);
        for _ in 0..patience {
            tokio::time::sleep(LOOK_EVERY).await;
            let Some(state) = self.look(Kind::Call, &call).await else { continue };
            if state.stage.is_over() {
                return;
            }
            if state.assignee.is_some() {
                wait(45_000..120_000).await;
                return self.hang_up(&call, "completed").await;
            }
        }
        self.hang_up(&call, "abandoned").await;
    }

    async fn hang_up(&self, call: &str, reason: &str) {
        let ended = json!({ "type": "call.ended", "call": call, "reason": reason,
            "hung_up_by": "customer" });
        self.post(Channel::Voice, ended).await;
    }

    async fn chat(&self) {
        let (Some((name, email, _)), Some(lines)) = (pick(CONTACTS), pick(CHATS)) else { return };
        let chat = own_id("chat");
        let mut lines = lines.iter();
        let started = json!({ "type": "chat.started", "chat": chat, "queue": "web",
            "contact": { "name": name, "email": email }, "text": lines.next() });
        self.post(Channel::Chat, started).await;
        let mut patience: u32 = rand::rng().random_range(60..150);
        while patience > 0 {
            tokio::time::sleep(LOOK_EVERY).await;
            patience -= 1;
            let Some(state) = self.look(Kind::Chat, &chat).await else { continue };
            if state.stage.is_over() {
                return;
            }
            if state.waiting_since.is_some() || state.assignee.is_none() {
                continue;
            }
            let Some(line) = lines.next() else { break };
            wait(1_000..3_000).await;
            self.post(Channel::Chat, json!({ "type": "chat.typing", "chat": chat })).await;
            wait(2_000..4_000).await;
            let message = json!({ "type": "chat.message", "chat": chat, "text": line });
            self.post(Channel::Chat, message).await;
            patience += 60;
        }
        wait(4_000..8_000).await;
        self.post(Channel::Chat, json!({ "type": "chat.ended", "chat": chat })).await;
    }

    async fn ticket(&self) {
        let (Some((name, email, phone)), Some((subject, body, priority))) =
            (pick(CONTACTS), pick(TICKETS))
        else {
            return;
        };
        let ticket = own_id("form");
        let opened = json!({ "type": "ticket.opened", "ticket": ticket, "subject": subject,
            "body": body, "priority": priority, "queue": "mail",
            "requester": { "name": name, "email": email, "phone": phone } });
        self.post(Channel::Tickets, opened).await;
        for comment in COMMENTS {
            wait(90_000..240_000).await;
            let Some(state) = self.look(Kind::Ticket, &ticket).await else { continue };
            if matches!(state.stage, Stage::Ticket(status) if status.as_str() == "closed") {
                return;
            }
            let commented = json!({ "type": "ticket.commented", "ticket": ticket,
                "body": comment, "author": name });
            self.post(Channel::Tickets, commented).await;
        }
    }

    async fn look(&self, kind: Kind, external: &str) -> Option<Interaction> {
        let id = InteractionId::derive(&self.integration, kind, external);
        self.store.load(&[id]).await.ok()?.remove(&id)
    }

    /// Sends until it is taken: the id makes repeats harmless.
    async fn post(&self, channel: Channel, mut event: Value) {
        event["event_id"] = json!(Uuid::now_v7().to_string());
        for _ in 0..30 {
            let request = Request::post(format!("/external/{channel}"))
                .header(header::AUTHORIZATION, format!("Bearer {}", self.key))
                .header(header::CONTENT_TYPE, "application/json")
                .body(Body::from(event.to_string()));
            let Ok(request) = request else { return };
            match self.api.clone().oneshot(request).await {
                Ok(answer) if answer.status().is_server_error() => {
                    tokio::time::sleep(LOOK_EVERY).await;
                }
                Ok(answer) => {
                    if !answer.status().is_success() {
                        tracing::warn!(%channel, status = answer.status().as_u16(), "demo event refused");
                    }
                    return;
                }
                Err(never) => match never {},
            }
        }
    }
}

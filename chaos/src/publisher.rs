//! Posts events, each until it is accepted.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use domain::EventId;
use serde_json::{Value, json};
use tokio::time::{Instant, MissedTickBehavior};
use uuid::Uuid;

use crate::Run;
use crate::journal::{Journal, Saw};

/// Messages in one chat, before the next one is begun.
const CHAT_MESSAGES: u64 = 200;
const PATIENCE: Duration = Duration::from_secs(10);
const RETRY_AFTER: Duration = Duration::from_millis(100);

pub(crate) struct Publisher {
    pub(crate) run: Arc<Run>,
    pub(crate) number: usize,
    pub(crate) journal: PathBuf,
    pub(crate) every: Duration,
    /// Posts to this one chat only.
    pub(crate) chat: Option<String>,
}

impl Publisher {
    pub(crate) async fn work(self) -> io::Result<()> {
        let client =
            reqwest::Client::builder().timeout(PATIENCE).build().map_err(io::Error::other)?;
        let mut journal = Journal::create(&self.journal, self.run.begun)?;
        let mut tick = tokio::time::interval(self.every);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut seq = 0;
        while !self.run.publishing_over.is_cancelled() {
            tokio::select! {
                () = self.run.publishing_over.cancelled() => break,
                _ = tick.tick() => {}
            }
            let (channel, key, event) = self.event(seq);
            let id = Uuid::now_v7().to_string();
            let cause = EventId::derive(crate::INTEGRATION, &id).0;
            journal.write(Saw::Attempt { cause, key, seq })?;
            self.post(&client, &mut journal, channel, &id, cause, event).await?;
            journal.flush()?;
            seq += 1;
        }
        journal.flush()
    }

    fn event(&self, seq: u64) -> (&'static str, String, Value) {
        let number = self.number;
        if let Some(chat) = &self.chat {
            let text = format!("message {seq}");
            return (
                "chat",
                chat.clone(),
                json!({"type": "chat.message", "chat": chat, "text": text}),
            );
        }
        match seq % 5 {
            0 => {
                let call = format!("call-{number}-{seq}");
                let event = json!({"type": "call.queued", "call": call, "from": "+4930123456",
                    "to": "+4930654321"});
                ("voice", call, event)
            }
            1 => {
                let ticket = format!("ticket-{number}-{seq}");
                let event = json!({"type": "ticket.opened", "ticket": ticket, "subject": "Broken",
                    "body": "It is broken.", "requester": {"email": format!("c{number}@example.com")}});
                ("tickets", ticket, event)
            }
            _ => {
                let chat = format!("chat-{number}-{}", seq / CHAT_MESSAGES);
                let event =
                    json!({"type": "chat.message", "chat": chat, "text": format!("message {seq}")});
                ("chat", chat, event)
            }
        }
    }

    /// As an integrator does: the same event again until there is a 202.
    async fn post(
        &self,
        client: &reqwest::Client,
        journal: &mut Journal,
        channel: &str,
        id: &str,
        cause: Uuid,
        mut event: Value,
    ) -> io::Result<()> {
        event["event_id"] = json!(id);
        let mut turn = self.number;
        let deadline = Instant::now() + crate::PATIENCE;
        while Instant::now() < deadline {
            let urls = &self.run.external;
            let url = format!("{}/external/{channel}", urls[turn % urls.len()]);
            let sent = client.post(url).bearer_auth(&self.run.key).json(&event).send().await;
            let status = sent.as_ref().ok().map(|answer| answer.status().as_u16());
            let failure = sent.as_ref().err().map(|error| why(error).to_owned());
            journal.write(Saw::Answer { cause, status, failure })?;
            match (status, sent) {
                (Some(202), _) => return Ok(()),
                (Some(429 | 502..=504), _) | (_, Err(_)) => {}
                (_, Ok(answer)) => {
                    // Asking again is of no use: it stays unacknowledged.
                    let said = answer.text().await.unwrap_or_default();
                    eprintln!("POST {channel}: {said}");
                    return Ok(());
                }
            }
            turn += 1;
            tokio::time::sleep(RETRY_AFTER).await;
        }
        Ok(())
    }
}

/// Why there was no answer. Nothing was sent on a connection that was refused;
/// one that was cut off may have carried the event.
fn why(error: &reqwest::Error) -> &'static str {
    if error.is_timeout() {
        return "no answer in time";
    }
    if error.is_connect() {
        return "refused";
    }
    "cut off"
}

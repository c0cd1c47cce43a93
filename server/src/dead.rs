//! `warren dead`: through the running service where its broker serves one
//! process only, else at the broker itself.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{Method, StatusCode};
use domain::Channel;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use protocol::{DeadLetterList, DeadLetterView, Problem};
use serde::de::DeserializeOwned;
use warren::broker::Broker;
use warren::clock::Clock;
use warren::config::Settings;
use warren::dead_letters::{DeadLetters, Deed, LIST_MAX};
use warren::store::Store;

use crate::cli::{Dead, Which};
use crate::keeping::say;
use crate::{Failure, control, open_store, roles};

/// Named so in the record.
const COMMAND_LINE: &str = "command line";
/// How long the running service may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Where dead letters are seen to.
enum Desk {
    Here { letters: DeadLetters, broker: Arc<dyn Broker>, store: Arc<dyn Store> },
    There(PathBuf),
}

pub(crate) async fn run(settings: &Settings, action: Dead) -> Result<(), Failure> {
    let desk = Desk::open(settings).await?;
    let done = desk.act(action).await;
    if let Desk::Here { broker, store, .. } = desk {
        broker.close().await;
        store.close().await;
    }
    done
}

fn refused(error: impl std::fmt::Display) -> Failure {
    Failure::Refused(error.to_string())
}

impl Desk {
    async fn open(settings: &Settings) -> Result<Self, Failure> {
        let embedded = settings.broker.publish_urls.is_empty();
        if embedded && control::connect(&settings.data).await.is_some() {
            return Ok(Self::There(settings.data.clone()));
        }
        let store = open_store(settings).await?;
        let broker = roles::broker(settings).await?;
        let letters = DeadLetters::new(broker.clone(), store.clone(), Clock::default());
        Ok(Self::Here { letters, broker, store })
    }

    async fn act(&self, action: Dead) -> Result<(), Failure> {
        match action {
            Dead::List { channel, .. } => {
                let list = self.list(channel).await?;
                for one in &list.dead {
                    line(one)?;
                }
                if list.more {
                    eprintln!("there are more than {LIST_MAX} of a channel: these are the oldest");
                }
                Ok(())
            }
            Dead::Show { id, .. } => {
                let text = serde_json::to_string_pretty(&self.show(&id).await?).map_err(refused)?;
                say(format_args!("{text}"))
            }
            Dead::Replay(which) => self.settle(&which, Deed::Replay).await,
            Dead::Drop(which) => self.settle(&which, Deed::Drop).await,
        }
    }

    async fn settle(&self, which: &Which, deed: Deed) -> Result<(), Failure> {
        if let (Some(id), _) = which.id_and_profile() {
            return self.settle_one(&id, deed).await;
        }
        // What dies again meanwhile is not taken a second time.
        let mut seen = HashSet::new();
        loop {
            let list = self.list(which.channel).await?;
            let fresh: Vec<String> =
                list.dead.into_iter().map(|one| one.id).filter(|id| !seen.contains(id)).collect();
            if fresh.is_empty() {
                return Ok(());
            }
            for id in fresh {
                self.settle_one(&id, deed).await?;
                seen.insert(id);
            }
            if !list.more {
                return Ok(());
            }
        }
    }

    async fn list(&self, channel: Option<Channel>) -> Result<DeadLetterList, Failure> {
        match self {
            Self::Here { letters, .. } => letters.list(channel, LIST_MAX).await.map_err(refused),
            Self::There(_) => {
                let query = channel.map(|one| format!("?channel={one}")).unwrap_or_default();
                self.ask(Method::GET, &query).await
            }
        }
    }

    async fn show(&self, id: &str) -> Result<DeadLetterView, Failure> {
        match self {
            Self::Here { letters, .. } => letters.show(id).await.map_err(refused),
            Self::There(_) => self.ask(Method::GET, &segment(id)).await,
        }
    }

    async fn settle_one(&self, id: &str, deed: Deed) -> Result<(), Failure> {
        let one: DeadLetterView = match (self, deed) {
            (Self::Here { letters, .. }, _) => {
                letters.settle(id, deed, COMMAND_LINE).await.map_err(refused)?
            }
            (Self::There(_), Deed::Replay) => {
                self.ask(Method::POST, &format!("{}/replay", segment(id))).await?
            }
            (Self::There(_), Deed::Drop) => self.ask(Method::DELETE, &segment(id)).await?,
        };
        line(&one)
    }

    async fn ask<T: DeserializeOwned>(&self, method: Method, rest: &str) -> Result<T, Failure> {
        let Self::There(data) = self else { return Err(refused("no service")) };
        let line = control::connect(data).await.ok_or_else(|| refused("the service is gone"))?;
        let path = format!("/api/v1/dead{rest}");
        let asked = control::ask(line, "control.sock", method, &path);
        let (status, body) = tokio::time::timeout(ANSWER_TIMEOUT, asked)
            .await
            .map_err(|_| refused("the service doesn't answer"))?
            .map_err(refused)?;
        if status != StatusCode::OK {
            let problem = serde_json::from_slice::<Problem>(&body);
            return Err(refused(problem.map_or(status.to_string(), |problem| problem.detail)));
        }
        serde_json::from_slice(&body).map_err(refused)
    }
}

/// `/ID`, as it stands in an address.
fn segment(id: &str) -> String {
    format!("/{}", utf8_percent_encode(id, NON_ALPHANUMERIC))
}

/// `CHANNEL ID TYPE REASON DIED DEATHS`, with tabs.
fn line(one: &DeadLetterView) -> Result<(), Failure> {
    let last = one.deaths.last();
    let reason = last.map_or("unknown", |death| death.reason.as_str());
    let at = last.and_then(|death| death.at).map_or("-".to_owned(), |at| at.to_string());
    let deaths = one.deaths.len();
    say(format_args!("{}\t{}\t{}\t{reason}\t{at}\t{deaths}", one.channel, one.id, one.kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_id_fits_into_an_address() {
        assert_eq!(segment("a/b ?#%é"), "/a%2Fb%20%3F%23%25%C3%A9");
    }
}

//! Who is alive: heartbeats out and in, and signals passed on beside them.
//!
//! Every member tells the others once a second; three missed are a death. A
//! member that doesn't hear its own heartbeat has lost its broker and knows.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use domain::{Channel, Distribution};
use protocol::{Heartbeat, MemberRole, Signal, Urls, names};
use tokio::sync::{broadcast, watch};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::audit::Audit;
use crate::broker::{Broker, BrokerState, Message};
use crate::clock::Clock;

/// A heartbeat comes this often.
pub const HEARTBEAT: Duration = Duration::from_secs(1);
/// After this much silence a member is dead, and a member that doesn't hear
/// itself has lost its broker.
pub const DEAD_AFTER: Duration = Duration::from_secs(3);
/// How many signals may wait for a slow aggregator; the oldest are dropped.
const SIGNALS_MAX: usize = 1_024;

/// Every live member has been heard of by then.
const SETTLED_AFTER: Duration = Duration::from_secs(5);
/// So many places that serve pages are remembered.
const ORIGINS_MAX: usize = 64;

const HEARTBEAT_KIND: &str = "heartbeat";
const SIGNAL_KIND: &str = "signal";

/// Who is alive, as this member hears it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Roster {
    /// The last heartbeat of each.
    pub members: BTreeMap<String, Heartbeat>,
    /// Where pages were served from since this member joined: pages outlive
    /// the member that served them.
    pub origins: BTreeSet<String>,
}

impl Roster {
    /// WebSocket addresses of live aggregators, least loaded first: of all
    /// channels, or of one.
    #[must_use]
    pub fn aggregators(&self, channel: Option<Channel>) -> Vec<String> {
        let mut found: Vec<_> = self
            .members
            .values()
            .filter(|member| member.roles.contains(&MemberRole::Aggregator) && !member.draining)
            .filter_map(|member| {
                let url = match channel {
                    None => member.urls.all.clone(),
                    Some(channel) => member.urls.channels.get(&channel).cloned(),
                };
                url.map(|url| (member.clients, url))
            })
            .collect();
        found.sort();
        found.into_iter().map(|(_, url)| url).collect()
    }

    fn insert(&mut self, heartbeat: Heartbeat) -> Option<Heartbeat> {
        if let Some(web) = &heartbeat.urls.web
            && self.origins.len() < ORIGINS_MAX
        {
            self.origins.insert(web.clone());
        }
        self.members.insert(heartbeat.member.clone(), heartbeat)
    }

    /// Ids of live backends that take work.
    #[must_use]
    pub fn backends(&self) -> Vec<&str> {
        self.members
            .values()
            .filter(|member| member.roles.contains(&MemberRole::Backend) && !member.draining)
            .map(|member| member.member.as_str())
            .collect()
    }

    /// The furthest offset of a channel that any member has announced or delivered.
    #[must_use]
    pub fn position(&self, channel: Channel) -> u64 {
        self.members
            .values()
            .filter_map(|member| member.positions.get(&channel))
            .copied()
            .max()
            .unwrap_or(0)
    }
}

/// A signal on its way to those who may see it.
#[derive(Clone, Debug)]
pub struct SignalTo {
    /// What.
    pub signal: Signal,
    /// Who may see it.
    pub distribution: Distribution,
}

/// This member among the others. Clones share it.
#[derive(Clone)]
pub struct Members {
    id: Arc<str>,
    own: Arc<Mutex<Heartbeat>>,
    roster: watch::Receiver<Roster>,
    heard: watch::Receiver<bool>,
    signals: broadcast::Sender<(Option<Channel>, SignalTo)>,
    broker: Arc<dyn Broker>,
    audit: Audit,
    clock: Clock,
    joined: Instant,
}

impl Members {
    /// Begins to tell and to listen, until `stop`.
    pub fn join(
        broker: Arc<dyn Broker>,
        clock: Clock,
        roles: Vec<MemberRole>,
        urls: Urls,
        stop: CancellationToken,
    ) -> (Self, impl Future<Output = ()> + Send) {
        let id: Arc<str> = Uuid::now_v7().to_string().into();
        let own = Heartbeat {
            member: id.to_string(),
            roles,
            at: clock.now(),
            urls,
            epoch: None,
            positions: BTreeMap::new(),
            clients: 0,
            draining: false,
            audit: None,
        };
        let mut first = Roster::default();
        first.insert(own.clone());
        let (roster_tx, roster) = watch::channel(first);
        let (heard_tx, heard) = watch::channel(true);
        let members = Self {
            audit: Audit::new(&id),
            id,
            own: Arc::new(Mutex::new(own)),
            roster,
            heard,
            signals: broadcast::channel(SIGNALS_MAX).0,
            broker,
            clock,
            joined: Instant::now(),
        };
        let run = members.clone().run(roster_tx, heard_tx, stop);
        (members, run)
    }

    /// This member's id: UUIDv7, new at each start.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Who is alive, as it changes.
    #[must_use]
    pub fn roster(&self) -> watch::Receiver<Roster> {
        self.roster.clone()
    }

    /// False while this member has just joined and may not know all the others.
    #[must_use]
    pub fn knows_all(&self) -> bool {
        self.joined.elapsed() >= SETTLED_AFTER
    }

    /// False while this member doesn't hear itself.
    #[must_use]
    pub fn heard(&self) -> watch::Receiver<bool> {
        self.heard.clone()
    }

    /// What this member has seen pass by, and heard from the others.
    #[must_use]
    pub fn audit(&self) -> &Audit {
        &self.audit
    }

    /// Signals from everywhere, this member's own included, each with the
    /// channel that it belongs to, if it does.
    #[must_use]
    pub fn signals(&self) -> broadcast::Receiver<(Option<Channel>, SignalTo)> {
        self.signals.subscribe()
    }

    /// Changes what the next heartbeats say.
    pub fn say(&self, change: impl FnOnce(&mut Heartbeat)) {
        change(&mut self.own.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Says at once that this member takes no more work.
    pub async fn say_draining(&self) {
        self.say(|own| own.draining = true);
        self.beat().await;
    }

    /// Passes a signal on to every aggregator. It is lost if the broker is gone.
    pub async fn signal(&self, signal: &SignalTo) {
        self.pass_on(signal, BTreeMap::new()).await;
    }

    /// As [`Members::signal`], to those only who listen to `channel`.
    pub async fn signal_in(&self, channel: Channel, signal: &SignalTo) {
        let headers = BTreeMap::from([(names::X_CHANNEL.to_owned(), channel.to_string())]);
        self.pass_on(signal, headers).await;
    }

    async fn pass_on(&self, signal: &SignalTo, mut headers: BTreeMap<String, String>) {
        let Ok(body) = serde_json::to_vec(&serde_json::json!({ "signal": signal.signal })) else {
            return;
        };
        let Ok(distribution) = serde_json::to_string(&signal.distribution) else { return };
        headers.insert(names::X_DISTRIBUTION.to_owned(), distribution);
        self.broadcast(SIGNAL_KIND, headers, body).await;
    }

    async fn beat(&self) {
        let own = {
            let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
            own.at = self.clock.now();
            own.audit = Some(Box::new(self.audit.report()));
            own.clone()
        };
        if let Ok(body) = serde_json::to_vec(&own) {
            self.broadcast(HEARTBEAT_KIND, BTreeMap::new(), body).await;
        }
    }

    async fn broadcast(&self, kind: &str, headers: BTreeMap<String, String>, body: Vec<u8>) {
        let message = Message {
            id: Uuid::now_v7().to_string(),
            kind: kind.to_owned(),
            app_id: self.id.to_string(),
            at: self.clock.now(),
            headers,
            reply_to: None,
            body: Bytes::from(body),
        };
        let sent = tokio::time::timeout(HEARTBEAT, self.broker.broadcast(message)).await;
        if let Ok(Err(error)) = sent {
            tracing::debug!(message.kind = kind, %error, "broadcast failed");
        }
    }

    async fn run(
        self,
        roster: watch::Sender<Roster>,
        heard: watch::Sender<bool>,
        stop: CancellationToken,
    ) {
        let talk = async {
            let mut tick = tokio::time::interval(HEARTBEAT);
            tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                tick.tick().await;
                self.beat().await;
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = talk => {}
            () = self.hear(&roster, &heard) => {}
        }
    }

    async fn hear(&self, roster: &watch::Sender<Roster>, heard: &watch::Sender<bool>) {
        let mut last = HashMap::from([(self.id.to_string(), Instant::now())]);
        let mut sweep = tokio::time::interval(HEARTBEAT / 2);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let mut incoming = match self.broker.listen().await {
                Ok(incoming) => Some(incoming),
                Err(error) => {
                    tracing::debug!(%error, "members unheard");
                    None
                }
            };
            loop {
                let next = async {
                    match incoming.as_mut() {
                        Some(incoming) => incoming.recv().await,
                        None => {
                            tokio::time::sleep(HEARTBEAT / 2).await;
                            None
                        }
                    }
                };
                tokio::select! {
                    message = next => match message {
                        Some(message) => self.take(&message, roster, &mut last),
                        None => break,
                    },
                    _ = sweep.tick() => {}
                }
                self.bury_the_silent(roster, heard, &mut last);
            }
            self.bury_the_silent(roster, heard, &mut last);
        }
    }

    fn take(
        &self,
        message: &Message,
        roster: &watch::Sender<Roster>,
        last: &mut HashMap<String, Instant>,
    ) {
        match message.kind.as_str() {
            HEARTBEAT_KIND => {
                let Ok(heartbeat) = serde_json::from_slice::<Heartbeat>(&message.body) else {
                    return;
                };
                last.insert(heartbeat.member.clone(), Instant::now());
                self.audit.hear(&heartbeat);
                roster.send_if_modified(|roster| {
                    let known = roster.insert(heartbeat.clone());
                    known.is_none_or(|known| Heartbeat { at: heartbeat.at, ..known } != heartbeat)
                });
            }
            SIGNAL_KIND => {
                #[derive(serde::Deserialize)]
                struct Body {
                    signal: Signal,
                }
                let Ok(Body { signal }) = serde_json::from_slice(&message.body) else { return };
                let distribution = message
                    .header(names::X_DISTRIBUTION)
                    .and_then(|json| serde_json::from_str(json).ok())
                    .unwrap_or_default();
                let channel = message.header(names::X_CHANNEL).and_then(|name| name.parse().ok());
                // Nobody listens in a role without clients.
                let _ = self.signals.send((channel, SignalTo { signal, distribution }));
            }
            _ => {}
        }
    }

    /// The dead leave the roster; this member stays in its own, and says
    /// whether it hears itself.
    fn bury_the_silent(
        &self,
        roster: &watch::Sender<Roster>,
        heard: &watch::Sender<bool>,
        last: &mut HashMap<String, Instant>,
    ) {
        if matches!(*self.broker.state().borrow(), BrokerState::Blocked(_)) {
            // Nobody can say anything: that is no sign of death, nor of a
            // broker that is lost. What there is can still be read.
            last.values_mut().for_each(|at| *at = Instant::now());
            return;
        }
        let silent = |at: &Instant| at.elapsed() > DEAD_AFTER;
        let hears = last.get(self.id()).is_some_and(|at| !silent(at));
        heard.send_if_modified(|heard| {
            let changed = *heard != hears;
            *heard = hears;
            changed
        });
        if !hears {
            // The silence is ours: nobody is dead because we are deaf.
            return;
        }
        last.retain(|member, at| {
            let stays = member == self.id() || !silent(at);
            if !stays {
                self.audit.gone(member);
            }
            stays
        });
        roster.send_if_modified(|roster| {
            let before = roster.members.len();
            roster.members.retain(|member, _| last.contains_key(member));
            roster.members.len() != before
        });
    }
}

//! A broker and a store whose answers a test scripts.
#![allow(dead_code, reason = "each test uses its part")]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use domain::{Channel, Contact, ContactId, EventId, Interaction, InteractionId, Login, Timestamp};
use protocol::{
    AgentView, Cursor, InteractionDetail, InteractionList, Journey, JourneyStage, Outcome,
    Principal, Stage,
};
use tokio::sync::{Semaphore, mpsc, watch};
use uuid::Uuid;
use warren::broker::{
    Broker, BrokerError, BrokerState, Config, Consumer, DeadLetter, LogReader, LogStart, Message,
    Partition, TopologyItem,
};
use warren::store::{
    AgentRecord, Commit, Due, Integration, JournalRow, ListQuery, Receipt, Store, StoreError,
};

type Answer = Box<dyn Fn(&Message) -> Result<(), BrokerError> + Send + Sync>;

/// Takes publishes; answers each when the gate is open.
pub(crate) struct FakeBroker {
    config: Config,
    state: watch::Sender<BrokerState>,
    gate: Semaphore,
    arrived: watch::Sender<usize>,
    answer: Mutex<Answer>,
    published: Mutex<Vec<(Partition, Message)>>,
}

impl FakeBroker {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            config: Config::default(),
            state: watch::channel(BrokerState::Up).0,
            gate: Semaphore::new(Semaphore::MAX_PERMITS / 2),
            arrived: watch::channel(0).0,
            answer: Mutex::new(Box::new(|_| Ok(()))),
            published: Mutex::default(),
        })
    }

    pub(crate) fn set_state(&self, state: BrokerState) {
        self.state.send_replace(state);
    }

    pub(crate) fn answer(
        &self,
        answer: impl Fn(&Message) -> Result<(), BrokerError> + Send + Sync + 'static,
    ) {
        *self.answer.lock().expect("unpoisoned") = Box::new(answer);
    }

    /// Confirms nothing until [`FakeBroker::open`].
    pub(crate) fn shut(&self) {
        self.gate.forget_permits(usize::MAX);
    }

    pub(crate) fn open(&self) {
        self.gate.add_permits(1_000_000);
    }

    /// Waits until so many publishes have arrived, confirmed or not.
    pub(crate) async fn arrived(&self, count: usize) {
        let mut arrived = self.arrived.subscribe();
        arrived.wait_for(|seen| *seen >= count).await.expect("the sender lives");
    }

    /// What was confirmed, in order.
    pub(crate) fn published(&self) -> Vec<(Partition, Message)> {
        self.published.lock().expect("unpoisoned").clone()
    }
}

fn no() -> BrokerError {
    BrokerError::Misdeclared("not scripted".into())
}

#[async_trait]
impl Broker for FakeBroker {
    fn config(&self) -> &Config {
        &self.config
    }
    async fn declare(&self) -> Result<(), BrokerError> {
        Err(no())
    }
    async fn topology(&self) -> Result<Vec<TopologyItem>, BrokerError> {
        Err(no())
    }
    async fn delete(&self) -> Result<(), BrokerError> {
        Err(no())
    }
    async fn publish(&self, to: Partition, message: Message) -> Result<(), BrokerError> {
        self.arrived.send_modify(|seen| *seen += 1);
        // Gives the others a turn, as a real one does.
        tokio::task::yield_now().await;
        self.gate.acquire().await.expect("never closed").forget();
        (self.answer.lock().expect("unpoisoned"))(&message)?;
        self.published.lock().expect("unpoisoned").push((to, message));
        Ok(())
    }
    async fn consume(&self, _: Partition, _: u16) -> Result<Box<dyn Consumer>, BrokerError> {
        Err(no())
    }
    async fn announce(&self, _: Channel, _: Message) -> Result<(), BrokerError> {
        Err(no())
    }
    async fn follow(&self, _: Channel, _: LogStart) -> Result<Box<dyn LogReader>, BrokerError> {
        Err(no())
    }
    async fn broadcast(&self, _: Message) -> Result<(), BrokerError> {
        Err(no())
    }
    async fn listen(&self) -> Result<mpsc::Receiver<Message>, BrokerError> {
        Err(no())
    }
    async fn reply(&self, _: &str, _: Message) -> Result<(), BrokerError> {
        Err(no())
    }
    async fn replies(&self, _: &str) -> Result<mpsc::Receiver<Message>, BrokerError> {
        Err(no())
    }
    async fn dead(&self, _: Channel, _: usize) -> Result<Vec<DeadLetter>, BrokerError> {
        Err(no())
    }
    async fn find_dead(&self, _: Channel, _: &str) -> Result<Option<DeadLetter>, BrokerError> {
        Err(no())
    }
    async fn replay_dead(&self, _: Channel, _: &str) -> Result<bool, BrokerError> {
        Err(no())
    }
    async fn drop_dead(&self, _: Channel, _: &str) -> Result<bool, BrokerError> {
        Err(no())
    }
    fn state(&self) -> watch::Receiver<BrokerState> {
        self.state.subscribe()
    }
    async fn close(&self) {}
}

/// Knows integrations and receipts.
pub(crate) struct FakeStore {
    pub(crate) down: AtomicBool,
    /// Never answers a write.
    pub(crate) hung: AtomicBool,
    /// Look-ups of keys that were made.
    pub(crate) lookups: AtomicUsize,
    integrations: Mutex<Vec<Integration>>,
    journeys: Mutex<BTreeMap<Uuid, Journey>>,
    recorded: watch::Sender<Vec<Receipt>>,
}

impl FakeStore {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            down: AtomicBool::default(),
            hung: AtomicBool::default(),
            lookups: AtomicUsize::default(),
            integrations: Mutex::default(),
            journeys: Mutex::default(),
            recorded: watch::channel(Vec::new()).0,
        })
    }

    pub(crate) fn add(&self, integration: Integration) {
        self.integrations.lock().expect("unpoisoned").push(integration);
    }

    pub(crate) fn revoke(&self, name: &str) {
        let mut known = self.integrations.lock().expect("unpoisoned");
        for one in known.iter_mut().filter(|one| one.name == name) {
            one.revoked_at = Some(Timestamp::from_millis(1));
        }
    }

    /// Another process has told of it.
    pub(crate) fn set_journey(&self, id: Uuid, stages: &[Stage], outcome: Option<Outcome>) {
        let journey = journey(id, stages, outcome);
        self.journeys.lock().expect("unpoisoned").insert(id, journey);
    }

    /// Every receipt that was written, as it changes.
    pub(crate) fn recorded(&self) -> watch::Receiver<Vec<Receipt>> {
        self.recorded.subscribe()
    }

    fn up(&self) -> Result<(), StoreError> {
        if self.down.load(Ordering::SeqCst) {
            return Err(StoreError::Unavailable("scripted".into()));
        }
        Ok(())
    }
}

fn journey(id: Uuid, stages: &[Stage], outcome: Option<Outcome>) -> Journey {
    let mut stages: Vec<_> = stages
        .iter()
        .map(|stage| JourneyStage {
            stage: *stage,
            at: Timestamp::from_millis(1),
            count: None,
            agents: BTreeMap::new(),
        })
        .collect();
    stages.sort_by_key(|one| one.stage);
    let status = stages.last().map_or(Stage::Accepted, |one| one.stage);
    Journey { id: EventId(id), status, stages, outcome, events: Vec::new() }
}

fn not<T>() -> Result<T, StoreError> {
    Err(StoreError::Broken("not scripted".into()))
}

#[async_trait]
impl Store for FakeStore {
    fn epoch(&self) -> &str {
        "epoch"
    }
    async fn outcomes(&self, _: &[Uuid]) -> Result<BTreeMap<Uuid, Outcome>, StoreError> {
        not()
    }
    async fn load(
        &self,
        _: &[InteractionId],
    ) -> Result<BTreeMap<InteractionId, Interaction>, StoreError> {
        not()
    }
    async fn commit(&self, _: &Commit) -> Result<Vec<u64>, StoreError> {
        not()
    }
    async fn outbox(&self, _: Channel, _: &[u32], _: u32) -> Result<Vec<JournalRow>, StoreError> {
        not()
    }
    async fn announced(&self, _: Channel, _: &[u64]) -> Result<(), StoreError> {
        not()
    }
    async fn due(&self, _: Timestamp, _: u32) -> Result<Vec<Due>, StoreError> {
        not()
    }
    async fn heads(&self) -> Result<BTreeMap<Channel, Cursor>, StoreError> {
        not()
    }
    async fn journal(&self, _: Channel, _: u64, _: u32) -> Result<Vec<JournalRow>, StoreError> {
        not()
    }
    async fn interactions(&self, _: &ListQuery) -> Result<InteractionList, StoreError> {
        not()
    }
    async fn interaction(
        &self,
        _: InteractionId,
        _: &Login,
    ) -> Result<Option<InteractionDetail>, StoreError> {
        not()
    }
    async fn resolve_contacts(
        &self,
        _: &[Contact],
        _: Timestamp,
    ) -> Result<Vec<Contact>, StoreError> {
        not()
    }
    async fn contact(&self, _: ContactId) -> Result<Option<Contact>, StoreError> {
        not()
    }
    async fn add_agent(&self, _: &AgentRecord, _: Timestamp) -> Result<(), StoreError> {
        not()
    }
    async fn add_first_agent(&self, _: &AgentRecord, _: Timestamp) -> Result<bool, StoreError> {
        not()
    }
    async fn agent(&self, _: &Login) -> Result<Option<AgentRecord>, StoreError> {
        not()
    }
    async fn agents(&self) -> Result<Vec<AgentView>, StoreError> {
        not()
    }
    async fn disable_agent(&self, _: &Login) -> Result<bool, StoreError> {
        not()
    }
    async fn add_session(
        &self,
        _: [u8; 32],
        _: &Login,
        _: Timestamp,
        _: Timestamp,
    ) -> Result<(), StoreError> {
        not()
    }
    async fn session(
        &self,
        _: [u8; 32],
        _: Timestamp,
    ) -> Result<Option<(Principal, Timestamp)>, StoreError> {
        not()
    }
    async fn end_session(&self, _: [u8; 32]) -> Result<(), StoreError> {
        not()
    }
    async fn add_integration(&self, _: &Integration) -> Result<(), StoreError> {
        not()
    }
    async fn integration(&self, hash: [u8; 32]) -> Result<Option<Integration>, StoreError> {
        self.up()?;
        self.lookups.fetch_add(1, Ordering::SeqCst);
        let known = self.integrations.lock().expect("unpoisoned");
        Ok(known.iter().find(|one| one.key_hash == hash && one.revoked_at.is_none()).cloned())
    }
    async fn integrations(&self) -> Result<Vec<Integration>, StoreError> {
        not()
    }
    async fn revoke_integration(&self, _: &str, _: Timestamp) -> Result<bool, StoreError> {
        not()
    }
    async fn record(&self, receipts: &[Receipt]) -> Result<(), StoreError> {
        self.up()?;
        if self.hung.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        self.recorded.send_modify(|all| all.extend_from_slice(receipts));
        Ok(())
    }
    async fn journey(&self, id: Uuid) -> Result<Option<(Journey, Option<String>)>, StoreError> {
        self.up()?;
        let set = self.journeys.lock().expect("unpoisoned").get(&id).cloned();
        let recorded = self.recorded.borrow();
        let recorded: Vec<_> = recorded.iter().filter(|one| one.cause == id).collect();
        let sender = recorded.iter().find_map(|one| one.integration.clone());
        // Journeys that were set are of the integration that may do all.
        let sender = sender.or_else(|| set.is_some().then(|| "all".to_owned()));
        let stages: Vec<Stage> = recorded.iter().map(|one| one.stage).collect();
        let told = (!stages.is_empty()).then(|| journey(id, &stages, None));
        Ok(set.or(told).map(|journey| (journey, sender)))
    }
    async fn audit(&self, _: &str, _: &str, _: &str, _: Timestamp) -> Result<(), StoreError> {
        not()
    }
    async fn prune(&self, _: Timestamp) -> Result<(), StoreError> {
        not()
    }
    async fn ping(&self) -> Result<(), StoreError> {
        self.up()
    }
    async fn close(&self) {}
}

//! One partition's work: take a batch, decide, commit; a [`Finisher`] sees to
//! the rest of it meanwhile.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use domain::{Channel, Command, Contact, InteractionId};
use protocol::Outcome;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::Backend;
use super::decode::{Item, decode};
use super::finish::{Finisher, Recorded};
use super::plan::Plan;
use crate::broker::{BrokerError, Consumer, Delivery, Partition, Settle};
use crate::store::{Due, StoreError};

/// The most deliveries in one transaction.
const BATCH_MAX: usize = 64;
/// The most deliveries that wait here unsettled.
const PREFETCH: u16 = 256;
/// How long to wait before the broker or the store is asked again.
pub(super) const RETRY_AFTER: Duration = Duration::from_millis(250);
/// How often a batch may find that somebody else decided first.
const STALE_MAX: u32 = 20;

pub(super) struct Worker {
    backend: Backend,
    partition: Partition,
    due: mpsc::Receiver<Due>,
    marks: mpsc::Sender<(Channel, u64)>,
}

/// A batch could not be finished; what it holds comes again.
pub(super) enum Unfinished {
    Broker(BrokerError),
    Store(StoreError),
    Stopped,
}

impl From<BrokerError> for Unfinished {
    fn from(error: BrokerError) -> Self {
        Self::Broker(error)
    }
}

impl From<StoreError> for Unfinished {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl Worker {
    pub(super) fn new(
        backend: Backend,
        partition: Partition,
        due: mpsc::Receiver<Due>,
        marks: mpsc::Sender<(Channel, u64)>,
    ) -> Self {
        Self { backend, partition, due, marks }
    }

    /// Works until `stop`; finishes and acks the work in hand. After any
    /// trouble it takes the partition anew.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        tracing::debug!(partition = %self.partition, "partition taken");
        while !stop.is_cancelled() {
            let outcome = self.consume(&stop).await;
            match outcome {
                Ok(()) | Err(Unfinished::Stopped) => {}
                Err(Unfinished::Broker(error)) => {
                    tracing::warn!(partition = %self.partition, %error, "partition interrupted");
                }
                Err(Unfinished::Store(error)) => {
                    tracing::warn!(partition = %self.partition, %error, "partition interrupted");
                }
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(RETRY_AFTER) => {}
            }
        }
        tracing::debug!(partition = %self.partition, "partition left");
    }

    /// Until `stop`, or until consumer or finisher can't go on.
    async fn consume(&mut self, stop: &CancellationToken) -> Result<(), Unfinished> {
        let mut consumer = tokio::select! {
            () = stop.cancelled() => return Err(Unfinished::Stopped),
            consumer = self.backend.broker.consume(self.partition, PREFETCH) => consumer?,
        };
        let (backend, marks) = (self.backend.clone(), self.marks.clone());
        let finisher = Finisher::start(backend, self.partition, marks, stop.clone());
        let taken = loop {
            let (items, settles, careful) = tokio::select! {
                () = stop.cancelled() => break Ok(()),
                () = finisher.ended() => break Ok(()),
                delivery = consumer.recv() => {
                    let Some(first) = delivery else { break Ok(()) };
                    let batch = gather(first, consumer.as_mut());
                    let careful = batch.iter().any(|delivery| delivery.redelivered);
                    match self.understand(batch).await {
                        Ok((items, settles)) => (items, settles, careful),
                        Err(error) => break Err(error.into()),
                    }
                }
                Some(due) = self.due.recv() => (vec![overdue(&due)], Vec::new(), false),
            };
            if items.is_empty() {
                continue;
            }
            let done = match self.record(&items, careful, stop).await {
                Ok((plan, offsets)) => {
                    finisher.finish(Recorded::new(plan, offsets, &items, settles)).await;
                    Ok(())
                }
                Err(Unfinished::Store(error)) => {
                    tracing::warn!(partition = %self.partition, %error, "batch not recorded");
                    self.one_by_one(items, settles, &finisher, stop).await
                }
                Err(unfinished) => Err(unfinished),
            };
            if done.is_err() {
                break done;
            }
        };
        consumer.cancel().await;
        taken.and(finisher.end().await)
    }

    /// What makes no sense is buried.
    async fn understand(
        &self,
        batch: Vec<Delivery>,
    ) -> Result<(Vec<Item>, Vec<Box<dyn Settle>>), BrokerError> {
        let mut items = Vec::with_capacity(batch.len());
        let mut settles = Vec::with_capacity(batch.len());
        for Delivery { message, settle, .. } in batch {
            match decode(self.partition.channel, &message) {
                Ok(item) => {
                    items.push(item);
                    settles.push(settle);
                }
                Err(reason) => {
                    tracing::warn!(partition = %self.partition, reason, "message buried");
                    settle.bury(&reason).await?;
                }
            }
        }
        Ok((items, settles))
    }

    /// Decides and commits; where somebody else was first, loads and decides
    /// again; where the store is gone, waits for it.
    async fn record(
        &self,
        items: &[Item],
        mut careful: bool,
        stop: &CancellationToken,
    ) -> Result<(Plan, Vec<u64>), Unfinished> {
        let mut stale = 0;
        loop {
            match self.try_record(items, careful).await {
                Ok(done) => return Ok(done),
                Err(StoreError::Stale) if stale < STALE_MAX => {
                    stale += 1;
                    careful = true;
                }
                Err(StoreError::Unavailable(error)) => {
                    // What was written of it, if anything, isn't known.
                    careful = true;
                    tracing::warn!(partition = %self.partition, %error, "store unavailable");
                    tokio::select! {
                        () = stop.cancelled() => return Err(Unfinished::Stopped),
                        () = tokio::time::sleep(RETRY_AFTER) => {}
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// What can't be recorded even alone is buried, so that the others don't
    /// share its fate.
    async fn one_by_one(
        &self,
        items: Vec<Item>,
        settles: Vec<Box<dyn Settle>>,
        finisher: &Finisher,
        stop: &CancellationToken,
    ) -> Result<(), Unfinished> {
        let mut settles = settles.into_iter();
        for item in items {
            let (item, settle) = ([item], settles.next());
            match (self.record(&item, true, stop).await, settle) {
                (Ok((plan, offsets)), settle) => {
                    let settles = settle.into_iter().collect();
                    finisher.finish(Recorded::new(plan, offsets, &item, settles)).await;
                }
                (Err(Unfinished::Store(error)), Some(settle)) => {
                    settle.bury(&format!("not recorded: {error}")).await?;
                }
                (Err(unfinished), _) => return Err(unfinished),
            }
        }
        Ok(())
    }

    /// What was decided before is looked for only if something hints at it:
    /// if nothing did and it was, the commit is stale.
    async fn try_record(
        &self,
        items: &[Item],
        careful: bool,
    ) -> Result<(Plan, Vec<u64>), StoreError> {
        let store = &self.backend.store;
        let targets: Vec<InteractionId> = items.iter().filter_map(|item| item.target).collect();
        let known = async {
            let ids: Vec<Uuid> = items.iter().map(|item| item.id).collect();
            if careful { store.outcomes(&ids).await } else { Ok(BTreeMap::new()) }
        };
        let (known, states) = tokio::try_join!(known, store.load(&targets))?;
        let contacts = self.contacts(items, &known).await?;
        let now = self.backend.clock.now();
        let mut plan = Plan::new(self.partition, self.backend.config, now, known, states);
        for (index, item) in items.iter().enumerate() {
            plan.add(item, contacts.get(&index).cloned());
        }
        plan.finish();
        let offsets = if plan.commit.decided.is_empty() {
            Vec::new()
        } else {
            store.commit(&plan.commit).await?
        };
        Ok((plan, offsets))
    }

    /// The contacts that the items bring along or name, as the store knows them.
    async fn contacts(
        &self,
        items: &[Item],
        known: &BTreeMap<Uuid, Outcome>,
    ) -> Result<HashMap<usize, Contact>, StoreError> {
        let store = &self.backend.store;
        let mut found = HashMap::new();
        let (mut places, mut given) = (Vec::new(), Vec::new());
        for (index, item) in items.iter().enumerate() {
            let Some(contact) = &item.contact else { continue };
            if known.contains_key(&item.id) {
                continue;
            }
            if let Some(id) = contact.id {
                found.extend(store.contact(id).await?.map(|contact| (index, contact)));
            } else {
                places.push(index);
                given.push(contact.clone());
            }
        }
        if !given.is_empty() {
            let resolved = store.resolve_contacts(&given, self.backend.clock.now()).await?;
            found.extend(places.into_iter().zip(resolved));
        }
        Ok(found)
    }
}

fn gather(first: Delivery, consumer: &mut dyn Consumer) -> Vec<Delivery> {
    let mut batch = vec![first];
    while batch.len() < BATCH_MAX {
        match consumer.try_recv() {
            Some(delivery) => batch.push(delivery),
            None => break,
        }
    }
    batch
}

/// The deadline of an interaction, as something to decide.
fn overdue(due: &Due) -> Item {
    Item {
        id: Uuid::now_v7(),
        target: Some(due.interaction_id),
        command: Command::Due,
        integration: String::new(),
        contact: None,
        trace: None,
        deadline: None,
        reply_to: None,
    }
}

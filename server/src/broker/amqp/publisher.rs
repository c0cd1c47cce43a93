//! Publishes, each message until the broker has it or its time is up.
//!
//! A [`Lane`] is one channel of AMQP with one task that owns it: lapin mixes
//! up confirms when several tasks publish on a channel. At most [`WINDOW`]
//! messages wait for their confirms. After the first that fails, the lane
//! opens a new channel, since an old one may refuse everything for seconds
//! after a queue has moved, and sends what is left again, with the same ids.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use lapin::message::BasicReturnMessage;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions};
use lapin::types::{FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Confirmation, PublisherConfirm};
use tokio::sync::{mpsc, oneshot};
use tokio::task::unconstrained;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::connection::{Fault, Link, Live};
use crate::broker::BrokerError;

/// Messages of a lane that wait for their confirms.
const WINDOW: usize = 500;
/// Messages that wait for their lane; more callers wait outside.
const QUEUE_MAX: usize = 500;
/// Before a new channel is opened.
const BACK_OFF: Duration = Duration::from_millis(100);
/// How long an alarm may last before publishes fail.
const BLOCKED_GRACE: Duration = Duration::from_millis(500);

/// What is published, and where to.
#[derive(Clone)]
pub(super) struct Outgoing {
    pub(super) exchange: &'static str,
    pub(super) key: ShortString,
    pub(super) properties: BasicProperties,
    pub(super) body: Bytes,
    /// Whether it is a failure that no queue takes it.
    pub(super) mandatory: bool,
    /// The queue that may be full, and how many messages that are.
    pub(super) bound: Option<(ShortString, u64)>,
}

struct Job {
    outgoing: Outgoing,
    /// Told when it is done; dropped when its caller has lost patience.
    done: oneshot::Sender<Result<(), BrokerError>>,
    /// What went wrong last.
    trouble: Arc<Mutex<Option<BrokerError>>>,
}

impl Job {
    fn note(&self, error: BrokerError) {
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        // That a channel closed tells less than why it did.
        if trouble.is_none() || !matches!(error, BrokerError::Down(_)) {
            *trouble = Some(error);
        }
    }

    fn id(&self) -> &str {
        self.outgoing.properties.message_id().as_ref().map_or("", ShortString::as_str)
    }
}

/// One channel to publish on. Clones share it.
#[derive(Clone)]
pub(super) struct Lane {
    queue: mpsc::Sender<Job>,
    link: Arc<Link>,
    patience: Duration,
}

/// What a lane is made with.
pub(super) struct LaneConfig {
    pub(super) link: Arc<Link>,
    /// How long a message may take, and a confirm may be awaited.
    pub(super) patience: Duration,
    /// Whether what follows a failure is sent again even if it was confirmed,
    /// so that the last copies are in order.
    pub(super) ordered: bool,
    /// Finish what there is, take no more.
    pub(super) closing: CancellationToken,
    /// Give up.
    pub(super) stop: CancellationToken,
}

impl Lane {
    /// Starts a lane on a task of its own.
    pub(super) fn start(
        config: LaneConfig,
        spawn: impl FnOnce(futures::future::BoxFuture<'static, ()>),
    ) -> Self {
        let (queue, jobs) = mpsc::channel(QUEUE_MAX);
        let (link, patience) = (Arc::clone(&config.link), config.patience);
        let stop = config.stop.clone();
        let worker = Worker {
            config,
            jobs,
            backlog: VecDeque::new(),
            flying: VecDeque::new(),
            refused: VecDeque::new(),
            returned: VecDeque::new(),
            returned_ids: Vec::new(),
        };
        spawn(async move { stop.run_until_cancelled(worker.run()).await.unwrap_or(()) }.boxed());
        Self { queue, link, patience }
    }

    /// Returns when the broker has it.
    ///
    /// # Errors
    /// What went wrong last, when the lane's patience is at its end, or that
    /// the queue is full, or the broker blocked.
    pub(super) async fn send(&self, outgoing: Outgoing) -> Result<(), BrokerError> {
        let deadline = Instant::now() + self.patience;
        let trouble = Arc::new(Mutex::new(None));
        let (done, confirmed) = oneshot::channel();
        let job = Job { outgoing, done, trouble: Arc::clone(&trouble) };
        let closed = || BrokerError::Down("closed".to_owned());
        let work = async {
            // Unconstrained: tokio's budget would let a later call of the same
            // task overtake this one.
            unconstrained(self.queue.send(job)).await.map_err(|_| closed())?;
            confirmed.await.map_err(|_| closed())?
        };
        tokio::select! {
            biased;
            outcome = work => outcome,
            reason = self.link.blocked_longer_than(BLOCKED_GRACE) => {
                Err(BrokerError::Blocked(reason))
            }
            () = sleep_until(deadline) => {
                let trouble = trouble.lock().unwrap_or_else(PoisonError::into_inner).take();
                Err(match (self.link.down(), self.link.blocked(), trouble) {
                    (Some(reason), ..) => BrokerError::Down(reason),
                    (_, Some(blocked), _) => BrokerError::Blocked(blocked.reason),
                    (_, _, Some(trouble)) => trouble,
                    _ => BrokerError::Down("no confirm in time".to_owned()),
                })
            }
        }
    }
}

/// A message that was written, until its confirm.
struct Flight {
    job: Job,
    confirm: PublisherConfirm,
    outcome: Option<lapin::Result<Confirmation>>,
    since: Instant,
}

impl Flight {
    /// Whether its confirm has come.
    fn landed(&mut self) -> bool {
        if self.outcome.is_none() {
            self.outcome = (&mut self.confirm).now_or_never();
        }
        self.outcome.is_some()
    }

    /// Waits for its confirm.
    async fn land(&mut self) {
        if self.outcome.is_none() {
            self.outcome = Some((&mut self.confirm).await);
        }
    }

    /// The message that came back with its confirm: not always its own.
    fn take_returned(&mut self) -> Option<String> {
        let message: BasicReturnMessage = match &mut self.outcome {
            Some(Ok(Confirmation::Ack(message) | Confirmation::Nack(message))) => message.take()?,
            _ => return None,
        };
        message.properties.message_id().as_ref().map(ToString::to_string)
    }
}

/// Why a channel isn't used any more.
enum End {
    /// Something failed: open another one.
    Failed,
    /// All is done, and no more will come.
    Closed,
}

struct Worker {
    config: LaneConfig,
    jobs: mpsc::Receiver<Job>,
    /// To be sent before what is in `jobs`.
    backlog: VecDeque<Job>,
    /// In the order of their tags.
    flying: VecDeque<Flight>,
    /// Sent before those that fly, and refused.
    refused: VecDeque<Job>,
    /// Returned, as no queue took them: for the same channel, when it is time.
    returned: VecDeque<(Instant, Job)>,
    /// Ids that came back and whose own confirm wasn't looked at yet.
    returned_ids: Vec<String>,
}

impl Worker {
    async fn run(mut self) {
        loop {
            self.backlog.retain(|job| !job.done.is_closed());
            if self.backlog.is_empty() && self.returned.is_empty() {
                match self.next_job().await {
                    Some(job) => self.backlog.push_back(job),
                    None => return,
                }
            }
            let Ok(live) = self.config.link.live().await else { return };
            match open(&live).await {
                Ok(channel) => match self.pump(&live, &channel).await {
                    End::Failed => self.abandon(&channel).await,
                    End::Closed => return,
                },
                Err(error) => {
                    tracing::debug!(%error, "publisher channel not opened");
                    self.backlog.iter().for_each(|job| job.note(error.clone()));
                    sleep(BACK_OFF).await;
                }
            }
        }
    }

    /// None when the lane is closing and nothing is left.
    async fn next_job(&mut self) -> Option<Job> {
        tokio::select! {
            biased;
            job = self.jobs.recv() => job,
            () = self.config.closing.cancelled() => {
                self.jobs.close();
                self.jobs.recv().await
            }
        }
    }

    async fn pump(&mut self, live: &Live, channel: &Channel) -> End {
        let mut ended = false;
        loop {
            while let Some((_, job)) = self.returned.pop_front_if(|(at, _)| *at <= Instant::now()) {
                self.backlog.push_back(job);
            }
            if self.flying.len() < WINDOW
                && let Some(job) = self.backlog.pop_front()
                && self.write(live, channel, job).await.is_err()
            {
                return End::Failed;
            }
            if self.flying.front_mut().is_some_and(Flight::landed) {
                if self.settle(live, channel).await.is_err() {
                    return End::Failed;
                }
                continue;
            }
            if !self.backlog.is_empty() && self.flying.len() < WINDOW {
                continue;
            }
            if ended && self.flying.is_empty() && self.returned.is_empty() {
                return End::Closed;
            }
            let overdue = self.flying.front().map(|first| first.since + self.config.patience);
            let again = self.returned.front().map(|(at, _)| *at);
            let room = self.flying.len() < WINDOW && !ended;
            tokio::select! {
                job = self.jobs.recv(), if room => match job {
                    Some(job) => self.backlog.push_back(job),
                    None => ended = true,
                },
                () = first(&mut self.flying) => {}
                () = sleep_until(overdue.unwrap_or_else(Instant::now)), if overdue.is_some() => {
                    // While the broker is blocked no channel would fare better.
                    if self.config.link.blocked().is_none() {
                        return End::Failed;
                    }
                    self.flying.iter_mut().for_each(|flight| flight.since = Instant::now());
                }
                () = sleep_until(again.unwrap_or_else(Instant::now)), if again.is_some() => {}
                () = live.gone.cancelled() => return End::Failed,
                () = self.config.closing.cancelled(), if room => self.jobs.close(),
            }
        }
    }

    async fn write(&mut self, live: &Live, channel: &Channel, job: Job) -> Result<(), ()> {
        if job.done.is_closed() {
            return Ok(());
        }
        let Outgoing { exchange, key, properties, body, mandatory, .. } = &job.outgoing;
        let options = BasicPublishOptions { mandatory: *mandatory, immediate: false };
        let (exchange, properties) = (ShortString::from(*exchange), properties.clone());
        let publish = channel.basic_publish(exchange, key.clone(), options, body, properties);
        // It hangs while the broker is blocked, and goes on afterwards.
        let written = tokio::select! {
            written = publish => written.map_err(Fault::from),
            () = live.gone.cancelled() => Err(Fault::Lost("connection lost".to_owned())),
        };
        match written {
            Ok(confirm) => {
                self.flying.push_back(Flight {
                    job,
                    confirm,
                    outcome: None,
                    since: Instant::now(),
                });
                Ok(())
            }
            Err(fault) => {
                job.note(fault.into());
                self.backlog.push_front(job);
                Err(())
            }
        }
    }

    /// Reads what confirms there are; returns how many of the oldest flights
    /// may be told their outcome.
    ///
    /// The broker sends a message back before it acks it. But one ack may
    /// stand for many messages, and lapin hangs what came back on any of
    /// them, or on one acked before. So an ack is believed only when every
    /// confirm that came before it, or with it, was searched for its id.
    fn look(&mut self, channel: &Channel) -> usize {
        let pending = self.flying.iter_mut().position(|flight| !flight.landed());
        let landed = pending.unwrap_or(self.flying.len());
        // All confirms of an ack are given out under a lock that this takes.
        let _ = channel.wait_for_confirms().now_or_never();
        for flight in &mut self.flying {
            flight.landed();
            self.returned_ids.extend(flight.take_returned());
        }
        landed
    }

    /// Whether a message was returned; once for each time that it was.
    fn came_back(&mut self, id: &str) -> bool {
        let place = self.returned_ids.iter().position(|returned| returned == id);
        place.map(|place| self.returned_ids.swap_remove(place)).is_some()
    }

    /// Tells the callers of the oldest flights what became of them.
    ///
    /// # Errors
    /// When one failed; it and what must follow it is in `refused`.
    async fn settle(&mut self, live: &Live, channel: &Channel) -> Result<(), ()> {
        let landed = self.look(channel);
        let mut failed = VecDeque::new();
        for _ in 0..landed {
            let Some(Flight { job, outcome: Some(outcome), .. }) = self.flying.pop_front() else {
                break;
            };
            let trouble = match outcome {
                Ok(Confirmation::Ack(_)) if !self.came_back(job.id()) => None,
                Ok(Confirmation::Ack(_)) => {
                    let error = BrokerError::Unroutable(job.outgoing.key.to_string());
                    if !self.config.ordered {
                        // The channel is well, and others needn't wait.
                        job.note(error);
                        self.returned.push_back((Instant::now() + BACK_OFF, job));
                        continue;
                    }
                    Some(error)
                }
                Ok(_) => match full(live, &job.outgoing).await {
                    Some(full) => {
                        let _ = job.done.send(Err(full));
                        continue;
                    }
                    None => Some(BrokerError::Down("refused by the broker".to_owned())),
                },
                Err(error) => Some(Fault::from(error).into()),
            };
            match trouble {
                Some(trouble) => {
                    job.note(trouble);
                    failed.push_back(job);
                }
                None if self.config.ordered && !failed.is_empty() => failed.push_back(job),
                None => drop(job.done.send(Ok(()))),
            }
        }
        if failed.is_empty() {
            return Ok(());
        }
        self.refused = failed;
        Err(())
    }

    /// Backs off, takes what confirms still come by the old channel meanwhile,
    /// and keeps the rest for the next one, in order.
    async fn abandon(&mut self, channel: &Channel) {
        let end = Instant::now() + BACK_OFF;
        let mut left = std::mem::take(&mut self.refused);
        if !self.config.ordered {
            let landings = async {
                for flight in &mut self.flying {
                    flight.land().await;
                }
            };
            let _ = tokio::time::timeout_at(end, landings).await;
            // Only those that had landed before the search are believed.
            let before: Vec<bool> = self.flying.iter_mut().map(Flight::landed).collect();
            self.look(channel);
            for (flight, landed) in std::mem::take(&mut self.flying).into_iter().zip(before) {
                let acked = matches!(flight.outcome, Some(Ok(Confirmation::Ack(_))));
                if landed && acked && !self.came_back(flight.job.id()) {
                    let _ = flight.job.done.send(Ok(()));
                } else {
                    left.push_back(flight.job);
                }
            }
        }
        left.extend(self.flying.drain(..).map(|flight| flight.job));
        self.returned_ids.clear();
        left.append(&mut self.backlog);
        self.backlog = left;
        sleep_until(end).await;
        let _ = timeout(BACK_OFF, channel.close(200, "replaced".into())).await;
    }
}

/// Waits for the oldest flight; for ever if there is none.
async fn first(flying: &mut VecDeque<Flight>) {
    match flying.front_mut() {
        Some(flight) => flight.land().await,
        None => std::future::pending().await,
    }
}

/// A channel with confirms.
async fn open(live: &Live) -> Result<Channel, BrokerError> {
    let channel = live.open().await?;
    live.call(channel.confirm_select(ConfirmSelectOptions::default())).await?;
    Ok(channel)
}

/// [`BrokerError::Full`] if that is why the message was refused. Having been
/// full, a queue takes messages again when it is down to four fifths.
async fn full(live: &Live, outgoing: &Outgoing) -> Option<BrokerError> {
    let (queue, max) = outgoing.bound.as_ref()?;
    let channel = live.open().await.ok()?;
    let options = QueueDeclareOptions { passive: true, ..Default::default() };
    let declare = channel.queue_declare(queue.clone(), options, FieldTable::default());
    let count = u64::from(live.call(declare).await.ok()?.message_count());
    (count * 5 >= max * 4).then(|| BrokerError::Full(queue.to_string()))
}

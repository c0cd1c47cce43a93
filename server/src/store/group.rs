//! Group commit: batches that wait while one is being written are written
//! together, in one transaction.
//!
//! Each partition's worker commits its own batches; what they cost is the
//! transaction, hardly the rows in it. One that can't be written must not keep
//! the others from being written: then each gets a transaction of its own.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sqlx::AnyPool;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

use super::commit::{self, Rows};
use super::{Commit, StoreError};

/// How many batches may wait; whoever comes later waits for room.
const WAITING_MAX: usize = 64;
/// The most batches in one transaction.
const TOGETHER_MAX: usize = 32;
/// A transaction that takes this long means that the machine is busy.
const SLOW: Duration = Duration::from_millis(2);
/// After a slow one there is as long a rest, up to this: what comes meanwhile
/// goes together and costs less for each, and receipts get their turn.
const REST_MAX: Duration = Duration::from_millis(4);

type Written = Result<Vec<u64>, StoreError>;

struct Job {
    rows: Rows,
    done: oneshot::Sender<Written>,
}

impl Job {
    fn answer(self, written: Written) {
        // Whoever asked may have gone; the work is done all the same.
        let _ = self.done.send(written);
    }
}

/// Gives batches to the task that writes them.
pub(super) struct Committer {
    jobs: mpsc::Sender<Job>,
    /// True since the last batch couldn't be written, because the store was away.
    failing: AtomicBool,
    /// Told after each batch.
    written: Arc<Notify>,
}

impl Committer {
    pub(super) fn start(pool: AnyPool) -> Self {
        let (sender, jobs) = mpsc::channel(WAITING_MAX);
        tokio::spawn(run(pool, jobs));
        Self { jobs: sender, failing: AtomicBool::new(false), written: Arc::default() }
    }

    pub(super) fn written(&self) -> Arc<Notify> {
        self.written.clone()
    }

    /// Returns when the batch is durable, with its offsets.
    pub(super) async fn commit(&self, commit: &Commit) -> Written {
        let (done, answer) = oneshot::channel();
        let closed = || StoreError::Unavailable("closed".to_owned());
        let job = Job { rows: Rows::encode(commit)?, done };
        self.jobs.send(job).await.map_err(|_| closed())?;
        let written = answer.await.map_err(|_| closed())?;
        self.say_failing(matches!(written, Err(StoreError::Unavailable(_))));
        self.written.notify_one();
        written
    }

    pub(super) fn failing(&self) -> bool {
        self.failing.load(Ordering::Relaxed)
    }

    pub(super) fn say_failing(&self, failing: bool) {
        self.failing.store(failing, Ordering::Relaxed);
    }
}

async fn run(pool: AnyPool, mut jobs: mpsc::Receiver<Job>) {
    let mut waiting = Vec::new();
    let mut rested = Instant::now();
    loop {
        if waiting.is_empty() && jobs.recv_many(&mut waiting, TOGETHER_MAX).await == 0 {
            return;
        }
        sleep_until(rested).await;
        while waiting.len() < TOGETHER_MAX
            && let Ok(job) = jobs.try_recv()
        {
            waiting.push(job);
        }
        let (together, rest) = disjoint(std::mem::take(&mut waiting));
        waiting = rest;
        let begun = Instant::now();
        write(&pool, together).await;
        let took = begun.elapsed();
        if took >= SLOW {
            rested = Instant::now() + took.min(REST_MAX);
        }
    }
}

/// Those that touch nothing twice, and the rest.
fn disjoint(jobs: Vec<Job>) -> (Vec<Job>, Vec<Job>) {
    let mut touched = HashSet::new();
    jobs.into_iter().partition(|job| {
        let free = job.rows.keys().all(|key| !touched.contains(key));
        if free {
            touched.extend(job.rows.keys().map(str::to_owned));
        }
        free
    })
}

async fn write(pool: &AnyPool, jobs: Vec<Job>) {
    let all: Vec<&Rows> = jobs.iter().map(|job| &job.rows).collect();
    match commit::write(pool, &all).await {
        Ok(offsets) => {
            for (job, offsets) in jobs.into_iter().zip(offsets) {
                job.answer(Ok(offsets));
            }
        }
        Err(error) if jobs.len() > 1 => apart(pool, jobs, &error).await,
        Err(error) => jobs.into_iter().for_each(|job| job.answer(Err(error.clone()))),
    }
}

/// One by one. If the store is away, the first tells for all.
async fn apart(pool: &AnyPool, jobs: Vec<Job>, error: &StoreError) {
    let mut away = matches!(error, StoreError::Unavailable(_));
    let mut jobs = jobs.into_iter();
    while let Some(job) = jobs.next() {
        let written = commit::write(pool, &[&job.rows]).await;
        let written = written.map(|offsets| offsets.into_iter().next().unwrap_or_default());
        if let (true, Err(error @ StoreError::Unavailable(_))) = (away, &written) {
            let error = error.clone();
            job.answer(written);
            return jobs.for_each(|job| job.answer(Err(error.clone())));
        }
        away = false;
        job.answer(written);
    }
}

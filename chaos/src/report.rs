//! What a run came to: which promises were broken, and how long things took.

use std::collections::BTreeMap;
use std::fmt;

/// Examples of each finding that are told.
const TOLD_MAX: usize = 5;

/// The ways to break a promise. None of them may be found once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Broken {
    /// Accepted and not there, or there and not at a client in the end.
    Lost,
    /// Posted again and again, and never accepted.
    Unacknowledged,
    /// A command that never got its reply.
    Unreplied,
    /// A client that nobody ever welcomed.
    Unwelcomed,
    /// There, and attempted by nobody; or not what the store has.
    Unexpected,
    Duplicated,
    OutOfOrder,
    /// Something was missed and nobody said so.
    UnsignaledGap,
    /// Continuity was given up, though what was missed could be replayed.
    NeedlessGap,
    /// A message left in a queue in the end.
    LeftInQueue,
    /// A dead letter that wasn't meant to be one, or one that is missing.
    DeadLetter,
    DuplicatedOnScreen,
    /// Anything else that a page showed wrongly, or not at all.
    WrongOnScreen,
}

impl Broken {
    const ALL: [(Self, &str); 13] = [
        (Self::Lost, "lost"),
        (Self::Unacknowledged, "unacknowledged"),
        (Self::Unreplied, "unreplied"),
        (Self::Unwelcomed, "never welcomed"),
        (Self::Unexpected, "unexpected"),
        (Self::Duplicated, "duplicated"),
        (Self::OutOfOrder, "out of order"),
        (Self::UnsignaledGap, "unsignaled gap"),
        (Self::NeedlessGap, "needless gap"),
        (Self::LeftInQueue, "left in queues"),
        (Self::DeadLetter, "dead letters"),
        (Self::DuplicatedOnScreen, "duplicated on screen"),
        (Self::WrongOnScreen, "wrong on screen"),
    ];
}

#[derive(Default)]
pub(crate) struct Report {
    pub(crate) attempted: usize,
    pub(crate) acknowledged: usize,
    pub(crate) commands: usize,
    pub(crate) replied: usize,
    pub(crate) events: usize,
    pub(crate) received: u64,
    /// Not acknowledged at first or at all, and there.
    pub(crate) recovered: usize,
    pub(crate) repeated_on_wire: usize,
    /// Gaps that the aggregator told of.
    pub(crate) signaled: usize,
    /// Messages that nobody can decode, sent on purpose.
    pub(crate) poison: usize,
    /// Times that a page showed something new.
    pub(crate) shown: usize,
    pub(crate) moved: usize,
    pub(crate) downs: usize,
    pub(crate) faults: BTreeMap<String, usize>,
    /// From a client's line being down to its being back.
    pub(crate) resumed: Vec<u64>,
    /// From a client's line being down to its having what it missed.
    pub(crate) level: Vec<u64>,
    /// By fault: from the fault to the client's being back.
    pub(crate) failovers: BTreeMap<String, Vec<u64>>,
    /// By fault: from the first post to the 202.
    pub(crate) acceptance: BTreeMap<String, Vec<u64>>,
    /// By fault: what became of each post that wasn't accepted.
    pub(crate) refusals: BTreeMap<String, BTreeMap<String, usize>>,
    found: BTreeMap<Broken, Vec<String>>,
}

impl Report {
    /// A promise is broken.
    pub(crate) fn find(&mut self, broken: Broken, what: String) {
        self.found.entry(broken).or_default().push(what);
    }

    pub(crate) fn found(&self, broken: Broken) -> &[String] {
        self.found.get(&broken).map_or(&[], Vec::as_slice)
    }

    /// True if every promise was kept, and something was promised at all.
    pub(crate) fn is_good(&self) -> bool {
        self.found.is_empty() && self.acknowledged > 0 && self.received > 0
    }
}

fn spread(times: &[u64]) -> String {
    let mut times = times.to_vec();
    times.sort_unstable();
    let at = |share: usize| {
        times.get((times.len().saturating_sub(1)) * share / 100).copied().unwrap_or(0)
    };
    format!("{} times, p50 {} ms, p99 {} ms, max {} ms", times.len(), at(50), at(99), at(100))
}

fn counts(counts: &BTreeMap<String, usize>) -> String {
    let counts: Vec<String> =
        counts.iter().map(|(name, count)| format!("{name} {count}")).collect();
    counts.join(", ")
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "attempted             {} events, {} commands", self.attempted, self.commands)?;
        writeln!(
            f,
            "acknowledged          {} events, {} commands",
            self.acknowledged, self.replied
        )?;
        writeln!(f, "in the log            {}", self.events)?;
        writeln!(f, "received              {}", self.received)?;
        for (broken, name) in Broken::ALL {
            let found = self.found(broken);
            writeln!(f, "{name:<21} {}", found.len())?;
            for example in found.iter().take(TOLD_MAX) {
                writeln!(f, "                      {example}")?;
            }
        }
        writeln!(f, "recovered             {}", self.recovered)?;
        writeln!(f, "repeated on wire      {}", self.repeated_on_wire)?;
        writeln!(f, "signaled gaps         {}", self.signaled)?;
        writeln!(f, "poison, buried        {}", self.poison)?;
        writeln!(f, "shown on screen       {} times", self.shown)?;
        writeln!(f, "reconnects            {}, moved when told {}", self.downs, self.moved)?;
        writeln!(f, "down to resumed       {}", spread(&self.resumed))?;
        writeln!(f, "down to all there     {}", spread(&self.level))?;
        for (fault, times) in &self.failovers {
            writeln!(f, "  {fault}, to resumed: {}", spread(times))?;
        }
        for (fault, times) in &self.acceptance {
            writeln!(f, "  POST to 202, {fault}: {}", spread(times))?;
        }
        for (fault, refusals) in &self.refusals {
            writeln!(f, "  POST again, {fault}: {}", counts(refusals))?;
        }
        write!(f, "faults                {}", counts(&self.faults))
    }
}

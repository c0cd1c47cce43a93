//! Holds what publishers and clients wrote down against what the desk has.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use crate::journal::{Line, Saw, read, roll};
use crate::truth::Truth;

/// Examples of each finding that are told.
const TOLD_MAX: usize = 5;

#[derive(Default)]
pub(crate) struct Report {
    attempted: usize,
    acknowledged: usize,
    commands: usize,
    replied: usize,
    events: usize,
    received: u64,
    lost: Vec<String>,
    /// Not acknowledged at first or at all, and there.
    recovered: usize,
    unexpected: Vec<String>,
    duplicated: Vec<String>,
    duplicated_on_wire: usize,
    out_of_order: Vec<String>,
    unsignaled: Vec<String>,
    signaled: usize,
    refused_posts: usize,
    moved: usize,
    downs: usize,
    faults: BTreeMap<String, Vec<u64>>,
    resumed: Vec<u64>,
    /// By fault: from the fault to the client's being back.
    failovers: BTreeMap<String, Vec<u64>>,
    /// By fault: from the first post to the 202.
    acceptance: BTreeMap<String, Vec<u64>>,
}

impl Report {
    /// True if every promise was kept.
    pub(crate) fn is_good(&self) -> bool {
        self.lost.is_empty()
            && self.unexpected.is_empty()
            && self.duplicated.is_empty()
            && self.out_of_order.is_empty()
            && self.unsignaled.is_empty()
            && self.acknowledged > 0
            && self.received > 0
    }

    pub(crate) fn lose(&mut self, what: String) {
        self.lost.push(what);
    }
}

fn files(folder: &Path, prefix: &str) -> io::Result<Vec<PathBuf>> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(folder)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<io::Result<_>>()?;
    found.retain(|path| {
        path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(prefix))
    });
    found.sort();
    Ok(found)
}

fn place(path: &Path) -> String {
    path.file_stem().and_then(|name| name.to_str()).unwrap_or_default().to_owned()
}

/// Reads every journal in `folder`.
pub(crate) fn check(folder: &Path, truth: &Truth) -> io::Result<Report> {
    let mut report = Report::default();
    let faults = read(&folder.join("faults.jsonl"))?;
    let faults: Vec<(u64, String)> = faults
        .into_iter()
        .filter_map(|line| match line.saw {
            Saw::Fault { name } => Some((line.t, name)),
            _ => None,
        })
        .collect();
    for (t, name) in &faults {
        report.faults.entry(class(name)).or_default().push(*t);
    }
    let log = Log::of(truth, &mut report);
    for path in files(folder, "publisher-")? {
        publisher(&mut report, &log, &faults, read(&path)?);
    }
    for path in files(folder, "client-")? {
        client(&mut report, &log, truth, &faults, &place(&path), read(&path)?);
    }
    for (cause, offset) in &log.first {
        if !log.known.borrow().contains(cause) {
            report.unexpected.push(format!("{} at {offset}", cause));
        }
    }
    Ok(report)
}

/// `kill aggregator 1` is `kill aggregator`.
fn class(name: &str) -> String {
    name.split(' ')
        .filter(|word| !word.contains('@') && word.parse::<u32>().is_err())
        .collect::<Vec<_>>()
        .join(" ")
}

/// The desk's own record, looked at from the side of causes.
struct Log {
    /// The first offset of each cause.
    first: HashMap<Uuid, u64>,
    /// Causes that somebody attempted.
    known: std::cell::RefCell<BTreeSet<Uuid>>,
}

impl Log {
    fn of(truth: &Truth, report: &mut Report) -> Self {
        let mut first = HashMap::new();
        for (channel, events) in truth {
            let mut kinds: BTreeSet<(Uuid, &str)> = BTreeSet::new();
            let mut ids: BTreeSet<Uuid> = BTreeSet::new();
            let mut versions: HashMap<&str, u64> = HashMap::new();
            let mut before = 0;
            for (offset, event) in events {
                report.events += 1;
                if *offset != before + 1 {
                    report
                        .unsignaled
                        .push(format!("the log of {channel}: {offset} after {before}"));
                }
                before = *offset;
                first.entry(event.cause).or_insert(*offset);
                if !ids.insert(event.id) || !kinds.insert((event.cause, &event.kind)) {
                    report
                        .duplicated
                        .push(format!("{} of {} at {channel} {offset}", event.kind, event.cause));
                }
                if let Some((interaction, version)) = &event.version {
                    let known = versions.entry(interaction).or_insert(0);
                    if *version != *known + 1 {
                        report
                            .out_of_order
                            .push(format!("version {version} after {known} of {interaction}"));
                    }
                    *known = *version;
                }
            }
        }
        Self { first, known: Default::default() }
    }
}

/// The fault that was last begun before `t`, if that isn't long ago.
fn fault_before(faults: &[(u64, String)], t: u64, within_ms: u64) -> Option<&(u64, String)> {
    let last = faults.iter().rfind(|(at, name)| *at <= t && name != "mended")?;
    (t - last.0 <= within_ms).then_some(last)
}

fn publisher(report: &mut Report, log: &Log, faults: &[(u64, String)], lines: Vec<Line>) {
    let mut begun: HashMap<Uuid, (u64, String, u64)> = HashMap::new();
    let mut first_try: HashMap<Uuid, bool> = HashMap::new();
    let mut last_of: HashMap<String, u64> = HashMap::new();
    let mut acknowledged: BTreeSet<Uuid> = BTreeSet::new();
    for line in lines {
        match line.saw {
            Saw::Attempt { cause, key, seq } => {
                report.attempted += 1;
                log.known.borrow_mut().insert(cause);
                // In the order in which they were posted, one after another.
                if let Some(offset) = log.first.get(&cause) {
                    let last = last_of.entry(key.clone()).or_insert(0);
                    if offset <= last {
                        report.out_of_order.push(format!("{key} {seq} at {offset}, after {last}"));
                    }
                    *last = *offset;
                }
                begun.insert(cause, (line.t, key, seq));
            }
            Saw::Answer { cause, status } => {
                let at_once = *first_try.entry(cause).or_insert(status == Some(202));
                if status != Some(202) {
                    report.refused_posts += 1;
                    continue;
                }
                report.acknowledged += 1;
                acknowledged.insert(cause);
                let Some((t, key, seq)) = begun.get(&cause) else { continue };
                let class = match fault_before(faults, *t, 5_000) {
                    Some((_, name)) => class(name),
                    None => "quiet".to_owned(),
                };
                report.acceptance.entry(class).or_default().push(line.t - t);
                if !log.first.contains_key(&cause) {
                    report.lost.push(format!("{key} {seq}, {cause}, accepted at {} ms", line.t));
                } else if !at_once {
                    report.recovered += 1;
                }
            }
            _ => {}
        }
    }
    report.recovered += begun
        .keys()
        .filter(|cause| !acknowledged.contains(cause) && log.first.contains_key(cause))
        .count();
}

fn client(
    report: &mut Report,
    log: &Log,
    truth: &Truth,
    faults: &[(u64, String)],
    name: &str,
    lines: Vec<Line>,
) {
    let mut at: BTreeMap<String, u64> = BTreeMap::new();
    let mut down_at = None;
    let mut replies: HashMap<Uuid, Option<String>> = HashMap::new();
    for Line { t, saw } in lines {
        match saw {
            Saw::Welcome { channel, offset, recovered, fresh } => {
                if fresh || !recovered {
                    report.signaled += usize::from(!fresh);
                    at.insert(channel, offset);
                }
            }
            Saw::Gap { channel, offset } => {
                report.signaled += 1;
                at.insert(channel, offset);
            }
            Saw::Run { channel, first, last, hash } => {
                report.received += last - first + 1;
                let before = at.insert(channel.clone(), last).unwrap_or(0);
                if first > before + 1 {
                    report.unsignaled.push(format!("{name}: {channel} {first} after {before}"));
                } else if first <= before {
                    report.duplicated.push(format!("{name}: {channel} {first} after {before}"));
                }
                let expected = truth.get(&channel).map(|events| {
                    events
                        .range(first..=last)
                        .fold(0, |hash, (offset, event)| roll(hash, *offset, event.id))
                });
                if expected != Some(hash) {
                    report.unexpected.push(format!("{name}: {channel} {first} to {last} differ"));
                }
            }
            Saw::Repeated { .. } => report.duplicated_on_wire += 1,
            Saw::Miscounted { channel, sent, received } => {
                report
                    .unsignaled
                    .push(format!("{name}: {channel} sent {sent}, received {received}"));
            }
            Saw::Down { .. } => {
                report.downs += 1;
                down_at = Some(t);
            }
            Saw::Back { after_ms } => {
                report.resumed.push(after_ms);
                let fault = down_at.take().and_then(|down| fault_before(faults, down, 3_000));
                if let Some((begun, name)) = fault {
                    report.failovers.entry(class(name)).or_default().push(t - begun);
                }
            }
            Saw::Moved => report.moved += 1,
            Saw::Command { id } => {
                report.commands += 1;
                log.known.borrow_mut().insert(id);
            }
            Saw::Reply { id, error } => {
                let known = replies.entry(id).or_insert_with(|| {
                    report.replied += 1;
                    error.clone()
                });
                if *known != error {
                    report.duplicated.push(format!("{name}: two replies to {id}"));
                }
                if error.is_none() && !log.first.contains_key(&id) {
                    report.lost.push(format!("{name}: command {id}, replied at {t} ms"));
                }
            }
            Saw::Attempt { .. } | Saw::Answer { .. } | Saw::Fault { .. } => {}
        }
    }
    for (channel, last) in at {
        let head =
            truth.get(&channel).and_then(|events| events.keys().last()).copied().unwrap_or(0);
        if last < head {
            report.lost.push(format!("{name}: {channel} ends at {last} of {head}"));
        }
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

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "attempted          {} events, {} commands", self.attempted, self.commands)?;
        writeln!(f, "acknowledged       {} events, {} commands", self.acknowledged, self.replied)?;
        writeln!(f, "refused, retried   {}", self.refused_posts)?;
        writeln!(f, "in the log         {}", self.events)?;
        writeln!(f, "received           {}", self.received)?;
        let lists = [
            ("lost", &self.lost),
            ("unexpected", &self.unexpected),
            ("duplicated", &self.duplicated),
            ("out of order", &self.out_of_order),
            ("unsignaled gap", &self.unsignaled),
        ];
        for (name, list) in lists {
            writeln!(f, "{name:<18} {}", list.len())?;
            for example in list.iter().take(TOLD_MAX) {
                writeln!(f, "                   {example}")?;
            }
        }
        writeln!(f, "recovered          {}", self.recovered)?;
        writeln!(f, "repeated on wire   {}", self.duplicated_on_wire)?;
        writeln!(f, "signaled gaps      {}", self.signaled)?;
        writeln!(f, "reconnects         {}, moved when told {}", self.downs, self.moved)?;
        writeln!(f, "down to resumed    {}", spread(&self.resumed))?;
        for (fault, times) in &self.failovers {
            writeln!(f, "  {fault}, to resumed: {}", spread(times))?;
        }
        for (fault, times) in &self.acceptance {
            writeln!(f, "  POST to 202, {fault}: {}", spread(times))?;
        }
        let faults: Vec<String> = self
            .faults
            .iter()
            .filter(|(name, _)| *name != "mended")
            .map(|(name, times)| format!("{name} {}", times.len()))
            .collect();
        write!(f, "faults             {}", faults.join(", "))
    }
}

//! Holds what publishers, clients and pages wrote down against what the desk has.
//!
//! Nothing is excused for being under way when a run ended: publishers finish
//! what they have begun, and clients stay until each command has its reply.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use crate::journal::{Line, Saw, read, roll};
use crate::report::{Broken, Report};
use crate::truth::Truth;

/// What docs/RELIABILITY.md promises to replay of a channel.
const REPLAYED_EVENTS_MAX: usize = 25_000;
const REPLAYED_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// What a frame has around the event's body.
const FRAME_BYTES: u64 = 64;
/// How long after its mending a fault may still be felt, by posts and by clients.
const FELT_BY_POSTS_MS: u64 = 5_000;
const FELT_BY_CLIENTS_MS: u64 = 3_000;

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
    let trouble = read(&folder.join("faults.jsonl"))?;
    let faults = Faults::of(&trouble);
    for Fault { name, .. } in &faults.0 {
        *report.faults.entry(class(name)).or_default() += 1;
    }
    let mut log = Log::of(truth, &mut report);
    for path in files(folder, "publisher-")? {
        publisher(&mut report, &mut log, &faults, read(&path)?);
    }
    for path in files(folder, "client-")? {
        client(&mut report, &mut log, truth, &faults, &place(&path), read(&path)?);
    }
    for path in files(folder, "page-")? {
        page(&mut report, log.last_watched, &place(&path), read(&path)?);
    }
    for path in files(folder, "end")? {
        end(&mut report, &trouble, read(&path)?);
    }
    for (cause, offset) in &log.first {
        if !log.known.contains(cause) {
            report.find(Broken::Unexpected, format!("{cause} at {offset}"));
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

struct Fault {
    begun: u64,
    mended: u64,
    name: String,
}

/// What was broken, one after the other.
struct Faults(Vec<Fault>);

impl Faults {
    fn of(lines: &[Line]) -> Self {
        let mut faults: Vec<Fault> = Vec::new();
        for line in lines {
            match &line.saw {
                Saw::Fault { name } if name == "mended" => {
                    if let Some(last) = faults.last_mut() {
                        last.mended = line.t;
                    }
                }
                Saw::Fault { name } => {
                    faults.push(Fault { begun: line.t, mended: u64::MAX, name: name.clone() });
                }
                _ => {}
            }
        }
        Self(faults)
    }

    /// The one that lasts at `t`, or was mended shortly before.
    fn felt(&self, t: u64, after_ms: u64) -> Option<&Fault> {
        let last = self.0.iter().rfind(|fault| fault.begun <= t)?;
        (t <= last.mended.saturating_add(after_ms)).then_some(last)
    }
}

/// The desk's own record, looked at from the side of causes.
struct Log {
    /// The first offset of each cause.
    first: HashMap<Uuid, u64>,
    /// Causes that somebody attempted.
    known: BTreeSet<Uuid>,
    /// The number of the last message that was posted for pages to see.
    last_watched: Option<u64>,
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
                    let what = format!("the log of {channel}: {offset} after {before}");
                    report.find(Broken::UnsignaledGap, what);
                }
                before = *offset;
                first.entry(event.cause).or_insert(*offset);
                if !ids.insert(event.id) || !kinds.insert((event.cause, &event.kind)) {
                    let what = format!("{} of {} at {channel} {offset}", event.kind, event.cause);
                    report.find(Broken::Duplicated, what);
                }
                if let Some((interaction, version)) = &event.version {
                    let known = versions.entry(interaction).or_insert(0);
                    if *version != *known + 1 {
                        let what = format!("version {version} after {known} of {interaction}");
                        report.find(Broken::OutOfOrder, what);
                    }
                    *known = *version;
                }
            }
        }
        Self { first, known: BTreeSet::new(), last_watched: None }
    }
}

/// An event, from its first post on.
struct Posted {
    begun: u64,
    key: String,
    seq: u64,
    refused: bool,
    acknowledged: bool,
}

fn publisher(report: &mut Report, log: &mut Log, faults: &Faults, lines: Vec<Line>) {
    let mut posts: BTreeMap<Uuid, Posted> = BTreeMap::new();
    let mut last_of: HashMap<String, u64> = HashMap::new();
    let felt = |t| match faults.felt(t, FELT_BY_POSTS_MS) {
        Some(fault) => class(&fault.name),
        None => "quiet".to_owned(),
    };
    for line in lines {
        match line.saw {
            Saw::Attempt { cause, key, seq } => {
                report.attempted += 1;
                log.known.insert(cause);
                if key == crate::WATCHED {
                    log.last_watched = log.last_watched.max(Some(seq));
                }
                // In the order in which they were posted, one after another.
                if let Some(offset) = log.first.get(&cause) {
                    let last = last_of.entry(key.clone()).or_insert(0);
                    if offset <= last {
                        let what = format!("{key} {seq} at {offset}, after {last}");
                        report.find(Broken::OutOfOrder, what);
                    }
                    *last = *offset;
                }
                let begun = line.t;
                let posted = Posted { begun, key, seq, refused: false, acknowledged: false };
                posts.insert(cause, posted);
            }
            Saw::Answer { cause, status, failure } => {
                let Some(posted) = posts.get_mut(&cause) else { continue };
                if status != Some(202) {
                    posted.refused = true;
                    let said = status.map(|status| status.to_string()).or(failure);
                    let said = said.unwrap_or_else(|| "no answer".to_owned());
                    *report.refusals.entry(felt(line.t)).or_default().entry(said).or_default() += 1;
                    continue;
                }
                posted.acknowledged = true;
                report.acknowledged += 1;
                let took = line.t - posted.begun;
                report.acceptance.entry(felt(posted.begun)).or_default().push(took);
                if !log.first.contains_key(&cause) {
                    let Posted { key, seq, .. } = posted;
                    let what = format!("{key} {seq}, {cause}, accepted at {} ms", line.t);
                    report.find(Broken::Lost, what);
                }
            }
            _ => {}
        }
    }
    for (cause, Posted { begun, key, seq, refused, acknowledged }) in posts {
        if !acknowledged {
            let what = format!("{key} {seq}, {cause}, posted at {begun} ms");
            report.find(Broken::Unacknowledged, what);
        }
        report.recovered +=
            usize::from((refused || !acknowledged) && log.first.contains_key(&cause));
    }
}

/// Whether what was missed of a channel, between two offsets, is more than
/// can be asked for.
fn beyond_replay(truth: &Truth, channel: &str, after: u64, upto: u64) -> Result<(), String> {
    let missed = after + 1..=upto.max(after + 1);
    let events = truth.get(channel).filter(|_| upto > after);
    let events = events.into_iter().flat_map(|events| events.range(missed.clone()));
    let (count, bytes) = events
        .fold((0, 0), |(count, bytes), (_, event)| (count + 1, bytes + event.bytes + FRAME_BYTES));
    if count > REPLAYED_EVENTS_MAX || bytes > REPLAYED_BYTES_MAX {
        return Ok(());
    }
    Err(format!("{channel} from {after} to {upto}: {count} events, {bytes} bytes"))
}

fn client(
    report: &mut Report,
    log: &mut Log,
    truth: &Truth,
    faults: &Faults,
    name: &str,
    lines: Vec<Line>,
) {
    let mut at: BTreeMap<String, u64> = BTreeMap::new();
    let mut down_at = None;
    let mut commands: BTreeSet<Uuid> = BTreeSet::new();
    let mut replies: HashMap<Uuid, Option<String>> = HashMap::new();
    for Line { t, saw } in lines {
        match saw {
            Saw::Welcome { channel, offset, recovered: _, fresh: true } => {
                at.insert(channel, offset);
            }
            Saw::Welcome { recovered: true, .. } => {}
            Saw::Welcome { channel, offset, .. } | Saw::Gap { channel, offset } => {
                report.signaled += 1;
                let before = at.insert(channel.clone(), offset).unwrap_or(0);
                if let Err(what) = beyond_replay(truth, &channel, before, offset) {
                    report.find(Broken::NeedlessGap, format!("{name} at {t} ms: {what}"));
                }
            }
            Saw::Run { channel, first, last, hash } => {
                report.received += last - first + 1;
                let before = at.insert(channel.clone(), last).unwrap_or(0);
                if first > before + 1 {
                    let what = format!("{name}: {channel} {first} after {before}");
                    report.find(Broken::UnsignaledGap, what);
                } else if first <= before {
                    let what = format!("{name}: {channel} {first} after {before}");
                    report.find(Broken::Duplicated, what);
                }
                let expected = truth.get(&channel).map(|events| {
                    events
                        .range(first..=last)
                        .fold(0, |hash, (offset, event)| roll(hash, *offset, event.id))
                });
                if expected != Some(hash) {
                    let what = format!("{name}: {channel} {first} to {last} differ");
                    report.find(Broken::Unexpected, what);
                }
            }
            Saw::Repeated { .. } => report.repeated_on_wire += 1,
            Saw::Miscounted { channel, sent, received } => {
                let what = format!("{name}: {channel} sent {sent}, received {received}");
                report.find(Broken::UnsignaledGap, what);
            }
            Saw::Down { .. } => {
                report.downs += 1;
                down_at = Some(t);
            }
            Saw::Back { after_ms } => {
                report.resumed.push(after_ms);
                let fault = down_at.take().and_then(|down| faults.felt(down, FELT_BY_CLIENTS_MS));
                if let Some(fault) = fault {
                    report.failovers.entry(class(&fault.name)).or_default().push(t - fault.begun);
                }
            }
            Saw::Level { after_ms } => report.level.push(after_ms),
            Saw::Moved => report.moved += 1,
            Saw::Command { id } => {
                report.commands += 1;
                commands.insert(id);
                log.known.insert(id);
            }
            Saw::Reply { id, error } => {
                commands.remove(&id);
                let known = replies.entry(id).or_insert_with(|| {
                    report.replied += 1;
                    error.clone()
                });
                if *known != error {
                    report.find(Broken::Duplicated, format!("{name}: two replies to {id}"));
                }
                if error.is_none() && !log.first.contains_key(&id) {
                    let what = format!("{name}: command {id}, replied at {t} ms");
                    report.find(Broken::Lost, what);
                }
            }
            _ => {}
        }
    }
    for id in commands {
        report.find(Broken::Unreplied, format!("{name}: command {id}"));
    }
    if at.is_empty() {
        report.find(Broken::Unwelcomed, name.to_owned());
    }
    for (channel, last) in at {
        let head =
            truth.get(&channel).and_then(|events| events.keys().last()).copied().unwrap_or(0);
        if last < head {
            report.find(Broken::Lost, format!("{name}: {channel} ends at {last} of {head}"));
        }
    }
}

/// A page may draw a part of a long chat: its end, without holes.
fn page(report: &mut Report, wanted: Option<u64>, name: &str, lines: Vec<Line>) {
    let (mut last, mut twice, mut wrong) = (None, BTreeSet::new(), BTreeSet::new());
    for Line { saw, .. } in lines {
        match saw {
            Saw::Shown { messages } => {
                report.shown += 1;
                let mut seen = BTreeSet::new();
                twice.extend(messages.iter().filter(|message| !seen.insert(**message)).copied());
                for pair in messages.windows(2) {
                    if pair[1] != pair[0] + 1 && pair[1] != pair[0] {
                        wrong.insert(format!("message {} after {}", pair[1], pair[0]));
                    }
                }
                last = messages.last().copied();
            }
            Saw::Wrong { why } => drop(wrong.insert(why)),
            _ => {}
        }
    }
    if last != wanted || last.is_none() {
        wrong.insert(format!("the last message is {last:?}, not {wanted:?}"));
    }
    for message in twice {
        report.find(Broken::DuplicatedOnScreen, format!("{name}: message {message}"));
    }
    for why in wrong {
        report.find(Broken::WrongOnScreen, format!("{name}: {why}"));
    }
}

/// What was found in the queues when all was over: poison is dead, and
/// nothing else is there.
fn end(report: &mut Report, trouble: &[Line], lines: Vec<Line>) {
    let mut poison: BTreeSet<&str> = BTreeSet::new();
    poison.extend(trouble.iter().filter_map(|line| match &line.saw {
        Saw::Poison { id } => Some(id.as_str()),
        _ => None,
    }));
    for Line { saw, .. } in lines {
        match saw {
            Saw::Left { queue } => report.find(Broken::LeftInQueue, queue),
            Saw::Dead { id, .. } if poison.remove(id.as_str()) => report.poison += 1,
            Saw::Dead { id, reason } => report.find(Broken::DeadLetter, format!("{id}: {reason}")),
            _ => {}
        }
    }
    for id in poison {
        report.find(Broken::DeadLetter, format!("{id} is poison and not dead"));
    }
}

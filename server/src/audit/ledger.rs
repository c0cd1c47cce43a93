//! One hop's account of one channel: what passed by and is still to be
//! compared with the journal, and what came of it.

use std::collections::{BTreeMap, VecDeque};

use protocol::{BLOCK, Block, Difference, Digest, HopReport, block_of, mark};

use crate::store::JournalId;

/// Events that may wait to be compared; the oldest are let go, and counted.
pub(super) const PENDING_MAX: usize = 65_536;
/// Full blocks that are told in a heartbeat.
const TOLD_MAX: usize = 2;
/// The truth of so many full blocks is kept, for what others tell.
const TRUTH_MAX: usize = 16;
/// With more partitions than this, heartbeats tell none.
const PARTITIONS_MAX: usize = 32;

/// What is wrong in one block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) difference: Difference,
    pub(super) offset: u64,
    pub(super) partition: Option<u32>,
    pub(super) events: u64,
}

#[derive(Default)]
pub(super) struct Ledger {
    /// It sees every offset from where it began; a backend sees only those of
    /// its partitions.
    dense: bool,
    head: u64,
    verified: u64,
    /// Marks by offset.
    pending: BTreeMap<u64, u64>,
    unverified: u64,
    blocks: u64,
    partitions: BTreeMap<u32, Digest>,
    open: Option<Open>,
    told: VecDeque<Block>,
    truth: VecDeque<Block>,
}

/// The block that is being compared: as it passed by, and as the journal has it.
struct Open {
    block: u64,
    own: BTreeMap<u32, Digest>,
    truth: BTreeMap<u32, Digest>,
}

impl Ledger {
    /// Every offset after `head` will pass by.
    pub(super) fn begin(&mut self, head: u64) {
        *self = Self { dense: true, head, verified: head, ..Self::default() };
    }

    /// An event passed by.
    pub(super) fn pass(&mut self, offset: u64, mark: u64) {
        self.head = self.head.max(offset);
        self.pending.insert(offset, mark);
        if self.pending.len() > PENDING_MAX
            && let Some((oldest, _)) = self.pending.pop_first()
        {
            self.verified = self.verified.max(oldest);
            self.unverified += 1;
        }
    }

    /// What is to be compared, after one offset and up to another; none if all
    /// is. Whatever passed by is in the journal: it is read after this.
    pub(super) fn next(&self) -> Option<(u64, u64)> {
        if self.dense {
            (self.verified < self.head).then_some((self.verified, self.head))
        } else {
            let (first, last) = (self.pending.keys().next()?, self.pending.keys().next_back()?);
            Some((first.saturating_sub(1), *last))
        }
    }

    /// The last offset that passed by.
    pub(super) fn head(&self) -> u64 {
        self.head
    }

    /// Compares the stretch up to `upto` with what the journal has of it: all,
    /// or the beginning where the page is `full`.
    pub(super) fn compare(&mut self, upto: u64, rows: &[JournalId], full: bool) -> Vec<Finding> {
        let mut found = BTreeMap::new();
        let read = rows.last().filter(|_| full).map_or(upto, |row| row.offset);
        let upto = upto.min(read);
        for row in rows.iter().filter(|row| row.offset <= upto) {
            let truth = mark(row.offset, row.id.0);
            let passed = self.pending.remove(&row.offset);
            match passed {
                Some(own) if own == truth => {}
                Some(_) => note(&mut found, Difference::Altered, row.offset, Some(row.partition)),
                None if self.dense && row.offset > self.verified => {
                    note(&mut found, Difference::Missing, row.offset, Some(row.partition));
                }
                None => continue,
            }
            self.count(row, passed, truth);
        }
        // What is left of the stretch is nowhere in the journal.
        let later = self.pending.split_off(&(upto + 1));
        for offset in std::mem::replace(&mut self.pending, later).into_keys() {
            note(&mut found, Difference::Unknown, offset, None);
        }
        self.verified = self.verified.max(upto);
        found.into_values().collect()
    }

    fn count(&mut self, row: &JournalId, passed: Option<u64>, truth: u64) {
        let block = block_of(row.offset);
        if self.open.as_ref().is_none_or(|open| open.block != block) {
            let (own, truth) = (BTreeMap::new(), BTreeMap::new());
            self.open = Some(Open { block, own, truth });
        }
        let Some(open) = &mut self.open else { return };
        if let Some(own) = passed {
            self.partitions.entry(row.partition).or_default().add(own);
            open.own.entry(row.partition).or_default().add(own);
        }
        open.truth.entry(row.partition).or_default().add(truth);
        let seen: u64 = open.truth.values().map(|digest| digest.count).sum();
        if self.dense && seen == BLOCK {
            self.blocks += 1;
            keep(&mut self.told, Block { block, partitions: open.own.clone() }, TOLD_MAX);
            keep(&mut self.truth, Block { block, partitions: open.truth.clone() }, TRUTH_MAX);
        }
    }

    /// The first partition in which another member's block is not the
    /// journal's; none if it is, or if it can't be told any more.
    pub(super) fn disputes(&self, other: &Block) -> Option<u32> {
        let known = self.truth.iter().find(|known| known.block == other.block)?;
        let mut partitions = known.partitions.keys().chain(other.partitions.keys());
        partitions.find(|at| known.partitions.get(at) != other.partitions.get(at)).copied()
    }

    pub(super) fn unverified(&self) -> u64 {
        self.unverified
    }

    /// None if nothing ever passed by.
    pub(super) fn report(&self) -> Option<HopReport> {
        let few = self.partitions.len() <= PARTITIONS_MAX;
        (self.dense || self.head > 0).then(|| HopReport {
            head: self.head,
            verified: self.verified,
            blocks: self.blocks,
            partitions: if few { self.partitions.clone() } else { BTreeMap::new() },
            last: if few { self.told.iter().cloned().collect() } else { Vec::new() },
        })
    }
}

/// One finding for each block and difference.
fn note(
    found: &mut BTreeMap<(u64, Difference), Finding>,
    difference: Difference,
    offset: u64,
    partition: Option<u32>,
) {
    found
        .entry((block_of(offset), difference))
        .or_insert(Finding { difference, offset, partition, events: 0 })
        .events += 1;
}

fn keep(blocks: &mut VecDeque<Block>, block: Block, most: usize) {
    blocks.push_back(block);
    while blocks.len() > most {
        blocks.pop_front();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::EventId;
    use uuid::Uuid;

    fn row(offset: u64) -> JournalId {
        let id = EventId(Uuid::from_u128(offset.into()));
        JournalId { offset, id, partition: u32::from(offset.is_multiple_of(2)) }
    }

    fn rows(offsets: std::ops::RangeInclusive<u64>) -> Vec<JournalId> {
        offsets.map(row).collect()
    }

    fn own(offset: u64) -> u64 {
        mark(offset, row(offset).id.0)
    }

    fn finding(difference: Difference, offset: u64, events: u64) -> Finding {
        let partition = (difference != Difference::Unknown).then(|| row(offset).partition);
        Finding { difference, offset, partition, events }
    }

    #[test]
    fn what_is_as_in_the_journal_is_compared_once_and_counted_by_partition() {
        let mut ledger = Ledger::default();
        ledger.begin(100);
        (101..=600).for_each(|offset| ledger.pass(offset, own(offset)));
        assert_eq!(ledger.next(), Some((100, 600)));
        assert_eq!(ledger.compare(600, &rows(101..=400), true), []);
        assert_eq!(ledger.next(), Some((400, 600)));
        ledger.pass(601, own(601));
        assert_eq!(ledger.compare(600, &rows(401..=600), false), []);
        assert_eq!(ledger.next(), Some((600, 601)), "it came while the journal was read");
        let report = ledger.report().expect("a report");
        assert_eq!((report.head, report.verified), (601, 600));
        assert_eq!(report.blocks, 1, "257 to 512: the first was joined in the middle");
        assert_eq!(report.last[0].block, 1);
        assert_eq!(report.partitions.values().map(|digest| digest.count).sum::<u64>(), 500);
    }

    #[test]
    fn what_was_passed_over_altered_or_made_up_is_found_where_it_is() {
        let mut ledger = Ledger::default();
        ledger.begin(0);
        for offset in (1..=300).filter(|offset| ![7, 9, 270].contains(offset)) {
            ledger.pass(offset, own(offset));
        }
        ledger.pass(12, own(13));
        ledger.pass(301, own(301));
        let found = ledger.compare(301, &rows(1..=300), false);
        let wanted = [
            finding(Difference::Missing, 7, 2),
            finding(Difference::Altered, 12, 1),
            finding(Difference::Missing, 270, 1),
            finding(Difference::Unknown, 301, 1),
        ];
        assert_eq!(found, wanted);
        assert_eq!(ledger.next(), None, "each is found once");
    }

    #[test]
    fn a_hop_that_sees_a_part_misses_nothing_and_may_say_it_late_and_twice() {
        let mut ledger = Ledger::default();
        [10, 12, 11].iter().for_each(|offset| ledger.pass(*offset, own(*offset)));
        assert_eq!(ledger.compare(12, &rows(10..=20), false), []);
        [3, 12].iter().for_each(|offset| ledger.pass(*offset, own(*offset)));
        assert_eq!(ledger.next(), Some((2, 12)));
        assert_eq!(ledger.compare(12, &rows(3..=20), false), []);
        assert_eq!(ledger.next(), None);
        ledger.pass(4, own(5));
        assert_eq!(ledger.compare(4, &rows(4..=20), false), [finding(Difference::Altered, 4, 1)]);
    }

    #[test]
    fn another_members_block_is_held_against_the_journal() {
        let tell = |altered: Option<u64>| {
            let mut ledger = Ledger::default();
            ledger.begin(0);
            for offset in 1..=256 {
                let of = if altered == Some(offset) { offset + 1_000 } else { offset };
                ledger.pass(offset, own(of));
            }
            let _ = ledger.compare(256, &rows(1..=256), false);
            ledger
        };
        let (good, bad) = (tell(None), tell(Some(40)));
        let block = |ledger: &Ledger| ledger.report().expect("a report").last[0].clone();
        assert_eq!(good.disputes(&block(&good)), None);
        assert_eq!(good.disputes(&block(&bad)), Some(1));
        assert_eq!(good.disputes(&Block { block: 9, ..block(&bad) }), None);
    }

    #[test]
    fn what_waits_is_bounded_and_what_was_let_go_is_not_missing() {
        let mut ledger = Ledger::default();
        ledger.begin(0);
        let last = PENDING_MAX as u64 + 3;
        (1..=last).for_each(|offset| ledger.pass(offset, own(offset)));
        assert_eq!((ledger.pending.len(), ledger.unverified()), (PENDING_MAX, 3));
        assert_eq!(ledger.next(), Some((3, last)));
        assert_eq!(ledger.compare(last, &rows(4..=last), false), []);
    }
}

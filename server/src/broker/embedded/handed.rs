//! How far each queue had been handed out when the process died.
//!
//! A message that kills its process must not do so for ever. Writing down
//! each delivery in the database would cost a commit; here it costs a write
//! of eight bytes into the system's cache, which outlives the process (not
//! the machine: a power cut isn't a message's fault). Whatever is still there
//! at or before the mark when the file is opened again has failed once more.
//! An orderly close leaves no marks.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::broker::BrokerError;

/// The marks of all queues, by their slot.
pub(super) struct Handed(Mutex<File>);

impl Handed {
    /// Opens the marks and reads what the last life left; 0 where nothing is.
    pub(super) fn open(folder: &Path, slots: usize) -> Result<(Self, Vec<i64>), BrokerError> {
        let path = folder.join("handed");
        let named =
            |error: std::io::Error| BrokerError::Storage(format!("{}: {error}", path.display()));
        let mut file = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .map_err(named)?;
        let mut bytes = Vec::new();
        // No more than is ours, whatever is there.
        (&mut file).take(slots as u64 * 8).read_to_end(&mut bytes).map_err(named)?;
        let mut marks: Vec<i64> =
            bytes.as_chunks::<8>().0.iter().map(|bytes| i64::from_le_bytes(*bytes)).collect();
        marks.resize(slots, 0);
        Ok((Self(Mutex::new(file)), marks))
    }

    fn file(&self) -> MutexGuard<'_, File> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything up to `seq` has been handed out.
    pub(super) fn note(&self, slot: usize, seq: i64) {
        let mut file = self.file();
        let written = file
            .seek(SeekFrom::Start(slot as u64 * 8))
            .and_then(|_| file.write_all(&seq.to_le_bytes()));
        if let Err(error) = written {
            // Only a count is lost.
            tracing::debug!(%error, "mark not written");
        }
    }

    /// Forgets all marks, and takes the room for new ones.
    pub(super) fn clear(&self, slots: usize) -> std::io::Result<()> {
        let mut file = self.file();
        file.seek(SeekFrom::Start(0))?;
        file.write_all(&vec![0; slots * 8])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_outlive_the_one_who_made_them_until_they_are_cleared() {
        let folder = tempfile::tempdir().unwrap();
        let (handed, marks) = Handed::open(folder.path(), 3).unwrap();
        assert_eq!(marks, [0, 0, 0]);
        handed.clear(3).unwrap();
        handed.note(1, 7);
        handed.note(2, i64::MAX);
        handed.note(1, 8);
        drop(handed);
        let (handed, marks) = Handed::open(folder.path(), 3).unwrap();
        assert_eq!(marks, [0, 8, i64::MAX]);
        handed.clear(3).unwrap();
        assert_eq!(Handed::open(folder.path(), 3).unwrap().1, [0, 0, 0]);
    }

    #[test]
    fn a_torn_or_foreign_file_does_no_harm() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("handed"), [1, 0, 0, 0, 0, 0, 0, 0, 9, 9]).unwrap();
        assert_eq!(Handed::open(folder.path(), 3).unwrap().1, [1, 0, 0]);
    }
}

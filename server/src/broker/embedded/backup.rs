//! A copy of the queues, made beside the process that serves them.

use std::path::{Path, PathBuf};

use sqlx::sqlite::SqliteSynchronous;
use sqlx::{ConnectOptions, Connection};

use super::tables::{self, storage};
use crate::broker::BrokerError;

/// The file that holds the queues and dead letters of the broker in `folder`.
#[must_use]
pub fn queues_file(folder: &Path) -> PathBuf {
    folder.join("inbound.db")
}

/// Copies queues and dead letters of the broker in `folder` as of one moment
/// into `to`, which doesn't exist or is empty. Whoever writes them meanwhile
/// isn't held up.
///
/// The logs aren't copied: followers begin where the journal ends, so a
/// broker that is opened without them goes on with empty ones. Nor are the
/// marks of what was handed out: no message has failed because of a copy.
///
/// # Errors
/// [`BrokerError::Storage`] if the file is damaged, [`BrokerError::Blocked`]
/// or [`BrokerError::Down`] if it can't be read, or `to` not written.
pub async fn back_up(folder: &Path, to: &Path) -> Result<(), BrokerError> {
    let Some(path) = to.to_str() else {
        return Err(BrokerError::Storage(format!("{}: not UTF-8", to.display())));
    };
    let options = tables::options(&queues_file(folder), SqliteSynchronous::Full)?;
    let mut connection = options.create_if_missing(false).connect().await.map_err(storage)?;
    sqlx::query("VACUUM INTO ?").bind(path).execute(&mut connection).await.map_err(storage)?;
    connection.close().await.map_err(storage)
}

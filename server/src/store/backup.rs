//! A copy of a SQLite store, made beside whoever writes it.

use std::path::Path;
use std::str::FromStr;

use sqlx::any::{AnyConnectOptions, install_default_drivers};
use sqlx::{AnyConnection, Connection};

use super::StoreError;
use super::sql::Sql;

/// Copies the SQLite store `from` as of one moment into `to`, which doesn't
/// exist or is empty. Whoever writes the store meanwhile isn't held up.
///
/// The copy has no epoch: it gets one when it is first opened. What happens
/// to it from then on is another history under the same offsets, and no
/// cursor of the original may lead into it.
///
/// # Errors
/// [`StoreError::Broken`] if the store is damaged; [`StoreError::Unavailable`]
/// if it can't be read, or `to` not written.
pub async fn back_up(from: &Path, to: &Path) -> Result<(), StoreError> {
    install_default_drivers();
    let mut connection = connect(from).await?;
    let Some(path) = to.to_str() else {
        return Err(StoreError::Unavailable(format!("{}: not UTF-8", to.display())));
    };
    Sql::new("VACUUM INTO ").arg(path).run(&mut connection).await?;
    connection.close().await?;
    let mut copy = connect(to).await?;
    Sql::new("DELETE FROM meta WHERE name = 'epoch'").run(&mut copy).await?;
    copy.close().await?;
    Ok(())
}

async fn connect(file: &Path) -> Result<AnyConnection, StoreError> {
    let url = format!("sqlite://{}?mode=rw", file.display());
    Ok(AnyConnection::connect_with(&AnyConnectOptions::from_str(&url)?).await?)
}

//! Copies SQLite's write-ahead log into the file beside the commits, which
//! would have to wait for it: now and then one of them took ten times as long.

use std::sync::Arc;
use std::time::Duration;

use sqlx::AnyPool;
use tokio::sync::Notify;

use super::sql::Sql;

/// How long commits gather in the log.
const EVERY: Duration = Duration::from_millis(500);

/// Copies after `written`, until the pool is closed.
pub(super) fn start(pool: AnyPool, written: Arc<Notify>) {
    tokio::spawn(async move {
        let copying = copy_forever(&pool, &written);
        tokio::select! {
            () = pool.close_event() => {}
            () = copying => {}
        }
    });
}

async fn copy_forever(pool: &AnyPool, written: &Notify) {
    loop {
        written.notified().await;
        tokio::time::sleep(EVERY).await;
        // Passive: waits for nobody, and leaves what somebody still reads.
        let copied = Sql::new("PRAGMA wal_checkpoint(PASSIVE)").one_in(pool).await;
        if let Err(error) = copied {
            tracing::debug!(%error, "write-ahead log not copied");
        }
    }
}

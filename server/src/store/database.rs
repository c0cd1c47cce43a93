//! The store on SQLite or PostgreSQL: opening, migrating, and who answers what.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use domain::{Channel, Contact, ContactId, Interaction, InteractionId, Login, Timestamp};
use protocol::{
    AgentView, Cursor, InteractionDetail, InteractionList, Journey, Outcome, Principal,
};
use sqlx::any::{AnyConnectOptions, AnyPoolOptions, install_default_drivers};
use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::{AnyConnection, AnyPool, Connection, Executor};
use uuid::Uuid;

use super::checkpoint;
use super::group::Committer;
use super::sql::{Columns, Sql};
use super::{
    AgentRecord, Commit, Due, Integration, JournalId, JournalRow, ListQuery, Receipt, Store,
    StoreError,
};

/// Every migration, in order; the numbers are never used again.
const MIGRATIONS: &[(i64, &str, &str)] = &[
    (1, "desk", include_str!("../../migrations/0001_desk.sql")),
    (2, "senders", include_str!("../../migrations/0002_senders.sql")),
];

/// How long a connection may be waited for; then the store is unavailable.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);
/// Readers beside the one writer of a SQLite file.
const SQLITE_READERS: u32 = 3;

/// A commit copies the write-ahead log into the file only where this many
/// pages of it wait, 32 MiB: as a rule that is done beside the commits.
const SQLITE_SETTINGS: &str = "PRAGMA busy_timeout = 5000; PRAGMA journal_mode = WAL; \
    PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; PRAGMA cache_size = -8000; \
    PRAGMA temp_store = MEMORY; PRAGMA wal_autocheckpoint = 8000;";
const POSTGRES_SETTINGS: &str = "SET statement_timeout = '15s'; SET lock_timeout = '10s'; \
    SET idle_in_transaction_session_timeout = '30s';";

/// Where the store is.
#[derive(Clone, Debug)]
pub struct Config {
    /// `sqlite://PATH` or `postgres://…`.
    pub url: String,
    /// Connections to PostgreSQL. SQLite has one writer and three readers.
    pub max_connections: u32,
}

/// Opens the store, makes it if there is none, and brings it up to date.
///
/// # Errors
/// [`StoreError::Broken`] if it is damaged, or newer than this program;
/// [`StoreError::Unavailable`] if it can't be reached or is locked.
pub async fn open(config: &Config) -> Result<Arc<dyn Store>, StoreError> {
    Ok(Arc::new(Database::open(config).await?))
}

pub(super) struct Database {
    pub(super) write: AnyPool,
    pub(super) read: AnyPool,
    pub(super) postgres: bool,
    committer: Committer,
    epoch: String,
}

impl Database {
    async fn open(config: &Config) -> Result<Self, StoreError> {
        install_default_drivers();
        let file = config.url.strip_prefix("sqlite://").map(PathBuf::from);
        let postgres = file.is_none();
        if postgres && !config.url.starts_with("postgres") {
            return Err(StoreError::Broken(
                "store.url: must begin with sqlite:// or postgres://".to_owned(),
            ));
        }
        let url = match &file {
            Some(file) => {
                prepare(file).await?;
                format!("sqlite://{}?mode=rwc", file.display())
            }
            None => config.url.clone(),
        };
        let named = |error: StoreError| match &file {
            Some(file) => name(file, error),
            None => error,
        };
        knock(&url, postgres).await.map_err(named)?;
        let (write, read) = if postgres {
            let pool = pool(&url, config.max_connections, POSTGRES_SETTINGS).await?;
            (pool.clone(), pool)
        } else {
            let write = pool(&url, 1, SQLITE_SETTINGS).await.map_err(named)?;
            (write, pool(&url, SQLITE_READERS, SQLITE_SETTINGS).await.map_err(named)?)
        };
        let turn = match &file {
            Some(file) => Some(turn_to_migrate(file).await?),
            None => None,
        };
        migrator().run(&write).await.map_err(|error| named(migration_failed(error)))?;
        drop(turn);
        let epoch = epoch(&write).await.map_err(named)?;
        let committer = Committer::start(write.clone());
        if !postgres {
            checkpoint::start(read.clone(), committer.written());
        }
        Ok(Self { write, read, postgres, committer, epoch })
    }
}

/// Makes the folder and an empty file that nobody else can read.
async fn prepare(file: &Path) -> Result<(), StoreError> {
    let failed =
        |error: std::io::Error| StoreError::Unavailable(format!("{}: {error}", file.display()));
    if let Some(folder) = file.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        tokio::fs::create_dir_all(folder).await.map_err(failed)?;
    }
    let mut options = tokio::fs::OpenOptions::new();
    options.create(true).append(true).mode(0o600);
    options.open(file).await.map_err(failed)?;
    Ok(())
}

/// Two processes that open a new file at once take turns.
async fn turn_to_migrate(file: &Path) -> Result<std::fs::File, StoreError> {
    let path = file.with_extension("lock");
    let failed = move |error: String| StoreError::Unavailable(error);
    tokio::task::spawn_blocking(move || {
        let lock = std::fs::File::options().create(true).append(true).open(&path);
        lock.and_then(|lock| lock.lock().map(|()| lock))
            .map_err(|error| format!("{}: {error}", path.display()))
    })
    .await
    .map_err(|error| StoreError::Unavailable(error.to_string()))?
    .map_err(failed)
}

fn name(file: &Path, error: StoreError) -> StoreError {
    match error {
        StoreError::Unavailable(text) => {
            StoreError::Unavailable(format!("{}: {text}", file.display()))
        }
        StoreError::Broken(text) => StoreError::Broken(format!("{}: {text}", file.display())),
        other => other,
    }
}

fn migrator() -> Migrator {
    let migrations = MIGRATIONS
        .iter()
        .map(|(version, name, sql)| {
            let kind = MigrationType::Simple;
            Migration::new(*version, (*name).into(), kind, (*sql).into(), false)
        })
        .collect();
    Migrator { migrations, ..Migrator::DEFAULT }
}

fn migration_failed(error: MigrateError) -> StoreError {
    match error {
        MigrateError::VersionMissing(version) => StoreError::Broken(format!(
            "the store has version {version} and is newer than this program"
        )),
        MigrateError::VersionMismatch(version) => {
            StoreError::Broken(format!("version {version} of the store isn't this program's"))
        }
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => error.into(),
        other => StoreError::Broken(other.to_string()),
    }
}

/// One connection without a pool: what is wrong is said at once and by name.
async fn knock(url: &str, postgres: bool) -> Result<(), StoreError> {
    let options = AnyConnectOptions::from_str(url)?;
    let connect = AnyConnection::connect_with(&options);
    let mut connection = tokio::time::timeout(ACQUIRE_TIMEOUT, connect)
        .await
        .map_err(|_| StoreError::Unavailable("no answer".to_owned()))??;
    let look = if postgres { "SELECT 1 AS one" } else { "SELECT name FROM sqlite_master LIMIT 1" };
    Sql::new(look).one(&mut connection).await?;
    connection.close().await?;
    Ok(())
}

/// SQLite ends a transaction by itself when the disk is full, and then refuses
/// to roll it back, so that sqlx counts on: the next one on this connection
/// would be nested in nothing, said to be committed, and never written.
async fn at_rest(connection: &mut AnyConnection) -> Result<bool, sqlx::Error> {
    if connection.is_in_transaction() {
        // A rollback may be under way.
        connection.ping().await?;
    }
    Ok(!connection.is_in_transaction())
}

async fn pool(url: &str, connections: u32, settings: &'static str) -> Result<AnyPool, StoreError> {
    let options = AnyConnectOptions::from_str(url)?;
    let pool = AnyPoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        // A file doesn't go away while it rests; a server may have.
        .test_before_acquire(!url.starts_with("sqlite"))
        .after_connect(move |connection, _| {
            Box::pin(async move {
                for setting in settings.split(';').map(str::trim).filter(|one| !one.is_empty()) {
                    connection.execute(setting).await?;
                }
                Ok(())
            })
        })
        // What isn't at rest is closed, and another one is opened.
        .after_release(|connection, _| Box::pin(at_rest(connection)))
        .connect_with(options)
        .await?;
    Ok(pool)
}

/// Made with the journal; whoever comes second reads what the first wrote.
async fn epoch(pool: &AnyPool) -> Result<String, StoreError> {
    Sql::new("INSERT INTO meta (name, value) VALUES ('epoch', ")
        .arg(Uuid::now_v7().to_string())
        .and(") ON CONFLICT (name) DO NOTHING")
        .run_in(pool)
        .await?;
    let row = Sql::new("SELECT value FROM meta WHERE name = 'epoch'").one_in(pool).await?;
    row.ok_or_else(|| StoreError::Broken("the journal has no epoch".to_owned()))?.text("value")
}

#[async_trait]
impl Store for Database {
    fn epoch(&self) -> &str {
        &self.epoch
    }

    async fn outcomes(&self, ids: &[Uuid]) -> Result<BTreeMap<Uuid, Outcome>, StoreError> {
        self.read_outcomes(ids).await
    }

    async fn load(
        &self,
        ids: &[InteractionId],
    ) -> Result<BTreeMap<InteractionId, Interaction>, StoreError> {
        self.read_states(ids).await
    }

    async fn commit(&self, commit: &Commit) -> Result<Vec<u64>, StoreError> {
        self.committer.commit(commit).await
    }

    async fn outbox(
        &self,
        channel: Channel,
        partitions: &[u32],
        limit: u32,
    ) -> Result<Vec<JournalRow>, StoreError> {
        self.read_outbox(channel, partitions, limit).await
    }

    async fn announced(&self, channel: Channel, offsets: &[u64]) -> Result<(), StoreError> {
        self.mark_announced(channel, offsets).await
    }

    async fn due(&self, now: Timestamp, limit: u32) -> Result<Vec<Due>, StoreError> {
        self.read_due(now, limit).await
    }

    async fn heads(&self) -> Result<BTreeMap<Channel, Cursor>, StoreError> {
        self.read_heads().await
    }

    async fn journal(
        &self,
        channel: Channel,
        after: u64,
        limit: u32,
    ) -> Result<Vec<JournalRow>, StoreError> {
        self.read_journal(channel, after, limit).await
    }

    async fn journal_ids(
        &self,
        channel: Channel,
        after: u64,
        limit: u32,
    ) -> Result<Vec<JournalId>, StoreError> {
        self.read_journal_ids(channel, after, limit).await
    }

    async fn interactions(&self, query: &ListQuery) -> Result<InteractionList, StoreError> {
        self.read_list(query).await
    }

    async fn interaction(
        &self,
        id: InteractionId,
        viewer: &Login,
    ) -> Result<Option<InteractionDetail>, StoreError> {
        self.read_detail(id, viewer).await
    }

    async fn resolve_contacts(
        &self,
        contacts: &[Contact],
        now: Timestamp,
    ) -> Result<Vec<Contact>, StoreError> {
        self.find_or_add_contacts(contacts, now).await
    }

    async fn contact(&self, id: ContactId) -> Result<Option<Contact>, StoreError> {
        self.read_contact(id).await
    }

    async fn add_agent(&self, agent: &AgentRecord, now: Timestamp) -> Result<(), StoreError> {
        self.write_agent(agent, now).await
    }

    async fn add_first_agent(
        &self,
        agent: &AgentRecord,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        self.write_first_agent(agent, now).await
    }

    async fn agent(&self, login: &Login) -> Result<Option<AgentRecord>, StoreError> {
        self.read_agent(login).await
    }

    async fn agents(&self) -> Result<Vec<AgentView>, StoreError> {
        self.read_agents().await
    }

    async fn disable_agent(&self, login: &Login) -> Result<bool, StoreError> {
        self.write_disabled(login).await
    }

    async fn add_session(
        &self,
        hash: [u8; 32],
        login: &Login,
        now: Timestamp,
        expires_at: Timestamp,
    ) -> Result<(), StoreError> {
        self.write_session(hash, login, now, expires_at).await
    }

    async fn session(
        &self,
        hash: [u8; 32],
        now: Timestamp,
    ) -> Result<Option<(Principal, Timestamp)>, StoreError> {
        self.read_session(hash, now).await
    }

    async fn end_session(&self, hash: [u8; 32]) -> Result<(), StoreError> {
        self.delete_session(hash).await
    }

    async fn add_integration(&self, integration: &Integration) -> Result<(), StoreError> {
        self.write_integration(integration).await
    }

    async fn integration(&self, key_hash: [u8; 32]) -> Result<Option<Integration>, StoreError> {
        self.read_integration(key_hash).await
    }

    async fn integrations(&self) -> Result<Vec<Integration>, StoreError> {
        self.read_integrations().await
    }

    async fn revoke_integration(&self, name: &str, now: Timestamp) -> Result<bool, StoreError> {
        self.write_revoked(name, now).await
    }

    async fn record(&self, receipts: &[Receipt]) -> Result<(), StoreError> {
        self.write_receipts(receipts).await
    }

    async fn journey(&self, id: Uuid) -> Result<Option<(Journey, Option<String>)>, StoreError> {
        self.read_journey(id).await
    }

    async fn audit(
        &self,
        who: &str,
        what: &str,
        subject: &str,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let id = Uuid::now_v7().to_string();
        Sql::new("INSERT INTO audit (id, who, what, subject, at) VALUES ")
            .rows(&[[id.into(), who.into(), what.into(), subject.into(), now.as_millis().into()]])
            .run_in(&self.write)
            .await?;
        Ok(())
    }

    async fn prune(&self, before: Timestamp) -> Result<(), StoreError> {
        self.delete_old(before).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        Sql::new("SELECT 1 AS one").one_in(&self.read).await?;
        if self.committer.failing() {
            // On a full disk what reads is well, and what writes isn't. What
            // changes nothing isn't written.
            Sql::new("INSERT INTO meta (name, value) VALUES ('pinged', ")
                .arg(Uuid::now_v7().to_string())
                .and(") ON CONFLICT (name) DO UPDATE SET value = excluded.value")
                .run_in(&self.write)
                .await?;
            self.committer.say_failing(false);
        }
        Ok(())
    }

    async fn close(&self) {
        self.read.close().await;
        self.write.close().await;
    }
}

//! `warren backup`: a copy of a desk's files, also while it runs.

use std::fs::{self, DirBuilder, File};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use warren::broker::embedded;
use warren::config::Settings;
use warren::store;

use crate::Failure;
use crate::keeping::say;

const POSTGRES: &str = "the store is PostgreSQL: copy it with pg_dump, and before Warren starts on \
    what you restore, DELETE FROM meta WHERE name = 'epoch' there";

/// Writes the copy into the new folder `to`.
pub(crate) async fn run(settings: &Settings, to: &Path) -> Result<(), Failure> {
    let url = settings.store_url();
    let Some(store) = url.strip_prefix("sqlite://").map(PathBuf::from) else {
        return Err(Failure::Setup(POSTGRES.to_owned()));
    };
    if !store.is_file() {
        return Err(Failure::Setup(format!("{}: no store there", store.display())));
    }
    let to = &std::path::absolute(to).map_err(|error| named(to, error))?;
    folder(to)?;
    if fs::read_dir(to).map_err(|error| named(to, error))?.next().is_some() {
        return Err(Failure::Setup(format!("{}: not empty", to.display())));
    }
    let files = match copy(settings, &store, to).await {
        Ok(files) => files,
        Err(failure) => {
            // It was empty: half a copy is of no use to anybody.
            let _ = fs::remove_dir_all(to.join("broker"));
            return Err(failure);
        }
    };
    for file in files {
        let bytes = fs::metadata(&file).map_err(|error| named(&file, error))?.len();
        say(format_args!("{}\t{bytes} bytes", file.display()))?;
    }
    Ok(())
}

/// The queues first. What was accepted before is in them, or is decided and
/// thus in the store, which is copied later; what is in both is decided once,
/// by its id. The other way round, what is decided in between is in neither.
async fn copy(settings: &Settings, store: &Path, to: &Path) -> Result<Vec<PathBuf>, Failure> {
    let mut files = Vec::new();
    let broker = settings.data.join("broker");
    let embedded = settings.broker.publish_urls.is_empty();
    if embedded && embedded::queues_file(&broker).is_file() {
        let into = to.join("broker");
        folder(&into)?;
        let file = embedded::queues_file(&into);
        write(&file, async |part| {
            let done = embedded::back_up(&broker, part).await;
            done.map_err(|error| Failure::Setup(format!("{}: {error}", broker.display())))
        })
        .await?;
        files.push(file);
    }
    let file = to.join("warren.db");
    write(&file, async |part| {
        let done = store::back_up(store, part).await;
        done.map_err(|error| Failure::Setup(format!("{}: {error}", store.display())))
    })
    .await?;
    files.push(file);
    Ok(files)
}

/// Lets `copy` fill a file that nobody else can read, and gives it its name
/// when it is whole and on the disk: SQLite syncs no copy.
async fn write(
    file: &Path,
    copy: impl AsyncFnOnce(&Path) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let part = &file.with_extension("part");
    File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(part)
        .map_err(|error| named(part, error))?;
    let done = copy(part).await.and_then(|()| finish(part, file).map_err(|e| named(file, e)));
    if done.is_err() {
        let _ = fs::remove_file(part);
    }
    done
}

fn finish(part: &Path, file: &Path) -> std::io::Result<()> {
    File::open(part)?.sync_all()?;
    fs::rename(part, file)?;
    match file.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

/// Makes a folder that only its owner can open, unless there is one.
fn folder(path: &Path) -> Result<(), Failure> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(named(path, error)),
        _ => Ok(()),
    }
}

fn named(path: &Path, error: std::io::Error) -> Failure {
    Failure::Setup(format!("{}: {error}", path.display()))
}

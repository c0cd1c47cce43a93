//! A real page in Chromium, driven by a script beside the browser tests. What
//! it shows is written to a journal of its own.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use domain::{InteractionId, Kind};
use tokio::process::{Child, Command};
use tokio::time::Instant;

pub(crate) struct Page {
    child: Child,
    journal: PathBuf,
}

impl Page {
    /// `begun` is when the run was.
    pub(crate) fn open(
        web: &str,
        login: &str,
        password: &str,
        journal: PathBuf,
        begun: Instant,
    ) -> io::Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let chat = InteractionId::derive(crate::INTEGRATION, Kind::Chat, crate::WATCHED);
        std::fs::write(&journal, "")?;
        let child = Command::new("node")
            .arg(root.join("end2end/watch.mjs"))
            .args([web, login, password, &chat.to_string()])
            .arg(&journal)
            .arg(begun.elapsed().as_millis().to_string())
            .stdin(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        Ok(Self { child, journal })
    }

    /// Waits until it shows something. One that doesn't come to it is found
    /// out in the end.
    pub(crate) async fn ready(&self) {
        let deadline = Instant::now() + crate::PATIENCE;
        let blank = || std::fs::metadata(&self.journal).is_ok_and(|journal| journal.len() == 0);
        while blank() && Instant::now() < deadline {
            tokio::time::sleep(crate::HEARTBEAT).await;
        }
    }

    /// Ends the watch: it waits for the last message first.
    pub(crate) async fn close(mut self) -> io::Result<()> {
        drop(self.child.stdin.take());
        let status = self.child.wait().await?;
        if !status.success() {
            // What it didn't come to see is missing in its journal.
            eprintln!("{}: {status}", self.journal.display());
        }
        Ok(())
    }
}

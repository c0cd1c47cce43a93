//! A real page in Chromium, driven by a script beside the browser tests.

use std::io;
use std::path::Path;
use std::process::Stdio;

use domain::{InteractionId, Kind};
use tokio::io::AsyncReadExt;
use tokio::process::{Child, Command};

pub(crate) struct Page {
    child: Child,
}

impl Page {
    pub(crate) fn open(web: &str, login: &str, password: &str) -> io::Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let chat = InteractionId::derive(crate::INTEGRATION, Kind::Chat, "watched").to_string();
        let child = Command::new("node")
            .arg(root.join("end2end/watch.mjs"))
            .args([web, login, password, &chat])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        Ok(Self { child })
    }

    /// Ends the watch. Gives what was wrong on the screen.
    pub(crate) async fn close(mut self) -> io::Result<Vec<String>> {
        drop(self.child.stdin.take());
        let mut said = String::new();
        if let Some(mut stdout) = self.child.stdout.take() {
            stdout.read_to_string(&mut said).await?;
        }
        let status = self.child.wait().await?;
        let mut faults: Vec<String> = said.lines().map(|line| format!("page: {line}")).collect();
        if !status.success() && faults.is_empty() {
            faults.push(format!("page: {status}"));
        }
        Ok(faults)
    }
}

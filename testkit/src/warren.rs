//! A real `warren` process: started, waited for, killed by pid.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, Write};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// Longer than any start or stop should take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// How to start one.
#[derive(Debug)]
pub struct WarrenCommand(Command);

impl WarrenCommand {
    /// Adds arguments.
    #[must_use]
    pub fn args<A: AsRef<std::ffi::OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.0.args(args);
        self
    }

    /// Sets a variable of its environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.0.env(name, value);
        self
    }

    /// Runs it to its end, and gives what it wrote.
    ///
    /// # Panics
    /// If it can't be run, or ends before it has read all of `stdin`.
    #[must_use]
    #[track_caller]
    pub fn run(mut self, stdin: &str) -> Output {
        self.0.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self.0.spawn().unwrap_or_else(|error| panic!("{:?}: {error}", self.0));
        child.stdin.take().expect("a pipe").write_all(stdin.as_bytes()).expect("written");
        child.wait_with_output().expect("an end")
    }

    /// Runs it as [`WarrenCommand::run`] does, and gives what it printed.
    ///
    /// # Panics
    /// With what it wrote to standard error, if it doesn't succeed.
    #[track_caller]
    pub fn say(self, stdin: &str) -> String {
        let what = format!("{:?}", self.0);
        let output = self.run(stdin);
        assert!(output.status.success(), "{what}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Starts it and waits for its `ready` line.
    ///
    /// # Panics
    /// With what it wrote to standard error, if it doesn't become ready.
    #[must_use]
    #[track_caller]
    pub fn start(mut self) -> Warren {
        let log = tempfile::tempfile().expect("a temporary file");
        let stderr = log.try_clone().expect("a file");
        self.0.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(stderr);
        let mut child = self.0.spawn().unwrap_or_else(|error| panic!("{:?}: {error}", self.0));
        let stdout = child.stdout.take().expect("a pipe");
        let (lines, ready) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if line.starts_with("ready") && lines.send(line).is_err() {
                    return;
                }
            }
        });
        let mut warren = Warren { child, log, ready: String::new() };
        match ready.recv_timeout(PATIENCE) {
            Ok(line) => warren.ready = line,
            Err(_) => panic!("{:?} isn't ready: {}", self.0, warren.log()),
        }
        warren
    }
}

/// A running `warren`; killed when dropped.
#[derive(Debug)]
pub struct Warren {
    child: Child,
    log: File,
    ready: String,
}

impl Warren {
    /// Begins to describe one; `binary` is `env!("CARGO_BIN_EXE_warren")` in tests.
    #[must_use]
    pub fn command(binary: impl AsRef<std::ffi::OsStr>) -> WarrenCommand {
        let mut command = Command::new(binary);
        // Settings of whoever runs the tests don't count.
        for (name, _) in std::env::vars() {
            if name.starts_with("WARREN_") && name != "WARREN_LOG" {
                command.env_remove(name);
            }
        }
        WarrenCommand(command)
    }

    fn said(&self, name: &str) -> String {
        let found = self.ready.split(' ').find_map(|word| word.strip_prefix(name));
        found.unwrap_or_else(|| panic!("no {name} in {:?}", self.ready)).to_owned()
    }

    /// `http://…` of the pages.
    #[must_use]
    pub fn web(&self) -> String {
        self.said("web=")
    }

    /// `http://…` of the external API.
    #[must_use]
    pub fn external(&self) -> String {
        self.said("external=")
    }

    /// The whole `ready` line.
    #[must_use]
    pub fn ready(&self) -> &str {
        &self.ready
    }

    /// What it wrote to standard error so far.
    #[must_use]
    pub fn log(&self) -> String {
        let mut text = String::new();
        if let Ok(mut file) = self.log.try_clone() {
            // The position is shared with the writer: appended, not overwritten.
            let at = file.stream_position().unwrap_or(0);
            let _ = file.rewind();
            let _ = file.read_to_string(&mut text);
            let _ = file.seek(std::io::SeekFrom::Start(at.max(text.len() as u64)));
        }
        text
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    fn signal(&self, name: &str) {
        let pid = self.pid().to_string();
        let _ = Command::new("kill").args([name, &pid]).status();
    }

    /// SIGSTOP: it stands still.
    pub fn pause(&self) {
        self.signal("-STOP");
    }

    /// SIGCONT: it goes on.
    pub fn resume(&self) {
        self.signal("-CONT");
    }

    /// SIGKILL.
    pub fn kill(mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGTERM; waits, and gives its exit code.
    ///
    /// # Panics
    /// With its log, if it doesn't end.
    #[must_use]
    #[track_caller]
    pub fn term(self) -> Option<i32> {
        self.end().0
    }

    /// SIGTERM; waits, and gives its exit code and its log.
    ///
    /// # Panics
    /// With its log, if it doesn't end.
    #[must_use]
    #[track_caller]
    pub fn end(mut self) -> (Option<i32>, String) {
        self.signal("-TERM");
        let deadline = now() + PATIENCE;
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => return (status.code(), self.log()),
                Ok(None) if now() < deadline => thread::park_timeout(LOOK_EVERY),
                _ => panic!("it doesn't end: {}", self.log()),
            }
        }
    }
}

#[allow(clippy::disallowed_methods, reason = "a test's patience is real time")]
fn now() -> Instant {
    Instant::now()
}

impl Drop for Warren {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("{}", self.log());
        }
    }
}

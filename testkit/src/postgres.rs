//! A private PostgreSQL: its own folder, a free port on loopback, stopped by
//! pid. A small shell waits for this process to end, however it ends, and
//! stops the server then.

use std::fs;
use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

const VERSIONS: &str = "/usr/lib/postgresql";
/// The account that Debian's package makes; PostgreSQL refuses root.
const ACCOUNT: &str = "postgres";
const STEPS: u32 = 1_200;
const STEP: Duration = Duration::from_millis(25);

/// A running server; stopped when dropped.
#[derive(Debug)]
pub struct Postgres {
    folder: tempfile::TempDir,
    bin: PathBuf,
    port: u16,
    server: Option<Child>,
    reaper: Option<Child>,
}

impl Postgres {
    /// Makes a database cluster and starts its server.
    ///
    /// # Errors
    /// If PostgreSQL isn't installed, or doesn't come up; with its log.
    pub fn start() -> io::Result<Self> {
        let bin = newest()?;
        let folder = tempfile::tempdir()?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut postgres = Self { folder, bin, port, server: None, reaper: None };
        if is_root() {
            let owner = format!("{ACCOUNT}:{ACCOUNT}");
            succeeded(Command::new("chown").arg(owner).arg(postgres.folder.path()))?;
        }
        let data = postgres.data();
        succeeded(postgres.tool("initdb").arg("--pgdata").arg(&data).args([
            "--username=postgres",
            "--auth=trust",
            "--encoding=UTF8",
            "--locale=C.UTF-8",
            "--no-instructions",
        ]))?;
        postgres.reaper = Some(reaper(&data)?);
        postgres.start_again()?;
        Ok(postgres)
    }

    /// Starts the server on the data it has.
    ///
    /// # Errors
    /// If it doesn't come up; with its log.
    pub fn start_again(&mut self) -> io::Result<()> {
        let log = fs::File::options().create(true).append(true).open(self.log_file())?;
        let socket = self.folder.path().to_owned();
        let mut command = self.tool("postgres");
        command
            .arg("-D")
            .arg(self.data())
            .arg("-k")
            .arg(socket)
            .args(["-h", "127.0.0.1", "-p", &self.port.to_string()])
            .args(["-c", "max_connections=200"])
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        self.server = Some(command.spawn()?);
        for _ in 0..STEPS {
            if TcpStream::connect(("127.0.0.1", self.port)).is_ok()
                && self.psql("postgres", "SELECT 1").is_ok()
            {
                return Ok(());
            }
            thread::park_timeout(STEP);
        }
        let log = fs::read_to_string(self.log_file()).unwrap_or_default();
        Err(io::Error::other(format!("PostgreSQL didn't come up\n{log}")))
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn log_file(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    /// One of PostgreSQL's programs, as an account that it accepts.
    fn tool(&self, name: &str) -> Command {
        let program = self.bin.join(name);
        let mut command = if is_root() {
            let mut command = Command::new("setpriv");
            let account = [format!("--reuid={ACCOUNT}"), format!("--regid={ACCOUNT}")];
            command.args(account).arg("--clear-groups").arg(program);
            command
        } else {
            Command::new(program)
        };
        command.current_dir(self.folder.path());
        command
    }

    /// The address of a database.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    /// Runs a statement, and gives what it selects: a line a row.
    ///
    /// # Errors
    /// If the server refuses it.
    pub fn psql(&self, database: &str, statement: &str) -> io::Result<String> {
        succeeded(
            self.tool("psql")
                .args(["-q", "-X", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", statement])
                .arg(self.url(database)),
        )
    }

    /// Makes a database.
    ///
    /// # Errors
    /// If there is one of that name.
    pub fn create_database(&self, name: &str) -> io::Result<()> {
        self.psql("postgres", &format!("CREATE DATABASE \"{name}\"")).map(drop)
    }

    /// The server's process.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        let file = fs::read_to_string(self.data().join("postmaster.pid")).ok()?;
        file.lines().next()?.trim().parse().ok()
    }

    /// Freezes it: its connections stay open, and nobody answers.
    ///
    /// # Errors
    /// If it isn't running.
    pub fn pause(&self) -> io::Result<()> {
        self.signal("-STOP")
    }

    /// Wakes a frozen one.
    ///
    /// # Errors
    /// If it isn't running.
    pub fn resume(&self) -> io::Result<()> {
        self.signal("-CONT")
    }

    /// To the server first, then to those that it had made: each connection's.
    fn signal(&self, name: &str) -> io::Result<()> {
        let gone = || io::Error::new(io::ErrorKind::NotFound, "PostgreSQL isn't running");
        let pid = self.pid().ok_or_else(gone)?.to_string();
        succeeded(Command::new("kill").args([name, &pid]))?;
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
        // One that ends meanwhile is no matter.
        let _ = Command::new("kill").arg(name).args(children.split_whitespace()).status();
        Ok(())
    }

    /// Stops it as a crash does: connections are cut, nothing is flushed.
    pub fn kill(&mut self) {
        if let Some(pid) = self.pid() {
            // SIGQUIT, so that no child of it is left behind; SIGCONT, for one
            // that is frozen hears nothing.
            for name in ["-QUIT", "-CONT"] {
                let _ = Command::new("kill").args([name, &pid.to_string()]).status();
            }
        }
        if let Some(mut server) = self.server.take() {
            let _ = server.wait();
        }
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.kill();
        if let Some(mut reaper) = self.reaper.take() {
            drop(reaper.stdin.take());
            let _ = reaper.wait();
        }
    }
}

fn newest() -> io::Result<PathBuf> {
    let missing = || {
        let text = format!("no PostgreSQL in {VERSIONS}: apt-get install postgresql");
        io::Error::new(io::ErrorKind::NotFound, text)
    };
    let mut versions: Vec<_> = fs::read_dir(VERSIONS)
        .map_err(|_| missing())?
        .filter_map(|entry| entry.ok().map(|entry| entry.path().join("bin")))
        .filter(|bin| bin.join("postgres").exists())
        .collect();
    versions.sort();
    versions.pop().ok_or_else(missing)
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

/// What it said, if it succeeded.
fn succeeded(command: &mut Command) -> io::Result<String> {
    let output = command.stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(io::Error::other(format!("{:?}: {said}", command.get_program())))
}

/// Waits for the end of its standard input, which is this process's end, and
/// stops the server by the pid in its file.
fn reaper(data: &Path) -> io::Result<Child> {
    let script = "cat >/dev/null; pid=$(head -n 1 \"$0/postmaster.pid\" 2>/dev/null) && \
        kill -QUIT \"$pid\" 2>/dev/null && kill -CONT \"$pid\" 2>/dev/null; exit 0";
    Command::new("sh")
        .args(["-c", script])
        .arg(data)
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
}

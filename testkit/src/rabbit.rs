//! Private RabbitMQ nodes from Debian's package, one or a cluster of them.
//!
//! Each [`Cluster`] has its own `epmd`, cookie, folder and range of ports, so
//! several can run on one machine. A small shell, the reaper, waits for this
//! process to let go of a pipe and then kills what it started, by pid: also
//! when this process was killed itself.

use std::fs;
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

/// Where Debian keeps the scripts that don't become another user.
const BIN: &str = "/usr/lib/rabbitmq/bin";
/// Ranges of ports: below those that the kernel hands out by itself.
const RANGE_FIRST: u16 = 21_000;
const RANGE_SIZE: u16 = 100;
const RANGES: u16 = 110;
/// Offsets in a range.
const DIST: u16 = 20;
const EPMD: u16 = 69;
const CTL: u16 = 70;
const LOCK: u16 = 99;
/// How long a node may take to come up.
const START_STEPS: u32 = 1_200;
const STEP: Duration = Duration::from_millis(100);

/// Some nodes of RabbitMQ, numbered from 0. Dropping it kills them and
/// deletes what they kept.
pub struct Cluster {
    folder: PathBuf,
    base: u16,
    nodes: Vec<Option<Child>>,
    reaper: Option<Child>,
    /// Holds the range of ports for this cluster.
    _lock: TcpListener,
}

impl Cluster {
    /// Starts `nodes` nodes, at most 9, and waits until all of them serve.
    ///
    /// # Errors
    /// When RabbitMQ isn't installed, or a node doesn't come up in two minutes.
    pub fn start(nodes: usize) -> io::Result<Self> {
        if !Path::new(BIN).join("rabbitmq-server").exists() {
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                format!("no RabbitMQ in {BIN}: apt-get install -y rabbitmq-server"),
            ));
        }
        if nodes == 0 || nodes > 9 {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "1 to 9 nodes"));
        }
        let (base, lock) = free_range(nodes)?;
        let folder = tempfile::Builder::new().prefix("warren-rabbit-").tempdir()?.keep();
        let mut cluster = Self {
            reaper: Some(reaper(&folder)?),
            folder,
            base,
            nodes: (0..nodes).map(|_| None).collect(),
            _lock: lock,
        };
        cluster.prepare()?;
        for node in 0..nodes {
            cluster.spawn(node)?;
        }
        for node in 0..nodes {
            cluster.await_node(node)?;
        }
        Ok(cluster)
    }

    /// How many nodes there are, alive or not.
    #[must_use]
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Never: a cluster has a node at least.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// A node's address for clients, without a virtual host.
    #[must_use]
    pub fn url(&self, node: usize) -> String {
        format!("amqp://guest:guest@127.0.0.1:{}", self.port(node))
    }

    /// Every node's address.
    #[must_use]
    pub fn urls(&self) -> Vec<String> {
        (0..self.len()).map(|node| self.url(node)).collect()
    }

    /// A node's name among its like.
    #[must_use]
    pub fn name(&self, node: usize) -> String {
        format!("n{}@localhost", node + 1)
    }

    /// The process id of a node's beam, if it was started.
    #[must_use]
    pub fn pid(&self, node: usize) -> Option<u32> {
        pid_in(&self.node_folder(node).join("node.pid"))
    }

    /// Kills a node as a power cut would, and waits until it is gone.
    ///
    /// # Errors
    /// When it has no pid, or can't be signaled.
    pub fn kill(&mut self, node: usize) -> io::Result<()> {
        self.signal(node, "-KILL")?;
        if let Some(mut child) = self.nodes[node].take() {
            child.wait()?;
        }
        fs::remove_file(self.node_folder(node).join("node.pid"))
    }

    /// Starts a killed node again with what it had kept, and waits for it.
    ///
    /// # Errors
    /// When it doesn't come up in two minutes.
    pub fn start_node(&mut self, node: usize) -> io::Result<()> {
        self.spawn(node)?;
        self.await_node(node)
    }

    /// Freezes a node: its connections stay open and nothing moves.
    ///
    /// # Errors
    /// When it isn't running.
    pub fn pause(&self, node: usize) -> io::Result<()> {
        self.signal(node, "-STOP")
    }

    /// Wakes a frozen node.
    ///
    /// # Errors
    /// When it isn't running.
    pub fn resume(&self, node: usize) -> io::Result<()> {
        self.signal(node, "-CONT")
    }

    /// Cuts a node's links to the others, as a broken switch would: they all
    /// go on and don't reach each other.
    ///
    /// # Errors
    /// When a node doesn't answer.
    pub fn part(&self, node: usize) -> io::Result<()> {
        self.cut(node, "parted")
    }

    /// Lets a node that was cut off find the others again.
    ///
    /// # Errors
    /// When a node doesn't answer.
    pub fn rejoin(&self, node: usize) -> io::Result<()> {
        self.cut(node, &self.cookie())
    }

    /// Gives the node and its peers a cookie for each other, and disconnects
    /// them: with another one they don't let each other in.
    fn cut(&self, node: usize, cookie: &str) -> io::Result<()> {
        let from = self.name(node);
        for peer in (0..self.len()).filter(|peer| *peer != node) {
            let script = format!(
                "begin erlang:set_cookie('{from}', '{cookie}'), \
                 erlang:disconnect_node('{from}') end."
            );
            self.ctl(peer, &["eval", &script])?;
        }
        Ok(())
    }

    fn cookie(&self) -> String {
        format!("WARREN{}X{}", self.base, std::process::id())
    }

    /// Runs `rabbitmqctl -q ARGS` on a node; returns what it said.
    ///
    /// # Errors
    /// When it failed, with what it said.
    pub fn ctl(&self, node: usize, args: &[&str]) -> io::Result<String> {
        let output = self
            .command("rabbitmqctl", node)
            .args(["-q", "-n", &self.name(node)])
            .args(args)
            .stdin(Stdio::null())
            .output()?;
        told(output)
    }

    /// Makes empty virtual hosts that `guest` may use, in one go.
    ///
    /// # Errors
    /// When the node refuses.
    pub fn add_vhosts(&self, names: &[&str]) -> io::Result<()> {
        let list: Vec<String> = names.iter().map(|name| format!("<<\"{name}\">>")).collect();
        let script = format!(
            "[begin rabbit_vhost:add(V, <<\"testkit\">>), \
             rabbit_auth_backend_internal:set_permissions(<<\"guest\">>, V, \
             <<\".*\">>, <<\".*\">>, <<\".*\">>, <<\"testkit\">>) end || V <- [{}]].",
            list.join(",")
        );
        self.ctl(0, &["eval", &script]).map(drop)
    }

    /// A node's log and output, to print when a test fails.
    #[must_use]
    pub fn log(&self, node: usize) -> String {
        let folder = self.node_folder(node);
        let mut text = fs::read_to_string(folder.join("out")).unwrap_or_default();
        if let Ok(files) = fs::read_dir(folder.join("log")) {
            for file in files.flatten() {
                text.push_str(&fs::read_to_string(file.path()).unwrap_or_default());
            }
        }
        text
    }

    /// The port that a node listens on for clients.
    #[must_use]
    pub fn port(&self, node: usize) -> u16 {
        self.base + 1 + small(node)
    }

    fn node_folder(&self, node: usize) -> PathBuf {
        self.folder.join(format!("n{}", node + 1))
    }

    fn signal(&self, node: usize, signal: &str) -> io::Result<()> {
        let pid = self.pid(node).ok_or_else(|| io::Error::other("the node has no pid"))?;
        told(Command::new("kill").args([signal, &pid.to_string()]).output()?).map(drop)
    }

    /// The cookie, the folders and `epmd`.
    fn prepare(&self) -> io::Result<()> {
        let home = self.folder.join("home");
        fs::create_dir_all(&home)?;
        let cookie = home.join(".erlang.cookie");
        fs::write(&cookie, self.cookie())?;
        fs::set_permissions(&cookie, fs::Permissions::from_mode(0o400))?;
        for node in 0..self.len() {
            let folder = self.node_folder(node);
            fs::create_dir_all(folder.join("mnesia"))?;
            fs::create_dir_all(folder.join("log"))?;
            fs::write(folder.join("rabbitmq.conf"), self.conf(node))?;
            fs::write(folder.join("enabled_plugins"), "[].\n")?;
        }
        // Its shell writes the pid where the reaper finds it.
        let epmd = (self.base + EPMD).to_string();
        Command::new("sh")
            .args(["-c", "echo $$ >epmd.pid; exec epmd -port $0 -address 127.0.0.1", &epmd])
            .current_dir(&self.folder)
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        self.until("epmd", || open(self.base + EPMD))
    }

    fn conf(&self, node: usize) -> String {
        let mut conf = format!(
            "listeners.tcp.1 = 127.0.0.1:{}\n\
             loopback_users = none\n\
             log.console = false\n\
             vm_memory_high_watermark.absolute = 1GB\n\
             disk_free_limit.absolute = 50MB\n\
             cluster_partition_handling = pause_minority\n",
            self.port(node)
        );
        if self.len() > 1 {
            conf.push_str("cluster_formation.peer_discovery_backend = classic_config\n");
            for peer in 0..self.len() {
                let (number, name) = (peer + 1, self.name(peer));
                conf.push_str(&format!(
                    "cluster_formation.classic_config.nodes.{number} = {name}\n"
                ));
            }
            conf.push_str(&format!(
                "cluster_formation.target_cluster_size_hint = {}\n",
                self.len()
            ));
        }
        conf
    }

    /// One of RabbitMQ's scripts in the environment of a node.
    fn command(&self, script: &str, node: usize) -> Command {
        let folder = self.node_folder(node);
        let mut command = Command::new(Path::new(BIN).join(script));
        let path = |name: &str| folder.join(name).into_os_string();
        command
            .current_dir(&folder)
            .env("HOME", self.folder.join("home"))
            .env("LANG", "C.UTF-8")
            .env("ERL_EPMD_PORT", (self.base + EPMD).to_string())
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
            .env("RABBITMQ_CONF_ENV_FILE", "/dev/null")
            .env("RABBITMQ_NODENAME", self.name(node))
            .env("RABBITMQ_CTL_DIST_PORT_MIN", (self.base + CTL).to_string())
            .env("RABBITMQ_CTL_DIST_PORT_MAX", (self.base + LOCK - 1).to_string())
            .env("RABBITMQ_NODE_PORT", self.port(node).to_string())
            .env("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1")
            .env("RABBITMQ_DIST_PORT", (self.base + DIST + small(node)).to_string())
            .env("RABBITMQ_CONFIG_FILE", path("rabbitmq.conf"))
            .env("RABBITMQ_ADVANCED_CONFIG_FILE", path("advanced.config"))
            .env("RABBITMQ_MNESIA_BASE", path("mnesia"))
            .env("RABBITMQ_LOG_BASE", path("log"))
            .env("RABBITMQ_SCHEMA_DIR", path("schema"))
            .env("RABBITMQ_GENERATED_CONFIG_DIR", path("schema"))
            .env("RABBITMQ_FEATURE_FLAGS_FILE", folder.join("mnesia/feature_flags"))
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", path("enabled_plugins"))
            .env("RABBITMQ_PID_FILE", path("node.pid"))
            .env(
                "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
                "-kernel inet_dist_use_interface {127,0,0,1}",
            );
        command
    }

    fn spawn(&mut self, node: usize) -> io::Result<()> {
        let folder = self.node_folder(node);
        let out = fs::File::create(folder.join("out"))?;
        let child = self
            .command("rabbitmq-server", node)
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()?;
        self.nodes[node] = Some(child);
        Ok(())
    }

    fn await_node(&mut self, node: usize) -> io::Result<()> {
        self.until("a RabbitMQ node", || open(self.port(node)))
            .and_then(|()| self.ctl(node, &["await_startup"]).map(drop))
            .map_err(|error| io::Error::other(format!("{error}\n{}", self.log(node))))
    }

    fn until(&self, what: &str, ready: impl Fn() -> bool) -> io::Result<()> {
        for _ in 0..START_STEPS {
            if ready() {
                return Ok(());
            }
            nap();
        }
        Err(io::Error::new(io::ErrorKind::TimedOut, format!("{what} didn't come up")))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let epmd = pid_in(&self.folder.join("epmd.pid"));
        let pids: Vec<u32> =
            (0..self.len()).filter_map(|node| self.pid(node)).chain(epmd).collect();
        if let Some(mut reaper) = self.reaper.take() {
            drop(reaper.stdin.take());
            let _ = reaper.wait();
        }
        for child in self.nodes.iter_mut().flatten() {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = fs::remove_dir_all(&self.folder);
        // Killed, and not gone before the system says so.
        for _ in 0..START_STEPS {
            if !pids.iter().any(|pid| alive(*pid)) {
                break;
            }
            nap();
        }
    }
}

fn pid_in(file: &Path) -> Option<u32> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// Kills by the pids in `folder` and deletes it when its stdin ends.
fn reaper(folder: &Path) -> io::Result<Child> {
    Command::new("sh")
        .arg("-c")
        .arg(
            "read -r _; for f in \"$0\"/n*/node.pid \"$0\"/epmd.pid; do \
             [ -f \"$f\" ] && kill -CONT \"$(cat \"$f\")\" && kill -KILL \"$(cat \"$f\")\"; \
             done; i=0; while ! rm -rf \"$0\" && [ $i -lt 50 ]; do i=$((i+1)); sleep .1; done",
        )
        .arg(folder)
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
}

/// A range whose ports are free, and the listener that keeps others off it.
fn free_range(nodes: usize) -> io::Result<(u16, TcpListener)> {
    let first = std::process::id() % u32::from(RANGES);
    for step in 0..u32::from(RANGES) {
        let range = u16::try_from((first + step) % u32::from(RANGES)).unwrap_or(0);
        let base = RANGE_FIRST + range * RANGE_SIZE;
        let Ok(lock) = bind(base + LOCK) else { continue };
        let mut ports = (0..small(nodes))
            .flat_map(|node| [base + 1 + node, base + DIST + node])
            .chain([base + EPMD, base + CTL]);
        if ports.all(|port| bind(port).is_ok()) {
            return Ok((base, lock));
        }
    }
    Err(io::Error::new(io::ErrorKind::AddrInUse, "no free range of ports"))
}

fn bind(port: u16) -> io::Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port))
}

fn open(port: u16) -> bool {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    TcpStream::connect_timeout(&address, STEP).is_ok()
}

fn small(node: usize) -> u16 {
    u16::try_from(node).unwrap_or(u16::MAX / 2)
}

fn told(output: Output) -> io::Result<String> {
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(said);
    }
    let mut text = said;
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    let _ = io::stderr().flush();
    Err(io::Error::other(text))
}

#[allow(clippy::disallowed_methods, reason = "another process has no condition to wait on")]
fn nap() {
    std::thread::sleep(STEP);
}

/// True while any thread of a process runs, and so its ports are taken: the
/// first of them may be dead already and not yet collected.
fn alive(pid: u32) -> bool {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
    threads > 1
        || fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
            let state = stat.rsplit(')').next().unwrap_or_default();
            !state.trim_start().starts_with(['Z', 'X'])
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_starts_freezes_dies_comes_back_and_leaves_nothing_behind() {
        let mut cluster = Cluster::start(1).unwrap();
        let (folder, first) = (cluster.folder.clone(), cluster.pid(0).unwrap());
        cluster.pause(0).unwrap();
        cluster.resume(0).unwrap();
        cluster.add_vhosts(&["one", "two"]).unwrap();
        cluster.kill(0).unwrap();
        assert!(!alive(first));
        assert!(!open(cluster.port(0)));
        cluster.start_node(0).unwrap();
        assert!(cluster.ctl(0, &["list_vhosts"]).unwrap().contains("two"));
        let second = cluster.pid(0).unwrap();
        let ports = [cluster.base + EPMD, cluster.port(0)];
        drop(cluster);
        assert!(!folder.exists());
        assert!(!alive(second));
        assert!(ports.into_iter().all(|port| !open(port)));
    }
}

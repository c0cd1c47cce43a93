//! The real thing under test, on this machine: one process with all in it, or
//! a cluster. Everything here blocks; it lives on a thread of its own.

use std::io;
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use testkit::postgres::Postgres;
use testkit::rabbit::Cluster;
use testkit::warren::Warren;

use crate::proxy::{self, Lines};

const PASSWORD: &str = "correct horse battery";
const NODES: usize = 3;
/// Ports below those that the kernel hands out by itself.
const PORTS: std::ops::Range<u16> = 32_000..32_700;

/// So much of the log of one that ended badly is told.
const LAST_LINES: usize = 40;

/// A process that can be broken and started again.
pub(crate) struct Member {
    pub(crate) name: String,
    args: Vec<String>,
    pub(crate) running: Option<Warren>,
}

impl Member {
    pub(crate) fn kill(&mut self) {
        if let Some(running) = self.running.take() {
            running.kill();
        }
    }

    /// SIGTERM, and until it has ended.
    pub(crate) fn stop(&mut self) -> io::Result<()> {
        match self.running.take().map(Warren::end) {
            None | Some((Some(0), _)) => Ok(()),
            Some((code, log)) => {
                let mut last: Vec<_> = log.lines().rev().take(LAST_LINES).collect();
                last.reverse();
                let name = &self.name;
                Err(io::Error::other(format!("{name} ended with {code:?}:\n{}", last.join("\n"))))
            }
        }
    }

    pub(crate) fn start(&mut self, binary: &Path) {
        if self.running.is_none() {
            let command = Warren::command(binary).env("WARREN_LOG", "info").args(&self.args);
            self.running = Some(command.start());
        }
    }
}

pub(crate) struct System {
    binary: PathBuf,
    common: Vec<String>,
    pub(crate) members: Vec<Member>,
    pub(crate) broker: Option<Cluster>,
    pub(crate) database: Option<Postgres>,
    /// Between the members and RabbitMQ.
    pub(crate) broker_lines: Lines,
    /// Between the aggregators and their clients.
    pub(crate) client_lines: Lines,
    /// `ws://…` of every aggregator.
    pub(crate) sockets: Vec<String>,
    /// `http://…` of every external API.
    pub(crate) external: Vec<String>,
    pub(crate) web: String,
    /// Where the store is.
    pub(crate) store: String,
    /// Where the embedded broker keeps its queues, to be read only.
    pub(crate) inbound: Option<String>,
}

fn free_ports(count: usize) -> io::Result<Vec<u16>> {
    let free: Vec<u16> =
        PORTS.filter(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).take(count).collect();
    if free.len() == count { Ok(free) } else { Err(io::Error::other("no free ports")) }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

const SETTINGS: &str = "aggregator.heartbeat_ms = 1000\naggregator.outbox_bytes_max = 262144\n";

impl System {
    /// Everything in one process, with the embedded broker.
    pub(crate) fn embedded(binary: &Path, folder: &Path) -> io::Result<Self> {
        let ports = free_ports(2)?;
        let config = folder.join("warren.toml");
        std::fs::write(&config, SETTINGS)?;
        let path = |path: PathBuf| path.display().to_string();
        let common = vec![
            "--config".to_owned(),
            path(config),
            "--data".to_owned(),
            path(folder.join("data")),
        ];
        let (web, external) =
            (format!("127.0.0.1:{}", ports[0]), format!("127.0.0.1:{}", ports[1]));
        let args =
            [words(&["up", "--web", &web, "--external", &external]), common.clone()].concat();
        Ok(Self {
            binary: binary.to_owned(),
            common,
            members: vec![Member { name: "warren".to_owned(), args, running: None }],
            broker: None,
            database: None,
            broker_lines: Lines::default(),
            client_lines: Lines::default(),
            sockets: vec![format!("ws://{web}/ws")],
            external: vec![format!("http://{external}")],
            web: format!("http://{web}"),
            store: format!("sqlite://{}", folder.join("data/warren.db").display()),
            inbound: Some(format!(
                "sqlite://{}?mode=ro",
                folder.join("data/broker/inbound.db").display()
            )),
        })
    }

    /// Three RabbitMQ nodes, PostgreSQL, two of each role that can fail over.
    pub(crate) fn cluster(binary: &Path, folder: &Path) -> io::Result<Self> {
        let broker = Cluster::start(NODES)?;
        let database = Postgres::start()?;
        database.create_database("warren")?;
        let ports = free_ports(9)?;
        let (broker_lines, client_lines) = (Lines::default(), Lines::default());
        let mut publish = Vec::new();
        for node in 0..broker.len() {
            broker_lines.open(broker.port(node))?;
            publish.push(broker.url(node).replace("127.0.0.1", &proxy::HOST.to_string()));
        }
        for port in [ports[0], ports[3]] {
            client_lines.open(port)?;
        }
        let mut consume = publish.clone();
        consume.rotate_left(1);
        let store = database.url("warren");
        let config = folder.join("warren.toml");
        std::fs::write(
            &config,
            format!(
                "[profile.chaos]\nbroker.publish_urls = {publish:?}\n\
                 broker.consume_urls = {consume:?}\nstore.url = {store:?}\n\
                 aggregator.public_url = \"ws://{}:{{port}}\"\n{SETTINGS}",
                proxy::HOST,
            ),
        )?;
        let config = config.display().to_string();
        let common = words(&["--config", &config, "--profile", "chaos"]);
        let member = |name: &str, args: &[&str]| Member {
            name: name.to_owned(),
            args: [words(args), common.clone()].concat(),
            running: None,
        };
        let port = |index: usize| ports[index].to_string();
        let on = |index: usize| format!("127.0.0.1:{}", ports[index]);
        // Pages give their cookie to the host that they come from only.
        let web = format!("{}:{}", proxy::HOST, ports[8]);
        let members = vec![
            member("aggregator 1", &["aggregator", &port(0), &port(1), &port(2)]),
            member("aggregator 2", &["aggregator", &port(3), &port(4), &port(5)]),
            member("backend 1", &["backend"]),
            member("backend 2", &["backend"]),
            member("external api 1", &["external-api", "--external", &on(6)]),
            member("external api 2", &["external-api", "--external", &on(7)]),
            member("web", &["web", "--web", &web]),
        ];
        let system = Self {
            binary: binary.to_owned(),
            common,
            members,
            broker: Some(broker),
            database: Some(database),
            broker_lines,
            client_lines,
            sockets: [0, 3]
                .map(|index| format!("ws://{}:{}/ws/all", proxy::HOST, ports[index]))
                .to_vec(),
            external: [6, 7].map(|index| format!("http://{}", on(index))).to_vec(),
            web: format!("http://{web}"),
            store,
            inbound: None,
        };
        system.run(&["topology", "declare"], "")?;
        Ok(system)
    }

    pub(crate) fn start(&mut self) {
        for member in &mut self.members {
            member.start(&self.binary);
        }
    }

    pub(crate) fn start_member(&mut self, index: usize) {
        self.members[index].start(&self.binary);
    }

    /// Runs `warren` with the system's settings and gives what it prints.
    pub(crate) fn run(&self, args: &[&str], stdin: &str) -> io::Result<String> {
        let output = Warren::command(&self.binary).args(args).args(&self.common).run(stdin);
        if !output.status.success() {
            let why = String::from_utf8_lossy(&output.stderr);
            return Err(io::Error::other(format!("warren {args:?}: {}", why.trim())));
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// Adds agents; gives a token of each, and a key for all channels.
    pub(crate) fn accounts(&self, logins: &[&str]) -> io::Result<(Vec<String>, String)> {
        let mut tokens = Vec::new();
        for login in logins {
            self.run(&["user", "add", login, "--password-stdin"], PASSWORD)?;
            tokens.push(self.run(&["token", login, "--ttl", "6h"], "")?);
        }
        let scopes = "voice,chat,tickets";
        let key = self.run(&["key", "add", crate::INTEGRATION, "--scopes", scopes], "")?;
        Ok((tokens, key))
    }

    /// The nodes that lead a queue of work or a log, by its name.
    pub(crate) fn leaders(&self) -> io::Result<Vec<(String, usize)>> {
        let Some(broker) = &self.broker else { return Ok(Vec::new()) };
        let list = broker.ctl(0, &["list_queues", "name", "leader", "--no-table-headers"])?;
        let queues = list.lines().filter_map(|line| line.split_once('\t'));
        let led = queues.filter_map(|(name, leader)| {
            let node = (0..broker.len()).find(|node| broker.name(*node) == leader.trim())?;
            let ours = name.starts_with("warren.in.") || name.starts_with("warren.out.");
            ours.then(|| (name.to_owned(), node))
        });
        Ok(led.collect())
    }

    pub(crate) fn password() -> &'static str {
        PASSWORD
    }

    /// What is left to do in RabbitMQ's queues, by name, without what is empty.
    pub(crate) fn left_in_queues(&self) -> io::Result<Vec<String>> {
        let Some(broker) = &self.broker else { return Ok(Vec::new()) };
        let list = broker.ctl(0, &["list_queues", "name", "messages", "--no-table-headers"])?;
        let queues = list.lines().filter_map(|line| line.split_once('\t'));
        let left = queues
            .filter(|(name, messages)| name.starts_with("warren.in.") && messages.trim() != "0");
        Ok(left.map(|(name, messages)| format!("{name}: {messages}")).collect())
    }

    /// Writes down what may explain a broken promise: logs, and what the
    /// broker says of its queues.
    pub(crate) fn tell(&self, folder: &Path) -> io::Result<()> {
        for member in &self.members {
            if let Some(running) = &member.running {
                std::fs::write(folder.join(format!("{}.log", member.name)), running.log())?;
            }
        }
        let Some(broker) = &self.broker else { return Ok(()) };
        let columns = [
            "list_queues",
            "name",
            "messages_ready",
            "messages_unacknowledged",
            "consumers",
            "leader",
            "online",
            "members",
        ];
        std::fs::write(folder.join("queues.txt"), broker.ctl(0, &columns)?)?;
        let consumers = broker.ctl(
            0,
            &["list_consumers", "queue_name", "channel_pid", "active", "activity_status"],
        )?;
        std::fs::write(folder.join("consumers.txt"), consumers)
    }
}

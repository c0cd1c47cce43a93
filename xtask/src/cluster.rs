//! The original's redundancy scenario, privately on this machine: three
//! RabbitMQ nodes, PostgreSQL, two of each role that can fail over.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::Args;
use serde_json::{Value, json};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use testkit::postgres::Postgres;
use testkit::rabbit::Cluster;
use testkit::warren::Warren;

use crate::front;
use crate::run::{Failed, cargo, root};
use crate::setup::{self, For};

const NODES: usize = 3;
const PASSWORD: &str = "warren-demo";
const BINARY: &str = "target/debug/warren";

#[derive(Args)]
pub(crate) struct Options {
    /// The web app's port; the others keep their distance from it
    #[arg(long, default_value_t = 3000)]
    web_port: u16,
    /// Take what is built; for tests
    #[arg(long)]
    no_build: bool,
    /// Write what runs where into this file, as JSON
    #[arg(long)]
    state: Option<PathBuf>,
}

/// Runs `warren` and gives what it prints.
fn warren(config: &Path, args: &[&str], stdin: &str) -> Result<String, Failed> {
    let mut child = Command::new(root().join(BINARY))
        .args(args)
        .arg("--config")
        .arg(config)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    if let Some(mut pipe) = child.stdin.take() {
        pipe.write_all(stdin.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    if !output.status.success() {
        return Err(Failed(format!("warren {args:?}: {}", output.status)));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

pub(crate) fn run(options: &Options) -> Result<(), Failed> {
    if !options.no_build {
        setup::bring(For::Cluster)?;
        front::build(false)?;
        cargo(&["build", "--package", "warren"])?;
    }
    // Heard from here on, so that nothing is left behind.
    let mut signals = Signals::new([SIGINT, SIGTERM])?;

    let folder = tempfile::tempdir()?;
    println!("starting {NODES} RabbitMQ nodes and PostgreSQL");
    let broker = Cluster::start(NODES)?;
    let postgres = Postgres::start()?;
    postgres.create_database("warren")?;
    let config = folder.path().join("warren.toml");
    let mut consume = broker.urls();
    consume.rotate_left(1);
    std::fs::write(
        &config,
        format!(
            "[profile.cluster]\nbroker.publish_urls = {:?}\nbroker.consume_urls = {:?}\nstore.url = {:?}\n",
            broker.urls(),
            consume,
            postgres.url("warren")
        ),
    )?;
    warren(&config, &["topology", "declare", "cluster"], "")?;
    for (login, role) in [("ada", "admin"), ("ben", "supervisor"), ("cleo", "agent")] {
        let add =
            ["user", "add", login, "--role", role, "--password-stdin", "--profile", "cluster"];
        warren(&config, &add, PASSWORD)?;
    }
    let scopes = "voice,chat,tickets";
    let key = ["key", "add", "demo", "--scopes", scopes, "--profile", "cluster"];
    let key = warren(&config, &key, "")?;

    let web = options.web_port;
    let role = |name: &str, args: &[String]| {
        let command =
            Warren::command(root().join(BINARY)).args(args).args([Path::new("--config"), &config]);
        (name.to_owned(), command.start())
    };
    let text = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let ports = |first: u16| (0..3).map(move |step| (first + step).to_string());
    let aggregator = |first: u16| {
        let mut args = text(&["aggregator"]);
        args.extend(ports(first));
        args.push("cluster".to_owned());
        args
    };
    let external = format!("127.0.0.1:{}", web + 1000);
    let mut members = vec![
        role("backend 1", &text(&["backend", "cluster"])),
        role("backend 2", &text(&["backend", "cluster"])),
        role("aggregator 1", &aggregator(web + 1001)),
        role("aggregator 2", &aggregator(web + 2001)),
        role("external api", &text(&["external-api", "cluster", "--external", &external])),
        role("web", &text(&["web", "cluster", "--web", &format!("127.0.0.1:{web}")])),
    ];

    let mut rows: Vec<Value> = members
        .iter()
        .map(|(name, member)| {
            let address = member.ready().trim_start_matches("ready").trim();
            json!({ "name": name, "pid": member.pid(), "address": address })
        })
        .collect();
    for node in 0..NODES {
        let (name, url) = (format!("rabbitmq {}", node + 1), broker.url(node));
        rows.push(json!({ "name": name, "pid": broker.pid(node), "address": url }));
    }
    rows.push(
        json!({ "name": "postgresql", "pid": postgres.pid(), "address": postgres.url("warren") }),
    );
    println!();
    for row in &rows {
        let word = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
        println!("{:<14} kill -9 {:<8} {}", word("name"), row["pid"], word("address"));
    }
    println!("\naccounts ada, ben, cleo, password {PASSWORD}; key {key}");
    println!("open http://127.0.0.1:{web}; Ctrl+C stops all of it");
    if let Some(file) = &options.state {
        let state = json!({ "web": format!("http://127.0.0.1:{web}"),
            "external": format!("http://{external}"), "key": key, "members": rows });
        // Whole or not at all: somebody waits for it.
        let draft = file.with_extension("draft");
        std::fs::write(&draft, state.to_string())?;
        std::fs::rename(draft, file)?;
    }

    signals.forever().next();
    println!("stopping");
    while let Some((name, member)) = members.pop() {
        match member.term() {
            Some(0) => {}
            code => println!("{name} had ended before, or badly: {code:?}"),
        }
    }
    Ok(())
}

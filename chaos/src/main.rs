//! `cargo xtask chaos`: runs the real thing under load, breaks it on a seeded
//! schedule, and checks every promise of docs/RELIABILITY.md against journals
//! that publishers and clients keep outside of it.

mod checker;
#[cfg(test)]
mod checker_tests;
mod client;
mod faults;
mod journal;
mod page;
mod poison;
mod proxy;
mod publisher;
mod report;
mod system;
mod truth;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use clap::Parser;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use client::{Client, Habits};
use faults::Deck;
use journal::{Journal, Saw};
use page::Page;
use publisher::Publisher;
use system::System;

/// The integration that posts.
pub(crate) const INTEGRATION: &str = "chaos";
/// The chat that pages look at.
pub(crate) const WATCHED: &str = "watched";
/// As the system is set up.
pub(crate) const HEARTBEAT: Duration = Duration::from_secs(1);
/// Longer than anything should take after the last fault is mended.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);
/// How long a queue may take to say that it is empty.
const QUEUES_PATIENCE: Duration = Duration::from_secs(20);
const WARM_UP: Duration = Duration::from_secs(3);
/// From here on there is time for what takes minutes.
const LONG_MINUTES: f64 = 10.0;
const LOGINS: [&str; 4] = ["ana", "ben", "cleo", "dora"];
const CHANNELS: [&str; 3] = ["voice", "chat", "tickets"];

/// Break a running warren and check that nothing is lost.
#[derive(Parser)]
struct Cli {
    /// The schedule of faults follows from it [default: the time]
    #[arg(long)]
    seed: Option<u64>,
    /// How long faults go on
    #[arg(long, default_value_t = 2.0)]
    minutes: f64,
    /// One process with all in it (default)
    #[arg(long, conflicts_with = "cluster")]
    embedded: bool,
    /// Three RabbitMQ nodes, PostgreSQL, two of each role
    #[arg(long)]
    cluster: bool,
    /// WebSocket clients
    #[arg(long, default_value_t = 200)]
    clients: usize,
    /// Events a second
    #[arg(long, default_value_t = 300)]
    rate: u32,
    /// Real pages in Chromium
    #[arg(long, default_value_t = 2)]
    pages: usize,
    /// The program under test
    #[arg(long, value_name = "PROGRAM")]
    warren: PathBuf,
    /// Run nothing: check the journals in `--keep` against this store
    #[arg(long, value_name = "URL", requires = "keep")]
    check: Option<String>,
    /// Only faults whose names hold one of these words, as `killnode,drain`
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Keep the journals here
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
}

/// Where a client is, as of a second ago.
pub(crate) struct Position {
    pub(crate) at: BTreeMap<String, u64>,
    /// Commands without a reply.
    pub(crate) waiting: usize,
}

/// What everybody in a run shares.
pub(crate) struct Run {
    pub(crate) seed: u64,
    pub(crate) begun: Instant,
    pub(crate) sockets: Vec<String>,
    pub(crate) external: Vec<String>,
    pub(crate) tokens: Vec<String>,
    pub(crate) key: String,
    pub(crate) publishing_over: CancellationToken,
    pub(crate) over: CancellationToken,
    pub(crate) positions: Mutex<BTreeMap<usize, Position>>,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let done = runtime.and_then(|runtime| runtime.block_on(run(&cli)));
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("chaos: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

async fn run(cli: &Cli) -> io::Result<bool> {
    if let (Some(store), Some(folder)) = (&cli.check, &cli.keep) {
        let report = checker::check(folder, &truth::read(store).await?)?;
        println!("{report}");
        return Ok(report.is_good());
    }
    let seed = cli.seed.unwrap_or_else(rand::random);
    let mode = if cli.cluster { "--cluster" } else { "--embedded" };
    println!(
        "chaos {mode} --seed {seed} --minutes {} --clients {} --rate {}",
        cli.minutes, cli.clients, cli.rate
    );
    let deck = Deck::new(seed, cli.cluster, cli.minutes >= LONG_MINUTES, &cli.only)?;
    let draft = tempfile::Builder::new().prefix("warren-chaos-").tempdir()?;
    let folder = cli.keep.clone().unwrap_or_else(|| draft.path().to_owned());
    std::fs::create_dir_all(&folder)?;

    let (cluster, binary, place) = (cli.cluster, std::path::absolute(&cli.warren)?, folder.clone());
    let (system, tokens, key) = blocking(move || {
        let mut system = if cluster {
            System::cluster(&binary, &place)?
        } else {
            System::embedded(&binary, &place)?
        };
        system.start();
        let (tokens, key) = system.accounts(&LOGINS)?;
        Ok((system, tokens, key))
    })
    .await?;
    let web = system.web.clone();
    let run = Arc::new(Run {
        seed,
        begun: Instant::now(),
        sockets: system.sockets.clone(),
        external: system.external.clone(),
        tokens,
        key,
        publishing_over: CancellationToken::new(),
        over: CancellationToken::new(),
        positions: Mutex::default(),
    });

    let mut clients = JoinSet::new();
    for number in 0..cli.clients {
        let journal = folder.join(format!("client-{number:04}.jsonl"));
        clients.spawn(Client::new(run.clone(), number, journal, habits(number))?.work());
    }
    let mut publishers = JoinSet::new();
    let count = (cli.rate / 10).max(1);
    for number in 0..count as usize {
        let every = Duration::from_secs(1) * count / cli.rate;
        publishers.spawn(publisher(&run, &folder, number, every, None).work());
    }
    let watched = (cli.pages > 0).then(|| WATCHED.to_owned());
    if watched.is_some() {
        let every = Duration::from_secs(2).max(Duration::from_secs_f64(cli.minutes * 60.0 / 150.0));
        publishers.spawn(publisher(&run, &folder, count as usize, every, watched.clone()).work());
    }
    tokio::time::sleep(WARM_UP).await;
    let mut pages = Vec::new();
    for number in 0..cli.pages {
        let (login, journal) =
            (LOGINS[number % LOGINS.len()], folder.join(format!("page-{number}.jsonl")));
        pages.push(Page::open(&web, login, System::password(), journal, run.begun)?);
    }
    // Under a minute without aggregators, say, nobody could sign in.
    for page in &pages {
        page.ready().await;
    }

    let mut faults = Journal::create(&folder.join("faults.jsonl"), run.begun)?;
    let minutes = cli.minutes;
    let (mut faults, system) = blocking(move || {
        let (mut deck, mut system) = (deck, system);
        let over = Instant::now() + Duration::from_secs_f64(minutes * 60.0);
        while Instant::now() < over {
            faults::wait(deck.pause());
            let fault = deck.deal();
            let mut failed = None;
            faults::apply(&mut system, &mut deck, fault, &mut |saw| {
                if let Saw::Fault { name } = &saw {
                    println!("{name}");
                }
                failed = faults.write(saw).err().or(failed.take());
            })?;
            if let Some(error) = failed {
                return Err(error);
            }
        }
        Ok((faults, system))
    })
    .await?;
    faults.flush()?;
    println!("all is mended; waiting for the rest");
    tokio::time::sleep(WARM_UP).await;

    run.publishing_over.cancel();
    while let Some(done) = publishers.join_next().await {
        done.map_err(io::Error::other)??;
    }
    settle(&run, &web, cli.clients).await;
    run.over.cancel();
    while let Some(done) = clients.join_next().await {
        done.map_err(io::Error::other)??;
    }
    for page in pages {
        page.close().await?;
    }
    let system = look_into_queues(system, &run, &folder).await?;
    let report = checker::check(&folder, &truth::read(&system.store).await?)?;
    let (place, broken) = (folder.clone(), !report.is_good());
    blocking(move || {
        let mut system = system;
        if broken {
            system.tell(&place)?;
        }
        for member in &mut system.members {
            member.stop()?;
        }
        Ok(())
    })
    .await?;
    println!("{report}");
    let good = report.is_good();
    println!(
        "{} (seed {seed})",
        if good { "every promise was kept" } else { "A PROMISE WAS BROKEN" }
    );
    if !good && cli.keep.is_none() {
        println!("journals: {}", draft.keep().display());
    }
    Ok(good)
}

fn publisher(
    run: &Arc<Run>,
    folder: &Path,
    number: usize,
    every: Duration,
    chat: Option<String>,
) -> Publisher {
    let journal = folder.join(format!("publisher-{number:04}.jsonl"));
    Publisher { run: run.clone(), number, journal, every, chat }
}

/// Writes down what the queues still hold, and which letters are dead. What
/// the broker says of its queues may be seconds old.
async fn look_into_queues(mut system: System, run: &Run, folder: &Path) -> io::Result<System> {
    let mut end = Journal::create(&folder.join("end.jsonl"), run.begun)?;
    let deadline = Instant::now() + QUEUES_PATIENCE;
    let left = loop {
        let left = match system.inbound.clone() {
            Some(file) => truth::left(&file).await?,
            None => {
                let (back, left) = blocking(move || {
                    let left = system.left_in_queues()?;
                    Ok((system, left))
                })
                .await?;
                system = back;
                left
            }
        };
        if left.is_empty() || Instant::now() > deadline {
            break left;
        }
        tokio::time::sleep(HEARTBEAT).await;
    };
    for queue in left {
        end.write(Saw::Left { queue })?;
    }
    let (system, list) = blocking(move || {
        let list = system.run(&["dead", "list"], "")?;
        Ok((system, list))
    })
    .await?;
    for line in list.lines() {
        let mut words = line.split('\t').skip(1);
        let id = words.next().unwrap_or_default().to_owned();
        let reason = words.nth(1).unwrap_or_default().to_owned();
        end.write(Saw::Dead { id, reason })?;
    }
    end.flush()?;
    Ok(system)
}

/// Most follow one channel; some all of them; some give commands; some stall.
fn habits(number: usize) -> Habits {
    Habits {
        channels: if number.is_multiple_of(10) {
            CHANNELS.to_vec()
        } else {
            vec![CHANNELS[number % 3]]
        },
        commands_every: (number.is_multiple_of(10)).then_some(Duration::from_secs(1)),
        stalls: number % 25 == 7,
    }
}

/// Waits until nothing new comes and every client has all there is.
async fn settle(run: &Run, web: &str, clients: usize) {
    let deadline = Instant::now() + PATIENCE;
    let mut heads = BTreeMap::new();
    while Instant::now() < deadline {
        // What is left of the work may still bring events about.
        tokio::time::sleep(WARM_UP).await;
        let Ok(now) = self::heads(run, web).await else { continue };
        let quiet = now == heads;
        heads = now;
        if quiet && all_have(run, &heads, clients) {
            break;
        }
    }
}

/// True if every client has all there is, and each command its reply.
fn all_have(run: &Run, heads: &BTreeMap<String, u64>, clients: usize) -> bool {
    let positions = run.positions.lock().unwrap_or_else(PoisonError::into_inner);
    let there = positions.values().filter(|position| {
        let behind =
            |(channel, at): (&String, &u64)| heads.get(channel).is_some_and(|head| at < head);
        position.waiting == 0 && !position.at.iter().any(behind)
    });
    there.count() == clients
}

async fn heads(run: &Run, web: &str) -> io::Result<BTreeMap<String, u64>> {
    let url = format!("{web}/api/v1/interactions?limit=1");
    let request =
        reqwest::Client::new().get(url).bearer_auth(&run.tokens[0]).timeout(HEARTBEAT * 5);
    let answer = request.send().await.and_then(reqwest::Response::error_for_status);
    let answer: serde_json::Value =
        answer.map_err(io::Error::other)?.json().await.map_err(io::Error::other)?;
    let heads = CHANNELS.iter().filter_map(|channel| {
        Some(((*channel).to_owned(), answer["streams"][channel]["offset"].as_u64()?))
    });
    Ok(heads.collect())
}

//! What is broken, in which order, for how long: all of it follows from the seed.

use std::io;
use std::thread;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

use crate::journal::Saw;
use crate::poison;
use crate::system::System;

/// Over a slow line, in each direction of each connection.
const SLOW_BYTES_PER_SECOND: u64 = 200_000;

/// One kind of trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Kill(&'static str),
    Drain(&'static str),
    Freeze(&'static str),
    KillAllAggregators,
    /// For a minute.
    NoAggregators,
    KillNode,
    /// The one that leads some queue of work or log.
    KillLeader,
    FreezeNode,
    PartitionNode,
    MemoryAlarm,
    DiskAlarm,
    Unbind,
    RestartDatabase,
    RollingRestart,
    SlowBroker,
    SlowClients,
    /// What nobody can decode, put into queues by somebody else.
    Poison,
}

const EMBEDDED: &[Fault] = &[
    Fault::Kill("warren"),
    Fault::Drain("warren"),
    Fault::Freeze("warren"),
    Fault::Kill("warren"),
];

const CLUSTER: &[Fault] = &[
    Fault::Kill("aggregator"),
    Fault::Drain("aggregator"),
    Fault::Freeze("aggregator"),
    Fault::Kill("backend"),
    Fault::Drain("backend"),
    Fault::Freeze("backend"),
    Fault::Kill("external api"),
    Fault::Drain("external api"),
    Fault::Freeze("external api"),
    Fault::Kill("web"),
    Fault::KillAllAggregators,
    Fault::KillNode,
    Fault::KillLeader,
    Fault::FreezeNode,
    Fault::PartitionNode,
    Fault::MemoryAlarm,
    Fault::DiskAlarm,
    Fault::Unbind,
    Fault::RestartDatabase,
    Fault::RollingRestart,
    Fault::SlowBroker,
    Fault::SlowClients,
    Fault::Poison,
];

/// Dealt in long runs only.
const LONG: &[Fault] = &[Fault::NoAggregators];

/// Deals faults: each once in a random order, then again in another one.
pub(crate) struct Deck {
    random: StdRng,
    all: Vec<Fault>,
    left: Vec<Fault>,
}

impl Deck {
    /// Of all faults, or of those whose names hold one of `only`.
    pub(crate) fn new(seed: u64, cluster: bool, long: bool, only: &[String]) -> io::Result<Self> {
        let mut all = if cluster { CLUSTER } else { EMBEDDED }.to_vec();
        if cluster && (long || !only.is_empty()) {
            all.extend(LONG);
        }
        let name = |fault: &Fault| format!("{fault:?}").to_lowercase();
        all.retain(|fault| only.is_empty() || only.iter().any(|one| name(fault).contains(one)));
        if all.is_empty() {
            return Err(io::Error::other(format!("no fault is named {only:?}")));
        }
        Ok(Self { random: StdRng::seed_from_u64(seed), all, left: Vec::new() })
    }

    pub(crate) fn deal(&mut self) -> Fault {
        if self.left.is_empty() {
            self.left = self.all.clone();
            self.left.shuffle(&mut self.random);
        }
        self.left.pop().unwrap_or(self.all[0])
    }

    fn seconds(&mut self, from: f64, to: f64) -> Duration {
        Duration::from_secs_f64(self.random.random_range(from..to))
    }

    fn pick(&mut self, count: usize) -> usize {
        self.random.random_range(0..count)
    }

    /// Some quiet between two faults.
    pub(crate) fn pause(&mut self) -> Duration {
        self.seconds(2.0, 6.0)
    }
}

pub(crate) fn wait(duration: Duration) {
    // Nobody unparks this thread, and waking early harms nobody.
    thread::park_timeout(duration);
}

/// Breaks it and mends it. `told` hears what exactly is done, when it is done.
pub(crate) fn apply(
    system: &mut System,
    deck: &mut Deck,
    fault: Fault,
    write: &mut dyn FnMut(Saw),
) -> io::Result<()> {
    let mut told = |name: String| write(Saw::Fault { name });
    match fault {
        Fault::Kill(role) => {
            let index = member(system, deck, role);
            told(format!("kill {}", system.members[index].name));
            system.members[index].kill();
            if system.broker.is_some() {
                wait(deck.seconds(1.0, 4.0));
            }
            system.start_member(index);
        }
        Fault::Drain(role) => {
            let index = member(system, deck, role);
            told(format!("drain {}", system.members[index].name));
            system.members[index].stop()?;
            system.start_member(index);
        }
        Fault::Freeze(role) => {
            let index = member(system, deck, role);
            told(format!("freeze {}", system.members[index].name));
            let Some(running) = &system.members[index].running else { return Ok(()) };
            running.pause();
            wait(deck.seconds(2.0, 7.0));
            running.resume();
        }
        Fault::KillAllAggregators | Fault::NoAggregators => {
            let (name, away) = match fault {
                Fault::NoAggregators => ("no aggregators for a minute", deck.seconds(60.0, 61.0)),
                _ => ("kill all aggregators", deck.seconds(1.0, 8.0)),
            };
            told(name.to_owned());
            let all: Vec<usize> = those(system, "aggregator");
            for index in &all {
                system.members[*index].kill();
            }
            wait(away);
            for index in all {
                system.start_member(index);
            }
        }
        Fault::RollingRestart => {
            told("restart every member in turn".to_owned());
            for index in 0..system.members.len() {
                system.members[index].stop()?;
                system.start_member(index);
            }
        }
        Fault::RestartDatabase => {
            // Shorter than anybody's patience, or longer than most.
            let long = deck.pick(2) == 0;
            let away = if long { deck.seconds(20.0, 45.0) } else { deck.seconds(0.5, 3.0) };
            let Some(database) = &mut system.database else { return Ok(()) };
            told(if long { "database away for long" } else { "kill database" }.to_owned());
            database.kill();
            wait(away);
            database.start_again()?;
        }
        Fault::SlowBroker | Fault::SlowClients => {
            let (name, lines) = match fault {
                Fault::SlowBroker => ("slow line to the broker", &system.broker_lines),
                _ => ("slow line to clients", &system.client_lines),
            };
            told(name.to_owned());
            lines.slow(deck.seconds(0.02, 0.2), SLOW_BYTES_PER_SECOND);
            wait(deck.seconds(5.0, 12.0));
            lines.mend();
        }
        Fault::Poison => {
            let Some(broker) = &system.broker else { return Ok(()) };
            told("poison".to_owned());
            let keys: Vec<String> = (0..3).map(|_| partition(deck)).collect();
            let urls = broker.urls();
            for id in poison::pour(&urls, &keys)? {
                write(Saw::Poison { id });
            }
        }
        Fault::Unbind => {
            let Some(broker) = &system.broker else { return Ok(()) };
            let queue = partition(deck);
            told("unbind a queue".to_owned());
            let script = format!(
                "rabbit_binding:remove({{binding, \
                 rabbit_misc:r(<<\"/\">>, exchange, <<\"warren.in\">>), <<\"{queue}\">>, \
                 rabbit_misc:r(<<\"/\">>, queue, <<\"warren.in.{queue}\">>), []}}, <<\"chaos\">>)."
            );
            let said = broker.ctl(0, &["eval", &script])?;
            if said.trim() != "ok" {
                return Err(io::Error::other(said));
            }
            wait(deck.seconds(2.0, 4.0));
            system.run(&["topology", "declare"], "")?;
        }
        Fault::KillLeader => {
            let leaders = system.leaders()?;
            let Some(broker) = &mut system.broker else { return Ok(()) };
            let Some((queue, node)) = leaders.get(deck.pick(leaders.len().max(1))) else {
                return Err(io::Error::other("no queue has a leader"));
            };
            told("kill leader".to_owned());
            println!("  of {queue}: {}", broker.name(*node));
            broker.kill(*node)?;
            wait(deck.seconds(1.0, 5.0));
            broker.start_node(*node)?;
        }
        Fault::KillNode
        | Fault::FreezeNode
        | Fault::PartitionNode
        | Fault::MemoryAlarm
        | Fault::DiskAlarm => {
            let Some(broker) = &mut system.broker else { return Ok(()) };
            let node = deck.pick(broker.len());
            let name = broker.name(node);
            match fault {
                Fault::KillNode => {
                    told(format!("kill node {name}"));
                    broker.kill(node)?;
                    wait(deck.seconds(1.0, 5.0));
                    broker.start_node(node)?;
                }
                Fault::FreezeNode => {
                    told(format!("freeze node {name}"));
                    broker.pause(node)?;
                    wait(deck.seconds(2.0, 8.0));
                    broker.resume(node)?;
                }
                Fault::PartitionNode => {
                    told(format!("partition node {name}"));
                    broker.part(node)?;
                    wait(deck.seconds(5.0, 12.0));
                    broker.rejoin(node)?;
                }
                Fault::MemoryAlarm => {
                    told(format!("memory alarm on {name}"));
                    broker.ctl(node, &["set_vm_memory_high_watermark", "absolute", "1MB"])?;
                    wait(deck.seconds(3.0, 8.0));
                    broker.ctl(node, &["set_vm_memory_high_watermark", "absolute", "1GB"])?;
                }
                _ => {
                    told(format!("disk alarm on {name}"));
                    broker.ctl(node, &["set_disk_free_limit", "100000GB"])?;
                    wait(deck.seconds(3.0, 8.0));
                    broker.ctl(node, &["set_disk_free_limit", "50MB"])?;
                }
            }
        }
    }
    write(Saw::Fault { name: "mended".to_owned() });
    Ok(())
}

/// `chat.3`, any of them.
fn partition(deck: &mut Deck) -> String {
    format!("{}.{}", ["voice", "chat", "tickets"][deck.pick(3)], deck.pick(4))
}

fn those(system: &System, role: &str) -> Vec<usize> {
    (0..system.members.len())
        .filter(|index| system.members[*index].name.starts_with(role))
        .collect()
}

fn member(system: &System, deck: &mut Deck, role: &str) -> usize {
    let those = those(system, role);
    those[deck.pick(those.len())]
}

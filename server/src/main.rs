//! `warren`: the only place that knows every room.

mod backup;
mod cli;
mod control;
mod dead;
mod demo;
mod keeping;
mod roles;

use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use warren::config::{Flags, Settings};
use warren::store::{self, Store};

use cli::{Cli, Command, Dead, Key, Topology, User};
use roles::Roles;

/// Why the program ends with an error, in one line.
#[derive(Debug)]
enum Failure {
    /// It could not begin: a setting, a port, a file. Exit 2.
    Setup(String),
    /// It was asked for what it can't do. Exit 1.
    Refused(String),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    warren::telemetry::init();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("warren: {error}");
            return ExitCode::from(2);
        }
    };
    match runtime.block_on(run(cli)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Setup(line)) => {
            eprintln!("warren: {line}");
            ExitCode::from(2)
        }
        Err(Failure::Refused(line)) => {
            eprintln!("warren: {line}");
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: Cli) -> Result<(), Failure> {
    let common = cli.common;
    match cli.command.unwrap_or(Command::Up { demo: false, profile: None }) {
        Command::Up { demo, profile } => {
            let roles = Roles { backend: true, external: true, web: true, ..Roles::default() };
            roles::run(settings(&common.flags(profile))?, Roles { up: true, demo, ..roles }).await
        }
        Command::Aggregator { voice, chat, tickets, profile } => {
            let roles = Roles { channel_ports: Some([voice, chat, tickets]), ..Roles::default() };
            let web = common.web.is_some();
            roles::run(settings(&common.flags(profile))?, Roles { web, ..roles }).await
        }
        Command::Backend { profile } => {
            let roles = Roles { backend: true, ..Roles::default() };
            roles::run(settings(&common.flags(profile))?, roles).await
        }
        Command::ExternalApi { words } => {
            let (port, profile) = cli::port_and_profile(&words);
            let mut settings = settings(&common.flags(profile))?;
            if let (Some(port), None) = (port, common.external) {
                settings.external.listen.set_port(port);
            }
            roles::run(settings, Roles { external: true, ..Roles::default() }).await
        }
        Command::Web { words } => {
            let (port, profile) = cli::port_and_profile(&words);
            let mut settings = settings(&common.flags(profile))?;
            if let (Some(port), None) = (port, common.web) {
                settings.web.listen.set_port(port);
            }
            roles::run(settings, Roles { web: true, ..Roles::default() }).await
        }
        Command::Topology { action } => {
            let profile = match &action {
                Topology::Declare { profile }
                | Topology::Show { profile }
                | Topology::Delete { profile } => profile.clone(),
            };
            let settings = settings(&common.flags(profile))?;
            keeping::topology(roles::broker(&settings).await?, action).await
        }
        Command::Dead { action } => {
            let profile = match &action {
                Dead::List { profile, .. } | Dead::Show { profile, .. } => profile.clone(),
                Dead::Replay(which) | Dead::Drop(which) => which.id_and_profile().1,
            };
            dead::run(&settings(&common.flags(profile))?, action).await
        }
        Command::User { action } => {
            let profile = match &action {
                User::Add { profile, .. }
                | User::List { profile }
                | User::Revoke { profile, .. } => profile.clone(),
            };
            let store = open_store(&settings(&common.flags(profile))?).await?;
            let done = keeping::user(store.clone(), action).await;
            store.close().await;
            done
        }
        Command::Key { action } => {
            let profile = match &action {
                Key::Add { profile, .. } | Key::List { profile } | Key::Revoke { profile, .. } => {
                    profile.clone()
                }
            };
            let store = open_store(&settings(&common.flags(profile))?).await?;
            let done = keeping::key(store.clone(), action).await;
            store.close().await;
            done
        }
        Command::Token { login, ttl, profile } => {
            let store = open_store(&settings(&common.flags(profile))?).await?;
            let done = keeping::token(store.clone(), &login, ttl).await;
            store.close().await;
            done
        }
        Command::Backup { dir, profile } => {
            backup::run(&settings(&common.flags(profile))?, &dir).await
        }
        Command::Healthcheck { profile, at } => {
            keeping::healthcheck(&settings(&common.flags(profile))?, at).await
        }
    }
}

fn settings(flags: &Flags) -> Result<Settings, Failure> {
    Settings::read(flags).map_err(|error| Failure::Setup(error.to_string()))
}

async fn open_store(settings: &Settings) -> Result<Arc<dyn Store>, Failure> {
    let config = store::Config {
        url: settings.store_url(),
        max_connections: settings.store.max_connections,
    };
    store::open(&config).await.map_err(|error| Failure::Setup(error.to_string()))
}

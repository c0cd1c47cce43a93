//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use domain::{Channel, Login, Role};
use warren::config::Flags;

/// One live desk for voice, chat and tickets.
#[derive(Debug, Parser)]
#[command(name = "warren", version)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) common: Common,
    /// What to run; `up` if nothing is said.
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

#[derive(Debug, Args)]
pub(crate) struct Common {
    /// Settings [default: warren.toml, if there is one]
    #[arg(long, global = true, value_name = "FILE", env = "WARREN_CONFIG")]
    config: Option<PathBuf>,
    /// A profile of the settings, as the last word does
    #[arg(long = "profile", global = true, value_name = "PROFILE", env = "WARREN_PROFILE")]
    named: Option<String>,
    /// The folder of the SQLite files [default: warren-data]
    #[arg(long, global = true, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Pages and WebSockets [default: 127.0.0.1:3000]
    #[arg(long, global = true, value_name = "ADDR")]
    pub(crate) web: Option<SocketAddr>,
    /// The external API [default: 127.0.0.1:4000]
    #[arg(long, global = true, value_name = "ADDR")]
    pub(crate) external: Option<SocketAddr>,
}

impl Common {
    pub(crate) fn flags(&self, profile: Option<String>) -> Flags {
        Flags {
            config: self.config.clone(),
            profile: profile.or_else(|| self.named.clone()),
            data: self.data.clone(),
            web: self.web,
            external: self.external,
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Everything in one process
    Up {
        /// Add three agents, contacts and a generator of events; loopback only
        #[arg(long)]
        demo: bool,
        profile: Option<String>,
    },
    /// WebSockets: voice, chat and tickets on a port each
    Aggregator { voice: u16, chat: u16, tickets: u16, profile: Option<String> },
    /// Consumes what comes in, decides, stores, announces
    #[command(alias = "server")]
    Backend { profile: Option<String> },
    /// The three POST routes
    ExternalApi {
        /// A port, a profile, or both
        #[arg(num_args = 0..=2, value_name = "PORT|PROFILE")]
        words: Vec<String>,
    },
    /// The web app alone
    Web {
        /// A port, a profile, or both
        #[arg(num_args = 0..=2, value_name = "PORT|PROFILE")]
        words: Vec<String>,
    },
    /// Exchanges and queues
    Topology {
        #[command(subcommand)]
        action: Topology,
    },
    /// Messages that nobody could do
    Dead {
        #[command(subcommand)]
        action: Dead,
    },
    /// Who may sign in
    User {
        #[command(subcommand)]
        action: User,
    },
    /// Keys of external systems
    Key {
        #[command(subcommand)]
        action: Key,
    },
    /// Print a bearer token of an agent, for the API and for `hello.token`
    Token {
        login: Login,
        /// How long it is good
        #[arg(long, default_value = "1h", value_parser = duration)]
        ttl: Duration,
        profile: Option<String>,
    },
    /// Copy the SQLite files as of now into a new folder, also while the service runs
    Backup {
        /// Where to; start on it with `--data DIR`
        dir: PathBuf,
        profile: Option<String>,
    },
    /// Exit 0 if the service on this machine is ready
    Healthcheck {
        profile: Option<String>,
        /// The listener to ask: an external API's or a channel's, instead of the pages'
        #[arg(long, value_name = "ADDR")]
        at: Option<SocketAddr>,
    },
}

/// `4000`, `localhost` or `4000 localhost`. A profile's name is no number.
pub(crate) fn port_and_profile(words: &[String]) -> (Option<u16>, Option<String>) {
    match words {
        [] => (None, None),
        [one] => match one.parse() {
            Ok(port) => (Some(port), None),
            Err(_) => (None, Some(one.clone())),
        },
        [first, rest @ ..] => match first.parse() {
            Ok(port) => (Some(port), rest.last().cloned()),
            // What can't be a port is taken for a profile, and named as unknown.
            Err(_) => (None, Some(first.clone())),
        },
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Topology {
    /// Create what is missing
    Declare { profile: Option<String> },
    /// Say what is there and what differs; exit 1 if something does
    Show { profile: Option<String> },
    /// Delete all of it with all that is in it
    Delete { profile: Option<String> },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Dead {
    /// List them, the oldest of each channel first
    List {
        /// Only of this channel
        #[arg(long, value_parser = word::<Channel>)]
        channel: Option<Channel>,
        profile: Option<String>,
    },
    /// Print one as JSON, with its history and its body
    Show { id: String, profile: Option<String> },
    /// Put one back into its queue, under the same id
    Replay(Which),
    /// Delete one for good
    Drop(Which),
}

#[derive(Debug, Args)]
pub(crate) struct Which {
    /// Every one that is there now
    #[arg(long)]
    pub(crate) all: bool,
    /// Only of this channel
    #[arg(long, requires = "all", value_parser = word::<Channel>)]
    pub(crate) channel: Option<Channel>,
    /// Its id, unless it is --all; then a profile
    #[arg(num_args = 0..=2, required_unless_present = "all", value_name = "ID|PROFILE")]
    words: Vec<String>,
}

impl Which {
    /// The id, and the profile.
    pub(crate) fn id_and_profile(&self) -> (Option<String>, Option<String>) {
        match (self.all, self.words.as_slice()) {
            (true, words) => (None, words.first().cloned()),
            (false, words) => (words.first().cloned(), words.get(1).cloned()),
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum User {
    /// Add an agent
    Add {
        login: Login,
        #[arg(long, default_value = "agent", value_parser = word::<Role>)]
        role: Role,
        /// What colleagues see [default: the login]
        #[arg(long)]
        name: Option<String>,
        /// Read the password from standard input
        #[arg(long, required = true)]
        password_stdin: bool,
        profile: Option<String>,
    },
    /// List agents
    List { profile: Option<String> },
    /// Disable an agent and end the agent's sessions
    Revoke { login: Login, profile: Option<String> },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Key {
    /// Add an integration and print its key, once
    Add {
        name: String,
        /// The channels that it may send to
        #[arg(long, value_delimiter = ',', required = true, value_parser = word::<Channel>)]
        scopes: Vec<Channel>,
        /// Take signed requests only
        #[arg(long)]
        require_signature: bool,
        profile: Option<String>,
    },
    /// List integrations
    List { profile: Option<String> },
    /// Revoke an integration's key
    Revoke { name: String, profile: Option<String> },
}

fn word<T: std::str::FromStr<Err = String>>(text: &str) -> Result<T, String> {
    text.parse()
}

fn duration(text: &str) -> Result<Duration, String> {
    let parsed: jiff::SignedDuration =
        text.parse().map_err(|_| "must be a duration such as 90s, 30m or 1h".to_owned())?;
    Duration::try_from(parsed)
        .ok()
        .filter(|duration| !duration.is_zero())
        .ok_or_else(|| "must be more than nothing".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_makes_sense() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_role_takes_its_ports_and_its_profile() {
        let line = ["warren", "aggregator", "4001", "4002", "4003", "localhost", "--data", "x"];
        let cli = Cli::try_parse_from(line).expect("a good line");
        let Some(Command::Aggregator { voice: 4001, chat: 4002, tickets: 4003, profile }) =
            cli.command
        else {
            panic!("an aggregator");
        };
        let flags = cli.common.flags(profile);
        assert_eq!(flags.profile.as_deref(), Some("localhost"));
        assert_eq!(flags.data, Some(PathBuf::from("x")));
        let line = ["warren", "key", "add", "pbx", "--scopes", "voice,chat"];
        let cli = Cli::try_parse_from(line).expect("a good line");
        let Some(Command::Key { action: Key::Add { scopes, .. } }) = cli.command else {
            panic!("a key");
        };
        assert_eq!(scopes, [Channel::Voice, Channel::Chat]);
        assert!(Cli::try_parse_from(["warren", "key", "add", "pbx", "--scopes", "fax"]).is_err());
    }

    #[test]
    fn a_port_and_a_profile_are_told_apart() {
        let read = |words: &[&str]| {
            port_and_profile(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
        };
        assert_eq!(read(&[]), (None, None));
        assert_eq!(read(&["4000"]), (Some(4000), None));
        assert_eq!(read(&["cluster"]), (None, Some("cluster".to_owned())));
        assert_eq!(read(&["4000", "cluster"]), (Some(4000), Some("cluster".to_owned())));
    }

    #[test]
    fn dead_letters_are_named_by_id_or_all_at_once() {
        let read = |line: &[&str]| {
            let line = [&["warren", "dead", "replay"], line].concat();
            let Ok(Cli { command: Some(Command::Dead { action: Dead::Replay(which) }), .. }) =
                Cli::try_parse_from(line)
            else {
                return None;
            };
            Some((which.all, which.id_and_profile()))
        };
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(read(&["x"]), Some((false, (some("x"), None))));
        assert_eq!(read(&["x", "cluster"]), Some((false, (some("x"), some("cluster")))));
        assert_eq!(read(&["--all", "cluster"]), Some((true, (None, some("cluster")))));
        assert_eq!(read(&["--all", "--channel", "chat"]), Some((true, (None, None))));
        assert_eq!(read(&[]), None);
        assert_eq!(read(&["x", "--channel", "chat"]), None);
    }

    #[test]
    fn durations_have_units() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("1h"), Ok(Duration::from_secs(3_600)));
        for wrong in ["", "soon", "-1h", "0s"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}

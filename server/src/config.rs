//! Settings: defaults < file < profile < `WARREN_…` environment < flags.
//!
//! Only parses and names the place of what is wrong; each room owns the
//! `Config` that it works with, and `main.rs` turns one into the other.

use std::net::SocketAddr;
use std::path::PathBuf;

use figment::Figment;
use figment::providers::{Env, Format, Serialized, Toml};
use figment::value::{Dict, Map, Value};
use serde::de::{Deserializer, Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

/// The file that is read when no other is named; it may be absent.
pub const FILE: &str = "warren.toml";
/// A profile that is there without a file: RabbitMQ on this machine, SQLite in
/// the data folder.
pub const LOCALHOST: &str = "localhost";
/// Environment variables that are no settings.
const NOT_SETTINGS: &[&str] = &["LOG", "CONFIG", "PROFILE"];

/// A wrong or unreadable setting, in one line that names the place.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(pub String);

/// Every setting.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Where SQLite files live. Default `./warren-data`.
    pub data: PathBuf,
    /// The web listener.
    pub web: Web,
    /// The external API.
    pub external: External,
    /// WebSockets.
    pub aggregator: Aggregator,
    /// Times of the desk.
    pub backend: Backend,
    /// The broker.
    pub broker: Broker,
    /// The store.
    pub store: Store,
    /// How long the work in hand may take after SIGTERM, in milliseconds. Default 20,000.
    pub grace_ms: u64,
}

/// See [`Backend::keep_days`].
const KEEP_DAYS_MIN: u64 = 8;

/// `[web]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Web {
    /// Default `127.0.0.1:3000`.
    pub listen: SocketAddr,
    /// What people type to reach it, where that isn't `http://LISTEN`. With
    /// `https` the session cookie is `Secure`.
    pub public_url: Option<String>,
    /// Other origins whose pages may open WebSockets here.
    #[serde(deserialize_with = "list")]
    pub allowed_origins: Vec<String>,
    /// How long a session lasts, in hours. Default 12.
    pub session_hours: u64,
}

/// `[external]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct External {
    /// Default `127.0.0.1:4000`.
    pub listen: SocketAddr,
    /// Events a second from one integration. Default 2,000.
    pub events_per_second: u32,
}

/// `[aggregator]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Aggregator {
    /// The host that channel ports bind. Default `127.0.0.1`.
    pub host: std::net::IpAddr,
    /// Where clients reach a channel's port, where that isn't `ws://HOST:{port}`:
    /// behind TLS `wss://desk.example:{port}`, say, or `wss://desk.example/{port}`.
    pub public_url: Option<String>,
    /// Milliseconds between pings. Default 5,000.
    pub heartbeat_ms: u64,
    /// What may wait for one client, in bytes. Default 1 MiB.
    pub outbox_bytes_max: usize,
    /// WebSockets at once. Default 20,000.
    pub connections_max: usize,
    /// Frames a second from one client. Default 100.
    pub frames_per_second: u32,
    /// How long clients may take to move when it stops, in milliseconds. Default 5,000.
    pub drain_ms: u64,
}

/// `[backend]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Backend {
    /// How long an offer stands, in seconds. Default 20.
    pub offer_s: u64,
    /// How long the paperwork after a call or chat may take, in seconds. Default 30.
    pub wrap_up_s: u64,
    /// How long outcomes and receipts are kept, in days: for so long a repeated
    /// event or command has no second effect. Default 30, at least 8.
    pub keep_days: u64,
}

/// `[broker]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Broker {
    /// RabbitMQ nodes to publish to, best first; none means the embedded broker.
    #[serde(deserialize_with = "list")]
    pub publish_urls: Vec<String>,
    /// RabbitMQ nodes to consume from, best first; none means those of `publish_urls`.
    #[serde(deserialize_with = "list")]
    pub consume_urls: Vec<String>,
    /// How long one publish may take, in milliseconds. Default 5,000.
    pub publish_timeout_ms: u64,
    /// Partitions of each channel; fixed at the first declare. Default 4.
    pub partitions: u32,
    /// How long a call's events may wait, in seconds. Default 120.
    pub voice_ttl_s: u64,
    /// How long a chat's events may wait, in seconds. Default 3,600.
    pub chat_ttl_s: u64,
    /// How long a ticket's events may wait, in seconds. Default 604,800.
    pub tickets_ttl_s: u64,
    /// The most messages in a partition. Default 1,000,000.
    pub queue_messages_max: u64,
}

/// `[store]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Store {
    /// `postgres://…` or `sqlite://…`; none means `DATA/warren.db`.
    pub url: Option<String>,
    /// Connections to PostgreSQL. Default 10.
    pub max_connections: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            data: "warren-data".into(),
            web: Web {
                listen: SocketAddr::from(([127, 0, 0, 1], 3000)),
                public_url: None,
                allowed_origins: Vec::new(),
                session_hours: 12,
            },
            external: External {
                listen: SocketAddr::from(([127, 0, 0, 1], 4000)),
                events_per_second: 2_000,
            },
            aggregator: Aggregator {
                host: [127, 0, 0, 1].into(),
                public_url: None,
                heartbeat_ms: 5_000,
                outbox_bytes_max: 1024 * 1024,
                connections_max: 20_000,
                frames_per_second: 100,
                drain_ms: 5_000,
            },
            backend: Backend { offer_s: 20, wrap_up_s: 30, keep_days: 30 },
            broker: Broker {
                publish_urls: Vec::new(),
                consume_urls: Vec::new(),
                publish_timeout_ms: 5_000,
                partitions: 4,
                voice_ttl_s: 120,
                chat_ttl_s: 3_600,
                tickets_ttl_s: 7 * 86_400,
                queue_messages_max: 1_000_000,
            },
            store: Store { url: None, max_connections: 10 },
            grace_ms: 20_000,
        }
    }
}

/// What the command line says; it wins over everything.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    /// `--config`
    pub config: Option<PathBuf>,
    /// PROFILE
    pub profile: Option<String>,
    /// `--data`
    pub data: Option<PathBuf>,
    /// `--web`
    pub web: Option<SocketAddr>,
    /// `--external`
    pub external: Option<SocketAddr>,
}

impl Settings {
    /// Reads every layer.
    ///
    /// # Errors
    /// One line that names the wrong value and its place.
    pub fn read(flags: &Flags) -> Result<Self, ConfigError> {
        let file = flags.config.clone().unwrap_or_else(|| FILE.into());
        let text = match std::fs::read_to_string(&file) {
            Ok(text) => text,
            Err(error)
                if flags.config.is_none() && error.kind() == std::io::ErrorKind::NotFound =>
            {
                String::new()
            }
            Err(error) => return Err(ConfigError(format!("{}: {error}", file.display()))),
        };
        let layers = Figment::from(Serialized::defaults(Self::default()));
        let parsed = split(Figment::from(Toml::string(&text)));
        let (top, profiles) = parsed
            .map_err(|ConfigError(error)| ConfigError(format!("{}: {error}", file.display())))?;
        let profile = match &flags.profile {
            Some(name) => Some(named(name, profiles, &file)?),
            None => None,
        };
        let mut layers = layers.merge(Layer { values: top, place: file.display().to_string() });
        if let (Some(values), Some(name)) = (profile, &flags.profile) {
            let place = format!("{}, profile {name}", file.display());
            layers = layers.merge(Layer { values, place });
        }
        layers = layers.merge(Env::prefixed("WARREN_").ignore(NOT_SETTINGS).split("__"));
        let mut settings: Self = layers.extract().map_err(|error| ConfigError(told(&error)))?;
        settings.data = flags.data.clone().unwrap_or(settings.data);
        settings.web.listen = flags.web.unwrap_or(settings.web.listen);
        settings.external.listen = flags.external.unwrap_or(settings.external.listen);
        settings.check()?;
        Ok(settings)
    }

    fn check(&self) -> Result<(), ConfigError> {
        let wrong = [
            (self.broker.partitions == 0 || self.broker.partitions > 256)
                .then_some("broker.partitions: must be 1 to 256"),
            (self.aggregator.heartbeat_ms < 100)
                .then_some("aggregator.heartbeat_ms: must be 100 or more"),
            (self.aggregator.outbox_bytes_max < 64 * 1024)
                .then_some("aggregator.outbox_bytes_max: must be 65536 or more"),
            (self.aggregator.frames_per_second == 0)
                .then_some("aggregator.frames_per_second: must be 1 or more"),
            (self.aggregator.public_url.as_ref().is_some_and(|url| !is_public(url))).then_some(
                "aggregator.public_url: must begin with ws:// or wss:// and have {port} in it",
            ),
            (self.external.events_per_second == 0)
                .then_some("external.events_per_second: must be 1 or more"),
            // Longer than a ticket waits: what comes late must find its outcome.
            (self.backend.keep_days < KEEP_DAYS_MIN)
                .then_some("backend.keep_days: must be 8 or more"),
            (self.store.max_connections == 0).then_some("store.max_connections: must be 1 or more"),
            (self.broker.publish_urls.is_empty() && !self.broker.consume_urls.is_empty())
                .then_some("broker.publish_urls: must be given where broker.consume_urls is"),
        ];
        match wrong.into_iter().flatten().next() {
            Some(text) => Err(ConfigError(text.into())),
            None => Ok(()),
        }
    }

    /// The store's URL, given or made of the data folder.
    #[must_use]
    pub fn store_url(&self) -> String {
        self.store
            .url
            .clone()
            .unwrap_or_else(|| format!("sqlite://{}", self.data.join("warren.db").display()))
    }
}

fn is_public(url: &str) -> bool {
    (url.starts_with("ws://") || url.starts_with("wss://")) && url.contains("{port}")
}

/// The file's own settings, and its profiles.
fn split(file: Figment) -> Result<(Dict, Dict), ConfigError> {
    let mut top: Dict = file.extract().map_err(|error| ConfigError(told(&error)))?;
    match top.remove("profile") {
        None => Ok((top, Dict::new())),
        Some(Value::Dict(_, profiles)) => Ok((top, profiles)),
        Some(_) => Err(ConfigError("profile: must be a table of profiles".into())),
    }
}

fn named(name: &str, mut profiles: Dict, file: &std::path::Path) -> Result<Dict, ConfigError> {
    match profiles.remove(name) {
        Some(Value::Dict(_, values)) => Ok(values),
        Some(_) => Err(ConfigError(format!("profile.{name}: must be a table"))),
        None if name == LOCALHOST => {
            let url = Value::from(vec!["amqp://guest:guest@127.0.0.1:5672/%2f"]);
            let broker = Dict::from([("publish_urls".to_owned(), url)]);
            Ok(Dict::from([("broker".to_owned(), Value::from(broker))]))
        }
        None => {
            let mut known: Vec<_> = profiles.keys().map(String::as_str).collect();
            known.push(LOCALHOST);
            known.sort_unstable();
            let known = known.join(", ");
            Err(ConfigError(format!("no profile {name:?} in {}; there is {known}", file.display())))
        }
    }
}

struct Layer {
    values: Dict,
    place: String,
}

impl figment::Provider for Layer {
    fn metadata(&self) -> figment::Metadata {
        figment::Metadata::named(self.place.clone())
    }

    fn data(&self) -> Result<Map<figment::Profile, Dict>, figment::Error> {
        // Written anew, so that the values bear this layer's name.
        let values = Value::serialize(&self.values)?.into_dict().unwrap_or_default();
        Ok(Map::from([(figment::Profile::Default, values)]))
    }
}

/// `PATH: what is wrong (in PLACE)`
fn told(error: &figment::Error) -> String {
    let path = error.path.join(".");
    let place = match &error.metadata {
        Some(metadata) if metadata.name.contains("environment") => {
            " (in the environment)".to_owned()
        }
        // The whole text has no name; whoever read it adds the file's.
        Some(metadata) if metadata.name.contains("TOML") => String::new(),
        Some(metadata) => match &metadata.source {
            Some(source) => format!(" (in {source})"),
            None => format!(" (in {})", metadata.name),
        },
        None => String::new(),
    };
    let what = error.kind.to_string().replace('\n', " ");
    if path.is_empty() { format!("{what}{place}") } else { format!("{path}: {what}{place}") }
}

/// A list, or one text with commas, as an environment variable has it.
fn list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    struct Texts;
    impl<'de> Visitor<'de> for Texts {
        type Value = Vec<String>;
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a list of texts")
        }
        fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Self::Value, E> {
            Ok(text
                .split(',')
                .map(str::trim)
                .filter(|part| !part.is_empty())
                .map(str::to_owned)
                .collect())
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
            let mut texts = Vec::new();
            while let Some(text) = seq.next_element::<String>()? {
                if text.is_empty() {
                    return Err(A::Error::custom("an empty text in the list"));
                }
                texts.push(text);
            }
            Ok(texts)
        }
    }
    deserializer.deserialize_any(Texts)
}

/// A URL without its user and password: for the log.
#[must_use]
pub fn without_secrets(url: &str) -> String {
    match (url.find("://"), url.rfind('@')) {
        (Some(scheme), Some(at)) if at > scheme => {
            format!("{}://…@{}", &url[..scheme], &url[at + 1..])
        }
        _ => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(toml: &str, profile: Option<&str>) -> Result<Settings, String> {
        let folder = tempfile::tempdir().expect("a folder");
        let config = folder.path().join("warren.toml");
        std::fs::write(&config, toml).expect("written");
        let flags =
            Flags { config: Some(config), profile: profile.map(str::to_owned), ..Flags::default() };
        Settings::read(&flags).map_err(|error| error.0)
    }

    #[test]
    fn a_profile_wins_over_the_file_and_the_file_over_the_defaults() {
        let toml = r#"
            data = "somewhere"
            [broker]
            partitions = 8
            voice_ttl_s = 60
            [profile.cluster]
            broker.publish_urls = ["amqp://a", "amqp://b"]
            broker.voice_ttl_s = 30
            store.url = "postgres://x"
        "#;
        let settings = read(toml, Some("cluster")).expect("good settings");
        assert_eq!(settings.data, PathBuf::from("somewhere"));
        assert_eq!(settings.broker.partitions, 8);
        assert_eq!(settings.broker.voice_ttl_s, 30);
        assert_eq!(settings.broker.chat_ttl_s, 3_600);
        assert_eq!(settings.broker.publish_urls, ["amqp://a", "amqp://b"]);
        assert_eq!(settings.store_url(), "postgres://x");
        let settings = read(toml, None).expect("good settings");
        assert_eq!(settings.broker.voice_ttl_s, 60);
        assert_eq!(settings.store_url(), "sqlite://somewhere/warren.db");
    }

    #[test]
    fn the_localhost_profile_needs_no_file_entry() {
        let settings = read("", Some("localhost")).expect("good settings");
        assert_eq!(settings.broker.publish_urls.len(), 1);
    }

    #[test]
    fn the_page_for_operators_has_every_setting_and_no_other() {
        let page = include_str!("../../docs/OPERATING.md");
        let (_, table) = page.split_once("| setting |").expect("the table");
        let rows = table.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
        let told: std::collections::BTreeSet<String> = rows.map(str::to_owned).collect();
        let serde_json::Value::Object(all) = serde_json::to_value(Settings::default()).unwrap()
        else {
            panic!("settings are a table")
        };
        let known = all.into_iter().flat_map(|(name, value)| match value {
            serde_json::Value::Object(table) => {
                table.into_iter().map(|(key, _)| format!("{name}.{key}")).collect()
            }
            _ => vec![name],
        });
        assert_eq!(told, known.collect());
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place_in_one_line() {
        for (toml, profile, names) in [
            ("[web]\nlisten = \"nowhere\"", None, vec!["web.listen", "warren.toml"]),
            ("[web]\nlissten = \"127.0.0.1:1\"", None, vec!["lissten", "warren.toml"]),
            ("broker.partitions = \"four\"", None, vec!["broker.partitions", "warren.toml"]),
            ("broker.partitions = 0", None, vec!["broker.partitions"]),
            ("aggregator.public_url = \"ws://a:4001\"", None, vec!["aggregator.public_url"]),
            (
                "[profile.a]\nstore.max_connections = true",
                Some("a"),
                vec!["store.max_connections", "profile a"],
            ),
            ("[profile.a]", Some("b"), vec!["\"b\"", "a, localhost"]),
            ("[web\n", None, vec!["warren.toml"]),
            ("profile = 3", None, vec!["profile"]),
        ] {
            let error = read(toml, profile).expect_err(toml);
            for name in names {
                assert!(error.contains(name), "{error:?} should name {name:?}");
            }
            assert!(!error.contains('\n'), "{error:?}");
        }
        let flags = Flags { config: Some("/nonexistent/x.toml".into()), ..Flags::default() };
        let error = Settings::read(&flags).expect_err("no file").0;
        assert!(error.contains("/nonexistent/x.toml"), "{error}");
    }

    #[test]
    fn a_password_in_a_url_is_not_shown() {
        assert_eq!(without_secrets("amqp://u:p@host:1/v"), "amqp://…@host:1/v");
        assert_eq!(without_secrets("sqlite:///a/b"), "sqlite:///a/b");
    }
}

//! Starts the rooms of the roles that were asked for, and stops them in order.

use std::future::IntoFuture;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::serve::ListenerExt;
use domain::Channel;
use protocol::{MemberRole, Urls};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use warren::aggregator::{self, Aggregator};
use warren::backend::{self, Backend};
use warren::broker::{self, Broker, BrokerError, amqp, embedded};
use warren::clock::Clock;
use warren::config::{Settings, without_secrets};
use warren::dead_letters::DeadLetters;
use warren::members::{Members, Roster};
use warren::metrics::{self, Metrics};
use warren::receipts::Receipts;
use warren::shutdown::{self, Shutdown};
use warren::{external_api, web};

use crate::{Failure, control, demo, open_store};

/// How long the first declare may take; after that it goes on beside the rest.
const DECLARE_WAIT: Duration = Duration::from_secs(5);
/// How often the topology is declared again while the broker is gone.
const DECLARE_EVERY: Duration = Duration::from_secs(1);

/// How long the external API goes on answering after the stop, saying goodbye.
const FAREWELL: Duration = Duration::from_millis(500);

/// What this process is to be.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Roles {
    /// Everything in one process, with WebSockets on the web listener.
    pub(crate) up: bool,
    /// An aggregator with a port for each channel.
    pub(crate) channel_ports: Option<[u16; 3]>,
    pub(crate) backend: bool,
    pub(crate) external: bool,
    pub(crate) web: bool,
    pub(crate) demo: bool,
}

impl Roles {
    fn aggregates(self) -> bool {
        self.up || self.channel_ports.is_some()
    }

    fn members(self) -> Vec<MemberRole> {
        [
            (self.aggregates(), MemberRole::Aggregator),
            (self.backend, MemberRole::Backend),
            (self.external, MemberRole::ExternalApi),
            (self.web, MemberRole::Web),
        ]
        .into_iter()
        .filter_map(|(is, role)| is.then_some(role))
        .collect()
    }
}

/// Every port, bound before anything else is begun.
struct Listeners {
    web: Option<TcpListener>,
    external: Option<TcpListener>,
    channels: Vec<(Channel, TcpListener)>,
}

impl Listeners {
    async fn bind(settings: &Settings, roles: Roles) -> Result<Self, Failure> {
        let mut channels = Vec::new();
        for (channel, port) in Channel::ALL.iter().zip(roles.channel_ports.unwrap_or_default()) {
            if roles.channel_ports.is_some() {
                let address = SocketAddr::new(settings.aggregator.host, port);
                channels.push((*channel, bind(address).await?));
            }
        }
        let web = if roles.web { Some(bind(settings.web.listen).await?) } else { None };
        let external =
            if roles.external { Some(bind(settings.external.listen).await?) } else { None };
        Ok(Self { web, external, channels })
    }

    /// Where clients reach this member.
    fn urls(&self, settings: &Settings, roles: Roles) -> Result<Urls, Failure> {
        let mut urls = Urls::default();
        if let Some(listener) = &self.web {
            let own = format!("http://{}", local(listener)?);
            let public = settings.web.public_url.as_deref().unwrap_or(&own).trim_end_matches('/');
            urls.web = Some(public.to_owned());
            if roles.aggregates() {
                let all = format!("{}/ws", public.replacen("http", "ws", 1));
                for channel in Channel::ALL {
                    urls.channels.insert(*channel, format!("{all}/{channel}"));
                }
                urls.all = Some(all);
            }
        }
        for (channel, listener) in &self.channels {
            let address = local(listener)?;
            let base = match &settings.aggregator.public_url {
                Some(url) => url.replace("{port}", &address.port().to_string()),
                None if address.ip().is_unspecified() => {
                    return Err(Failure::Setup(format!(
                        "aggregator.public_url: must be given where aggregator.host is {}",
                        address.ip()
                    )));
                }
                None => format!("ws://{address}"),
            };
            let base = base.trim_end_matches('/');
            urls.all.get_or_insert_with(|| format!("{base}/ws/all"));
            urls.channels.entry(*channel).or_insert_with(|| format!("{base}/"));
        }
        Ok(urls)
    }

    /// The line that scripts wait for.
    fn ready(&self) -> Result<String, Failure> {
        let mut line = String::from("ready");
        if let Some(listener) = &self.web {
            line += &format!(" web=http://{}", local(listener)?);
        }
        if let Some(listener) = &self.external {
            line += &format!(" external=http://{}", local(listener)?);
        }
        for (channel, listener) in &self.channels {
            line += &format!(" {channel}=ws://{}", local(listener)?);
        }
        Ok(line)
    }
}

async fn bind(address: SocketAddr) -> Result<TcpListener, Failure> {
    TcpListener::bind(address).await.map_err(|error| Failure::Setup(format!("{address}: {error}")))
}

fn local(listener: &TcpListener) -> Result<SocketAddr, Failure> {
    listener.local_addr().map_err(|error| Failure::Setup(format!("listener: {error}")))
}

/// The broker of these settings.
pub(crate) async fn broker(settings: &Settings) -> Result<Arc<dyn Broker>, Failure> {
    let of = &settings.broker;
    let topology = broker::Config {
        partitions: of.partitions,
        ttl: [of.voice_ttl_s, of.chat_ttl_s, of.tickets_ttl_s].map(Duration::from_secs),
        queue_messages_max: of.queue_messages_max,
    };
    let setup = |error: BrokerError| Failure::Setup(error.to_string());
    if of.publish_urls.is_empty() {
        let config = embedded::Config {
            path: settings.data.join("broker"),
            topology,
            clock: Clock::default(),
        };
        return Ok(embedded::open(config).await.map_err(setup)?);
    }
    let consume_urls =
        if of.consume_urls.is_empty() { of.publish_urls.clone() } else { of.consume_urls.clone() };
    let config = amqp::Config {
        publish_urls: of.publish_urls.clone(),
        consume_urls,
        topology,
        publish_timeout: Duration::from_millis(of.publish_timeout_ms),
    };
    let connected = amqp::connect(config).await;
    Ok(connected.map_err(|error| Failure::Setup(error.to_string()))?)
}

/// Declares the topology; goes on trying beside the rest while the broker is gone.
async fn declare(broker: &Arc<dyn Broker>, stop: CancellationToken) -> Result<(), Failure> {
    match tokio::time::timeout(DECLARE_WAIT, broker.declare()).await {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(error @ (BrokerError::Misdeclared(_) | BrokerError::Storage(_)))) => {
            return Err(Failure::Setup(error.to_string()));
        }
        Ok(Err(error)) => tracing::warn!(%error, "topology not declared yet"),
        Err(_) => tracing::warn!("topology not declared yet: no answer"),
    }
    let broker = broker.clone();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(DECLARE_EVERY) => {}
            }
            match broker.declare().await {
                Ok(()) => return tracing::info!("topology declared"),
                Err(error @ BrokerError::Misdeclared(_)) => {
                    return tracing::error!(%error, "topology not declared");
                }
                Err(error) => tracing::debug!(%error, "topology not declared yet"),
            }
        }
    });
    Ok(())
}

/// Runs the roles until SIGTERM or SIGINT, then drains.
pub(crate) async fn run(settings: Settings, roles: Roles) -> Result<(), Failure> {
    let alone = !roles.up && settings.broker.publish_urls.is_empty();
    if alone {
        let line = "the embedded broker serves one process only: name a PROFILE with broker.publish_urls, or run `warren up`";
        return Err(Failure::Setup(line.to_owned()));
    }
    if roles.demo {
        demo::only_loopback(&settings)?;
    }
    let clock = Clock::default();
    let listeners = Listeners::bind(&settings, roles).await?;
    let urls = listeners.urls(&settings, roles)?;
    let store = open_store(&settings).await?;
    let broker = broker(&settings).await?;
    tracing::info!(
        store = without_secrets(&settings.store_url()),
        broker = settings
            .broker
            .publish_urls
            .first()
            .map_or("embedded".to_owned(), |url| without_secrets(url)),
        "opened"
    );
    let shutdown = Shutdown::default();
    declare(&broker, shutdown.token()).await?;

    // What serves stops first, what it serves with last.
    let (serving, working, keeping) =
        (CancellationToken::new(), CancellationToken::new(), CancellationToken::new());
    let (servers, workers, keepers) = (TaskTracker::new(), TaskTracker::new(), TaskTracker::new());
    let receipts = Receipts::start(store.clone(), clock.clone(), &shutdown);
    let (members, heartbeat) =
        Members::join(broker.clone(), clock.clone(), roles.members(), urls, keeping.clone());
    keepers.spawn(heartbeat);
    keepers.spawn(members.audit().clone().run(store.clone(), clock.clone(), keeping.clone()));
    let metrics = Metrics { members: members.clone(), receipts: receipts.clone() };

    if roles.backend {
        let backend = Backend {
            broker: broker.clone(),
            store: store.clone(),
            members: members.clone(),
            receipts: receipts.clone(),
            clock: clock.clone(),
            config: backend::Config {
                offer_ttl: Duration::from_secs(settings.backend.offer_s),
                wrap_up: Duration::from_secs(settings.backend.wrap_up_s),
                keep: Duration::from_secs(settings.backend.keep_days.saturating_mul(86_400)),
            },
        };
        workers.spawn(backend.run(working.clone()));
    }

    let line = listeners.ready()?;
    let mut sockets = None;
    if roles.aggregates() {
        let config = aggregator::Config {
            heartbeat: Duration::from_millis(settings.aggregator.heartbeat_ms),
            outbox_bytes_max: settings.aggregator.outbox_bytes_max,
            connections_max: settings.aggregator.connections_max,
            frames_per_second: settings.aggregator.frames_per_second,
            allowed_origins: settings.web.allowed_origins.clone(),
            drain: Duration::from_millis(settings.aggregator.drain_ms),
        };
        let aggregator = Aggregator::new(
            broker.clone(),
            store.clone(),
            members.clone(),
            receipts.clone(),
            clock.clone(),
            config,
        );
        servers.spawn(aggregator.clone().run(serving.clone()));
        sockets = Some(aggregator);
    }
    for (channel, listener) in listeners.channels {
        if let Some(aggregator) = &sockets {
            let router = aggregator::channel_router(aggregator.clone(), channel)
                .merge(metrics::router(metrics.clone()));
            serve(&workers, listener, router, working.clone().cancelled_owned());
        }
    }
    let api = external_api::Api::new(
        broker.clone(),
        store.clone(),
        receipts.clone(),
        clock.clone(),
        external_api::Config {
            events_per_second: settings.external.events_per_second,
            ..external_api::Config::default()
        },
        serving.clone(),
    );
    let api = external_api::router(api.hearing(members.heard()));
    if let Some(listener) = listeners.external {
        let router = api.clone().merge(metrics::router(metrics.clone()));
        let router = shutdown::farewell(router, serving.clone());
        // Those that post in a row hear in time that they should go elsewhere.
        let stop = serving.clone();
        let left = async move {
            stop.cancelled().await;
            tokio::time::sleep(FAREWELL).await;
        };
        serve(&servers, listener, router, left);
    }
    let dead_letters = DeadLetters::new(broker.clone(), store.clone(), clock.clone());
    if settings.broker.publish_urls.is_empty() {
        // Nobody else can open this broker while it is served here.
        let router = web::control_router(dead_letters.clone());
        control::serve(&workers, &settings.data, router, working.clone());
    }
    if let Some(listener) = listeners.web {
        let mut router = web::router(web::State {
            store: store.clone(),
            clock: clock.clone(),
            members: members.clone(),
            aggregators: aggregators(&members, &keepers, keeping.clone()),
            broker_state: Some(broker.state()),
            dead_letters,
            config: web::Config {
                public_url: settings.web.public_url.clone(),
                session: Duration::from_secs(settings.web.session_hours * 3_600),
            },
        });
        if let Some(aggregator) = &sockets {
            router = router.merge(aggregator::web_router(aggregator.clone()));
        }
        router = router.merge(metrics::router(metrics));
        // Pages are served while clients move.
        serve(&workers, listener, router, working.clone().cancelled_owned());
    }

    if let Some(aggregator) = &sockets {
        tokio::select! {
            () = aggregator.ready() => {}
            () = shutdown.requested() => return Ok(()),
        }
    }
    if roles.demo {
        demo::accounts(store.as_ref()).await?;
        demo::start(store.clone(), api, &settings.data, &servers, serving.clone()).await?;
    }
    println!("{line}");

    shutdown.requested().await;
    let stopping = async {
        serving.cancel();
        servers.close();
        servers.wait().await;
        working.cancel();
        workers.close();
        workers.wait().await;
        keeping.cancel();
        keepers.close();
        keepers.wait().await;
        let finish = shutdown.finish(Duration::from_millis(settings.grace_ms));
        let (clean, ()) = tokio::join!(finish, broker.close());
        store.close().await;
        clean
    };
    tokio::select! {
        clean = stopping => {
            if !clean {
                tracing::warn!("receipts left unwritten");
            }
            Ok(())
        }
        () = tokio::time::sleep(Duration::from_millis(settings.grace_ms)) => {
            Err(Failure::Refused(format!("work left undone after {} ms", settings.grace_ms)))
        }
        () = shutdown::second_signal() => Err(Failure::Refused("stopped at once".to_owned())),
    }
}

fn serve(
    tracker: &TaskTracker,
    listener: TcpListener,
    router: Router,
    stop: impl Future<Output = ()> + Send + 'static,
) {
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    // A frame goes out at once: held back for its predecessor's
    // acknowledgment, it would be up to 40 ms late.
    let listener = listener.tap_io(|stream| {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "no TCP_NODELAY");
        }
    });
    tracker.spawn(async move {
        let server = axum::serve(listener, service).with_graceful_shutdown(stop);
        if let Err(error) = server.into_future().await {
            tracing::error!(%error, "listener failed");
        }
    });
}

/// Live aggregators, least loaded first, as the roster changes.
fn aggregators(
    members: &Members,
    tracker: &TaskTracker,
    stop: CancellationToken,
) -> watch::Receiver<Vec<String>> {
    let mut roster: watch::Receiver<Roster> = members.roster();
    let first = roster.borrow_and_update().aggregators(None);
    let (sender, receiver) = watch::channel(first);
    tracker.spawn(async move {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                changed = roster.changed() => if changed.is_err() { return },
            }
            let urls = roster.borrow_and_update().aggregators(None);
            sender.send_if_modified(|known| {
                let changed = *known != urls;
                *known = urls;
                changed
            });
        }
    });
    receiver
}

//! The broker's story, told to RabbitMQ and to the embedded broker; and what
//! only the one or the other can suffer.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use testkit::rabbit::Cluster;
use tokio::sync::RwLock;
use warren::broker::amqp::{self, Amqp};
use warren::broker::{Broker, BrokerState, Config};

mod anomalies;
mod embedded;
mod story;

/// Virtual hosts, made at once: each test takes one.
const VHOSTS: usize = 40;

/// One node for all tests, killed with this process.
static NODE: LazyLock<Mutex<Cluster>> = LazyLock::new(|| {
    let cluster = Cluster::start(1).unwrap();
    let names: Vec<String> = (0..VHOSTS).map(vhost).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    cluster.add_vhosts(&names).unwrap();
    Mutex::new(cluster)
});

/// Held shared by those that want a calm node, exclusively by those that
/// torment it.
static CALM: RwLock<()> = RwLock::const_new(());

fn vhost(number: usize) -> String {
    format!("v{number}")
}

fn node() -> MutexGuard<'static, Cluster> {
    NODE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The address of a virtual host that nobody has used.
fn fresh_url() -> String {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    assert!(number < VHOSTS, "make more virtual hosts");
    format!("{}/{}", node().url(0), vhost(number))
}

/// A broker at `url` that is up.
async fn connect(url: &str, topology: Config) -> Arc<Amqp> {
    let config = amqp::Config { topology, ..amqp::Config::new(vec![url.to_owned()]) };
    let broker = amqp::connect(config).await.unwrap();
    story::state_is(&*broker, "a connection", |state| *state == BrokerState::Up).await;
    broker
}

struct Rabbit;

#[async_trait]
impl story::Factory for Rabbit {
    async fn fresh(&self, config: Config) -> Arc<dyn Broker> {
        connect(&fresh_url(), config).await
    }
}

macro_rules! tell {
    ($($name:ident),+ $(,)?) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            let _calm = CALM.read().await;
            story::$name(&Rabbit).await;
        }
    )+};
}

tell!(
    what_is_published_is_consumed_in_order_and_unchanged,
    one_consumer_gets_all_and_the_next_one_takes_over_in_order,
    what_is_acked_together_is_done_and_nothing_behind_it,
    what_keeps_failing_becomes_a_dead_letter_with_its_reason,
    a_buried_message_is_a_dead_letter_at_once,
    a_message_that_waited_too_long_is_a_dead_letter,
    dead_letters_are_replayed_and_dropped_by_id,
    a_full_queue_refuses_until_there_is_room,
    a_log_is_read_by_everybody_from_wherever_they_like,
    announcements_of_one_task_stay_in_order,
    every_member_hears_a_broadcast,
    a_reply_reaches_its_member_and_nobody_else,
    without_a_topology_nothing_is_taken,
    an_ack_that_comes_too_late_says_so,
);

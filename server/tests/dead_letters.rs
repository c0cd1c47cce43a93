//! Dead letters, from the command line, the API and the record: what an
//! admin does about what nobody could do.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Output;
use std::sync::Arc;
use std::time::Duration;

use domain::{Channel, Timestamp, partition_of};
use protocol::names;
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};
use sqlx::{Connection, Row};
use testkit::rabbit::Cluster;
use testkit::warren::Warren;
use warren::broker::{Broker, Message, PARTITIONS, Partition, amqp, embedded};
use warren::clock::Clock;

const WARREN: &str = env!("CARGO_BIN_EXE_warren");
const PASSWORD: &str = "correct horse battery";
const PATIENCE: Duration = Duration::from_secs(60);

fn message(id: &str, key: &str, body: &str) -> (Partition, Message) {
    let headers = BTreeMap::from([
        (names::X_CHANNEL.to_owned(), "chat".to_owned()),
        (names::X_KEY.to_owned(), key.to_owned()),
    ]);
    let message = Message {
        id: id.to_owned(),
        kind: "chat.message".to_owned(),
        app_id: "site".to_owned(),
        at: Timestamp::from_millis(1_700_000_000_000),
        headers,
        reply_to: None,
        body: body.to_owned().into(),
    };
    (Partition { channel: Channel::Chat, index: partition_of(key, PARTITIONS) }, message)
}

fn words(chat: &str, text: &str) -> String {
    json!({ "type": "chat.message", "chat": chat, "text": text }).to_string()
}

/// Publishes it and makes it a dead letter.
async fn bury(broker: &dyn Broker, (to, message): (Partition, Message), reason: &str) {
    broker.publish(to, message).await.expect("published");
    let mut consumer = broker.consume(to, 1).await.expect("a consumer");
    let delivery = consumer.recv().await.expect("a delivery");
    delivery.settle.bury(reason).await.expect("buried");
    consumer.cancel().await;
}

async fn embedded_at(data: &Path) -> Arc<embedded::Embedded> {
    let config = embedded::Config {
        path: data.join("broker"),
        topology: warren::broker::Config::default(),
        clock: Clock::default(),
    };
    let broker = embedded::open(config).await.expect("opened");
    broker.declare().await.expect("declared");
    broker
}

fn warren(arguments: &[&str]) -> Output {
    Warren::command(WARREN).env("WARREN_LOG", "off").args(arguments).run("")
}

fn said(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Asks until there is something to give.
async fn until<T>(what: &str, mut attempt: impl AsyncFnMut() -> Option<T>) -> T {
    let asked = async {
        loop {
            if let Some(found) = attempt().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, asked).await.unwrap_or_else(|_| panic!("no {what}"))
}

struct Desk {
    service: Warren,
    data: String,
    client: Client,
}

impl Desk {
    fn start(data: &str) -> Self {
        let service = Warren::command(WARREN)
            .args(["up", "--data", data, "--web", "127.0.0.1:0", "--external", "127.0.0.1:0"])
            .start();
        Self { service, data: data.to_owned(), client: Client::new() }
    }

    fn warren(&self, arguments: &[&str]) -> Output {
        warren(&[arguments, &["--data", &self.data]].concat())
    }

    fn token(&self, login: &str, role: &str) -> String {
        let add = ["user", "add", login, "--role", role, "--password-stdin", "--data", &self.data];
        Warren::command(WARREN).args(add).say(PASSWORD);
        said(&self.warren(&["token", login]))
    }

    fn listed(&self) -> Vec<Vec<String>> {
        let said = said(&self.warren(&["dead", "list"]));
        said.lines().map(|line| line.split('\t').map(str::to_owned).collect()).collect()
    }

    async fn ask(&self, method: Method, path: &str, token: &str) -> (StatusCode, Value) {
        let url = format!("{}/api/v1/{path}", self.service.web());
        let request = self.client.request(method, url).bearer_auth(token);
        let answer = request.send().await.expect("an answer");
        let status = answer.status();
        (status, answer.json().await.expect("json"))
    }

    /// What is said in the chat, in order.
    async fn texts(&self, token: &str, chat: &str) -> Vec<String> {
        let (_, list) = self.ask(Method::GET, "interactions?channel=chat", token).await;
        let found = list["interactions"]
            .as_array()
            .expect("a list")
            .iter()
            .find(|one| one["external_id"] == chat)
            .and_then(|one| one["id"].as_str().map(str::to_owned));
        let Some(id) = found else { return Vec::new() };
        let (_, detail) = self.ask(Method::GET, &format!("interactions/{id}"), token).await;
        let timeline = detail["timeline"].as_array().expect("a timeline");
        timeline.iter().filter_map(|one| one["text"].as_str().map(str::to_owned)).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_seen_replayed_once_and_dropped_on_the_record() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    std::fs::create_dir(&data).expect("a folder");
    let broker = embedded_at(&data).await;
    bury(&*broker, message("once", "site:a", &words("a", "only by replay")), "expired").await;
    bury(&*broker, message("twice", "site:b", &words("b", "said once")), "delivery_limit").await;
    let (to, again) = message("twice", "site:b", &words("b", "said once"));
    broker.publish(to, again).await.expect("published");
    let (to, junk) = message("junk/1", "site:c", "{no json");
    broker.publish(to, junk).await.expect("published");
    broker.close().await;
    drop(broker);

    let desk = Desk::start(data.to_str().expect("a path"));
    let (admin, agent) = (desk.token("ada", "admin"), desk.token("ana", "agent"));
    until("third dead letter", async || (desk.listed().len() == 3).then_some(())).await;
    let by_id = |id: &str| desk.listed().into_iter().find(|line| line[1] == id);
    assert_eq!(by_id("once").expect("listed")[3], "expired");

    // Only admins; with a body only one by one.
    let unknown = desk.ask(Method::GET, "dead", "nonsense").await;
    assert_eq!(unknown.0, StatusCode::UNAUTHORIZED);
    for (method, path) in
        [(Method::GET, "dead"), (Method::POST, "dead/once/replay"), (Method::DELETE, "dead/once")]
    {
        let (status, _) = desk.ask(method, path, &agent).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{path}");
    }
    let (status, list) = desk.ask(Method::GET, "dead?channel=chat&limit=3", &admin).await;
    assert_eq!((status, list["dead"].as_array().map(Vec::len)), (StatusCode::OK, Some(3)));
    assert_eq!(list["dead"][0].get("body"), None);
    for wrong in ["dead?channel=fax", "dead?limit=0", "dead?limit=many"] {
        let (status, problem) = desk.ask(Method::GET, wrong, &admin).await;
        assert_eq!((status, &problem["status"]), (StatusCode::BAD_REQUEST, &json!(400)), "{wrong}");
    }
    let (_, one) = desk.ask(Method::GET, "dead/twice", &admin).await;
    assert_eq!(one["body"], json!({ "type": "chat.message", "chat": "b", "text": "said once" }));
    let shown = said(&desk.warren(&["dead", "show", "junk/1"]));
    let shown: Value = serde_json::from_str(&shown).expect("json");
    assert_eq!(shown["body"], "{no json");
    assert!(shown["deaths"][0]["reason"].as_str().is_some_and(|why| why.contains("json")));

    // What had no effect has one; what had its effect has no second one.
    let (status, _) = desk.ask(Method::POST, "dead/once/replay", &admin).await;
    assert_eq!(status, StatusCode::OK);
    until("replayed chat", async || {
        (desk.texts(&admin, "a").await == ["only by replay"]).then_some(())
    })
    .await;
    said(&desk.warren(&["dead", "replay", "twice"]));
    let key = said(&desk.warren(&["key", "add", "other", "--scopes", "chat"]));
    // Through the same partition, after it.
    let later = (0..)
        .map(|number| format!("later{number}"))
        .find(|chat| {
            let key = format!("other:{chat}");
            partition_of(&key, PARTITIONS) == message("", "site:b", "").0.index
        })
        .expect("some key");
    let posted = desk
        .client
        .post(format!("{}/external/chat", desk.service.external()))
        .bearer_auth(key)
        .json(&json!({ "type": "chat.message", "chat": later, "text": "after" }))
        .send()
        .await
        .expect("an answer");
    assert_eq!(posted.status(), StatusCode::ACCEPTED);
    until("later chat", async || (desk.texts(&admin, &later).await == ["after"]).then_some(()))
        .await;
    assert_eq!(desk.texts(&admin, "b").await, ["said once"]);

    // What dies again remembers it.
    said(&desk.warren(&["dead", "replay", "--all", "--channel", "chat"]));
    until("second death", async || by_id("junk/1").filter(|line| line[5] == "2")).await;
    said(&desk.warren(&["dead", "drop", "junk/1"]));
    assert_eq!(desk.listed().len(), 0);
    let gone = desk.warren(&["dead", "drop", "junk/1"]);
    assert_eq!(gone.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&gone.stderr).contains("no such dead letter"));
    let (status, problem) = desk.ask(Method::DELETE, "dead/junk%2F1", &admin).await;
    assert_eq!((status, &problem["status"]), (StatusCode::NOT_FOUND, &json!(404)));
    assert_eq!(desk.service.term(), Some(0));

    let url = format!("sqlite://{}", data.join("warren.db").display());
    let mut store = sqlx::SqliteConnection::connect(&url).await.expect("opened");
    let rows = sqlx::query(
        "SELECT who, what, subject FROM audit WHERE what LIKE 'dead.%' ORDER BY at, id",
    )
    .fetch_all(&mut store)
    .await
    .expect("rows");
    let deeds: Vec<[String; 3]> =
        rows.iter().map(|row| [row.get(0), row.get(1), row.get(2)]).collect();
    let wanted = [
        ["ada", "dead.replay", "chat once"],
        ["command line", "dead.replay", "chat twice"],
        ["command line", "dead.replay", "chat junk/1"],
        ["command line", "dead.drop", "chat junk/1"],
    ];
    assert_eq!(deeds, wanted);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_service_leaves_its_dead_letters_to_the_command_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().to_str().expect("a path");
    let broker = embedded_at(folder.path()).await;
    bury(&*broker, message("one", "site:a", "{}"), "expired").await;
    broker.close().await;
    drop(broker);
    // What a killed service leaves behind is no service.
    drop(std::os::unix::net::UnixListener::bind(folder.path().join("control.sock")));
    assert!(said(&warren(&["dead", "list", "--data", data])).contains("one"));
    said(&warren(&["dead", "drop", "--all", "--data", data]));
    assert_eq!(said(&warren(&["dead", "list", "--data", data])), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_of_rabbitmq_are_reached_without_a_service() {
    let cluster = Cluster::start(1).expect("a node");
    let url = cluster.url(0);
    let broker = amqp::connect(amqp::Config::new(vec![url.clone()])).await.expect("connected");
    broker.declare().await.expect("declared");
    bury(&*broker, message("one", "site:a", &words("a", "x")), "by hand").await;
    bury(&*broker, message("two", "site:a", &words("a", "y")), "by hand").await;
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().to_str().expect("a path");
    let config = folder.path().join("warren.toml");
    let text = format!("[profile.there]\nbroker.publish_urls = [\"{url}\"]\n");
    std::fs::write(&config, text).expect("written");
    let rest = ["there", "--data", data, "--config", config.to_str().expect("a path")];
    let run = |words: &[&str]| warren(&[words, &rest].concat());
    assert_eq!(said(&run(&["dead", "list"])).lines().count(), 2);
    assert!(said(&run(&["dead", "show", "two"])).contains("by hand"));
    said(&run(&["dead", "replay", "one"]));
    said(&run(&["dead", "drop", "two"]));
    assert_eq!(said(&run(&["dead", "list"])), "");
    let mut consumer = broker.consume(message("", "site:a", "").0, 1).await.expect("a consumer");
    let delivery = consumer.recv().await.expect("a delivery");
    assert_eq!(delivery.message.id, "one");
    let deaths = delivery.message.header(names::X_DEATHS).expect("it remembers");
    assert!(deaths.contains("by hand"), "{deaths}");
    broker.close().await;
}

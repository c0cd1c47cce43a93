//! `warren backup`: what is in a copy, and what it is to clients of the original.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Output;
use std::sync::Arc;
use std::time::Duration;

use futures::{SinkExt, StreamExt};
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use sqlx::{Connection, Executor};
use testkit::warren::{Warren, WarrenCommand};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;

const WARREN: &str = env!("CARGO_BIN_EXE_warren");
const PATIENCE: Duration = Duration::from_secs(60);
/// Senders at once, and events in each of their requests.
const SENDERS: usize = 4;
const BURST: usize = 100;

fn run(arguments: &[&str], stdin: &str) -> Output {
    Warren::command(WARREN).env("WARREN_LOG", "off").args(arguments).run(stdin)
}

fn done(arguments: &[&str], stdin: &str) -> String {
    Warren::command(WARREN).args(arguments).say(stdin)
}

/// The one line that it says, having exited 2.
fn refused(arguments: &[&str]) -> String {
    let output = run(arguments, "");
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    said
}

fn up(data: &str) -> WarrenCommand {
    Warren::command(WARREN)
        .args(["up", "--data", data, "--web", "127.0.0.1:0", "--external", "127.0.0.1:0"])
        .env("WARREN_EXTERNAL__EVENTS_PER_SECOND", "1000000")
}

async fn json_of(request: reqwest::RequestBuilder) -> Value {
    let answer = request.send().await.expect("an answer");
    assert_eq!(answer.status(), StatusCode::OK);
    serde_json::from_slice(&answer.bytes().await.expect("a body")).expect("json")
}

/// Posts tickets until the service is gone, and notes what was accepted.
async fn send(url: String, key: String, accepted: Arc<watch::Sender<Vec<String>>>) {
    let client = Client::new();
    let ticket = json!({"type":"ticket.opened","subject":"s","body":"b","requester":{}});
    let burst = Value::from(vec![ticket; BURST]).to_string();
    loop {
        let post = client.post(&url).bearer_auth(&key).header("content-type", "application/json");
        let Ok(answer) = post.body(burst.clone()).send().await else { return };
        let status = answer.status();
        let Ok(body) = answer.bytes().await else { return };
        if status != StatusCode::ACCEPTED {
            continue;
        }
        let results: Vec<Value> = serde_json::from_slice(&body).expect("json");
        let ids = results.iter().map(|one| one["id"].as_str().expect("an id").to_owned());
        accepted.send_modify(|all| all.extend(ids));
    }
}

/// Makes the store so large that copying it takes its time: what is decided
/// between the two copies is many events.
async fn fatten(url: &str) {
    let mut store = sqlx::SqliteConnection::connect(url).await.expect("a store");
    let fat = "CREATE TABLE fat AS WITH RECURSIVE n(i) AS \
        (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 32) SELECT randomblob(1048576) FROM n";
    store.execute(fat).await.expect("written");
    store.close().await.expect("closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_made_under_load_has_what_was_accepted_and_is_another_history() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).to_str().expect("a path").to_owned();
    let (data, copy) = (path("data"), path("copy"));
    done(&["key", "list", "--data", &data], "");
    fatten(&format!("sqlite://{data}/warren.db")).await;
    let original = up(&data).start();
    done(&["user", "add", "ana", "--password-stdin", "--data", &data], "correct horse battery");
    let token = done(&["token", "ana", "--data", &data], "");
    let key = done(&["key", "add", "form", "--scopes", "tickets", "--data", &data], "");
    let client = Client::new();

    let (accepted, mut heard) = watch::channel(Vec::new());
    let accepted = Arc::new(accepted);
    let url = format!("{}/external/tickets", original.external());
    let senders: Vec<_> = (0..SENDERS)
        .map(|_| tokio::spawn(send(url.clone(), key.clone(), accepted.clone())))
        .collect();
    let enough = heard.wait_for(|all: &Vec<String>| all.len() >= 10 * BURST);
    drop(timeout(PATIENCE, enough).await.expect("in time").expect("accepted"));
    let url = format!("{}/api/v1/interactions?limit=1", original.web());
    let list = json_of(client.get(url).bearer_auth(&token)).await;
    let cursor = &list["streams"]["tickets"];
    assert!(cursor["offset"].as_u64().is_some_and(|offset| offset > 0), "{cursor}");

    let before = accepted.borrow().clone();
    let said = done(&["backup", &copy, "--data", &data], "");
    original.kill();
    for sender in senders {
        sender.await.expect("ended");
    }
    let files: Vec<_> = said.lines().filter_map(|line| line.split('\t').next()).collect();
    assert_eq!(files, [format!("{copy}/broker/inbound.db"), format!("{copy}/warren.db")]);
    for file in files {
        let mode = std::fs::metadata(file).expect("a file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }

    let restored = up(&copy).start();
    let url = format!("{}/ws", restored.web().replacen("http", "ws", 1));
    let (mut socket, _) = tokio_tungstenite::connect_async(url).await.expect("a socket");
    let hello = json!({"type":"hello","token":token,"resume":{"tickets":cursor}}).to_string();
    socket.send(Message::text(hello)).await.expect("sent");
    let frame = timeout(PATIENCE, socket.next()).await.expect("in time").expect("open");
    let text = frame.expect("a frame").into_text().expect("text");
    let welcome: Value = serde_json::from_str(&text).expect("json");
    assert_eq!(welcome["type"], "welcome", "{welcome}");
    let stream = &welcome["streams"]["tickets"];
    assert_eq!(stream["recovered"], false, "{stream}");
    assert_ne!(stream["epoch"], cursor["epoch"]);

    for id in &before {
        let url = format!("{}/external/events/{id}?wait=decided", restored.external());
        let journey = json_of(client.get(url).bearer_auth(&key)).await;
        assert!(journey["outcome"]["ok"].is_object(), "{journey}");
        let events = journey["events"].as_array().expect("events");
        assert_eq!(events.len(), 1, "{journey}");
    }
    assert_eq!(restored.term(), Some(0));
}

#[test]
fn a_desk_at_rest_is_copied_and_each_copy_begins_a_history_of_its_own() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).to_str().expect("a path").to_owned();
    let data = path("data");
    assert_eq!(up(&data).start().term(), Some(0));
    let key = ["key", "add", "form", "--scopes", "tickets", "--data", &data];
    done(&key, "");
    // An empty folder may be there: a volume, for one.
    std::fs::create_dir(path("copy")).expect("a folder");
    done(&["backup", &path("copy"), "--data", &data], "");
    done(&["backup", &path("second"), "--data", &path("copy")], "");
    for copy in ["copy", "second"] {
        let list = done(&["key", "list", "--data", &path(copy)], "");
        assert_eq!(list, "form\ttickets\tactive", "{copy}");
    }
    assert_eq!(up(&path("second")).start().term(), Some(0));
}

#[test]
fn what_can_not_be_copied_is_refused_and_left_as_it_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).to_str().expect("a path").to_owned();
    let (data, copy) = (path("data"), path("copy"));
    let said = refused(&["backup", &copy, "--data", &data]);
    assert!(said.contains("warren.db"), "{said}");
    assert!(!Path::new(&data).exists() && !Path::new(&copy).exists());

    done(&["key", "add", "form", "--scopes", "tickets", "--data", &data], "");
    let said = refused(&["backup", &data, "--data", &data]);
    assert!(said.contains(&data) && said.contains("not empty"), "{said}");
    std::fs::write(path("file"), "").expect("written");
    assert!(refused(&["backup", &path("file"), "--data", &data]).contains("file"));

    std::fs::create_dir(path("damaged")).expect("a folder");
    std::fs::write(path("damaged/warren.db"), [7; 8_192]).expect("written");
    let said = refused(&["backup", &copy, "--data", &path("damaged")]);
    assert!(said.contains("warren.db"), "{said}");
    let left = std::fs::read_dir(&copy).expect("a folder").count();
    assert_eq!(left, 0, "half a copy");

    let settings = path("warren.toml");
    std::fs::write(&settings, "[profile.a]\nstore.url = \"postgres://u:p@nowhere/x\"\n")
        .expect("written");
    let said = refused(&["backup", &copy, "a", "--config", &settings]);
    assert!(said.contains("pg_dump") && said.contains("epoch"), "{said}");
}

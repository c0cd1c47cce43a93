//! Clients that share no code with Warren: Python's `pika` and `websockets`.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use testkit::rabbit::Cluster;
use testkit::warren::Warren;

const WARREN: &str = env!("CARGO_BIN_EXE_warren");

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace").to_owned()
}

fn python(script: &str, arguments: &[&str]) {
    let python = root().join("target/venv/bin/python");
    assert!(python.exists(), "no {}: run `cargo xtask setup --for test`", python.display());
    let script = root().join("end2end/python").join(script);
    let output = Command::new(python).arg("-B").arg(script).args(arguments).output();
    succeeded(&output.expect("python runs"));
}

fn succeeded(output: &Output) -> String {
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}\n{err}");
    out.trim().to_owned()
}

/// Runs `warren` beside the service, as an operator does.
fn warren(arguments: &[&str], stdin: &str) -> String {
    Warren::command(WARREN).args(arguments).say(stdin)
}

#[test]
fn a_websocket_client_written_from_the_page_works() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let data = data.to_str().expect("a path");
    let service = Warren::command(WARREN)
        .args(["up", "--data", data, "--web", "127.0.0.1:0", "--external", "127.0.0.1:0"])
        .env("WARREN_AGGREGATOR__HEARTBEAT_MS", "500")
        .start();
    let add = ["user", "add", "ana", "--role", "agent", "--password-stdin", "--data", data];
    warren(&add, "correct horse battery");
    let token = warren(&["token", "ana", "--data", data], "");
    let scopes = ["key", "add", "python", "--scopes", "voice,chat,tickets", "--data", data];
    let key = warren(&scopes, "");
    let socket = format!("{}/ws", service.web().replacen("http", "ws", 1));
    python("ws_client.py", &[&socket, &token, &service.external(), &key]);
    assert_eq!(service.term(), Some(0));
}

#[test]
fn a_plain_amqp_client_publishes_and_reads() {
    let cluster = Cluster::start(1).expect("a node");
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("warren.toml");
    let url = cluster.url(0);
    let store = folder.path().join("warren.db");
    let settings = format!(
        "[profile.private]\nbroker.publish_urls = [{url:?}]\nstore.url = \"sqlite://{}\"\n",
        store.display()
    );
    std::fs::write(&config, settings).expect("written");
    let config = config.to_str().expect("a path");
    warren(&["topology", "declare", "private", "--config", config], "");
    let backend = Warren::command(WARREN).args(["backend", "private", "--config", config]).start();
    python("amqp_client.py", &[&url]);
    assert_eq!(backend.term(), Some(0));
}

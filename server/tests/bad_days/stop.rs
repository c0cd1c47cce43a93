//! The desk itself is told to stop, under those who post to it.

use reqwest::StatusCode;
use serde_json::{Value, json};
use testkit::warren::Warren;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::desk::{Desk, PATIENCE, WARREN};

/// A connection that is kept, as integrators do.
struct Line {
    stream: BufReader<TcpStream>,
    key: String,
}

/// A status, and whether the connection ends with it.
#[derive(Debug, PartialEq)]
struct Answer {
    status: u16,
    last: bool,
}

impl Line {
    async fn open(desk: &Desk) -> Self {
        let address = desk.service.external().replace("http://", "");
        let stream = TcpStream::connect(address).await.expect("a connection");
        Self { stream: BufReader::new(stream), key: desk.key.clone() }
    }

    async fn ask(&mut self, request: &str, headers: &str) {
        let key = &self.key;
        let head = format!("{request} HTTP/1.1\r\nhost: desk\r\nauthorization: Bearer {key}\r\n");
        self.send(&format!("{head}{headers}\r\n")).await;
    }

    async fn send(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).await.expect("sent");
    }

    async fn line(&mut self) -> String {
        let mut line = String::new();
        self.stream.read_line(&mut line).await.expect("a line");
        line.trim_end().to_ascii_lowercase()
    }

    async fn answer(&mut self) -> Answer {
        let read = async {
            let first = self.line().await;
            let status = first.split(' ').nth(1).and_then(|word| word.parse().ok());
            let (mut last, mut length) = (false, 0);
            while let Some((name, value)) = self.line().await.split_once(": ") {
                match name {
                    "connection" => last = value == "close",
                    "content-length" => length = value.parse().expect("a number"),
                    _ => {}
                }
            }
            self.stream.read_exact(&mut vec![0; length]).await.expect("a body");
            Answer { status: status.expect("a status"), last }
        };
        timeout(PATIENCE, read).await.expect("an answer")
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_under_way_when_it_stops_is_answered_and_asked_to_go_elsewhere() {
    let folder = tempfile::tempdir().expect("a folder");
    let desk = Desk::from(Warren::command(WARREN), folder, &[]);
    let before = desk.post("before").await;
    assert_eq!(before.status(), StatusCode::ACCEPTED);
    let before: Value = before.json().await.expect("json");
    let journey = before["status_url"].as_str().expect("a path");
    // Nobody ever acts on it: the answer comes because of the stop.
    let mut waiting = Line::open(&desk).await;
    waiting.ask(&format!("GET {journey}?wait=acted&timeout_ms=30000"), "").await;
    let event = json!({ "type": "call.ringing", "call": "during" }).to_string();
    let mut posting = Line::open(&desk).await;
    let length = event.len();
    let headers = format!(
        "content-type: application/json\r\ncontent-length: {length}\r\nexpect: 100-continue\r\n"
    );
    posting.ask("POST /external/voice", &headers).await;
    assert_eq!(posting.answer().await, Answer { status: 100, last: false }, "it has begun");
    let during = async {
        assert_eq!(waiting.answer().await, Answer { status: 200, last: true });
        posting.send(&event).await;
        assert_eq!(posting.answer().await, Answer { status: 202, last: true });
    };
    let desk = desk.stopped_and_started(during).await;
    desk.shows(&["before", "during"]).await;
    assert_eq!(desk.service.term(), Some(0));
}

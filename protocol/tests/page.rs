//! Reads docs/PROTOCOL.md: every example on it is what the code takes and gives.

use std::collections::BTreeSet;

use domain::Channel;
use protocol::{
    Accepted, ClientFrame, CloseCode, DeadLetterView, Heartbeat, InteractionDetail,
    InteractionList, Journey, Problem, ServerFrame, decode_command, decode_external,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

const PAGE: &str = include_str!("../../docs/PROTOCOL.md");

/// The examples of one label: what stands after "json " on the fence.
fn examples(label: &str) -> Vec<Value> {
    let mut found = Vec::new();
    let mut lines = PAGE.lines();
    while let Some(line) = lines.next() {
        if line.strip_prefix("```json ") == Some(label) {
            let text: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
            let text = text.join("\n");
            found.push(serde_json::from_str(&text).unwrap_or_else(|e| panic!("{text}: {e}")));
        }
    }
    assert!(!found.is_empty(), "the page has no example of {label}");
    found
}

fn types(examples: &[Value]) -> BTreeSet<String> {
    examples.iter().map(|one| one["type"].as_str().expect("a type").to_owned()).collect()
}

/// Reads the examples and writes them back: nothing is lost or made up.
fn read_and_written_back<T: DeserializeOwned + Serialize>(label: &str) {
    for example in examples(label) {
        let read: T =
            serde_json::from_value(example.clone()).unwrap_or_else(|e| panic!("{example}: {e}"));
        assert_eq!(serde_json::to_value(&read).expect("json"), example);
    }
}

#[test]
fn every_external_event_of_the_table_has_an_example_that_decodes() {
    let mut shown = BTreeSet::new();
    for channel in Channel::ALL {
        let examples = examples(&format!("external {channel}"));
        for example in &examples {
            decode_external(*channel, example).unwrap_or_else(|e| panic!("{example}: {e:?}"));
        }
        shown.extend(types(&examples));
    }
    let table = PAGE
        .lines()
        .filter(|line| ["| voice |", "| chat |", "| tickets |"].iter().any(|c| line.starts_with(c)))
        .filter_map(|line| line.split('|').nth(2))
        .flat_map(|cell| cell.split(','))
        .map(|name| name.trim().trim_matches('`').to_owned())
        .chain(["notice".to_owned()]);
    assert_eq!(shown, table.collect());
}

#[test]
fn every_command_of_the_table_has_an_example_that_decodes() {
    let examples = examples("command");
    for example in &examples {
        let (command, _) =
            decode_command(example, "").unwrap_or_else(|e| panic!("{example}: {e:?}"));
        assert_eq!(&serde_json::to_value(&command).expect("json"), example);
    }
    let (_, after) = PAGE.split_once("### Commands").expect("a section");
    let (section, _) = after.split_once("```").expect("examples");
    let table = section
        .lines()
        .filter(|line| line.starts_with("| `") && !line.starts_with("| `type`"))
        .filter_map(|line| line.split('|').nth(1))
        .flat_map(|cell| cell.split(','))
        .map(|name| name.trim().trim_matches('`').to_owned());
    assert_eq!(types(&examples), table.collect());
}

#[test]
fn frames_are_read_and_written_back_the_same() {
    for example in examples("client") {
        let read: ClientFrame =
            serde_json::from_value(example.clone()).unwrap_or_else(|e| panic!("{example}: {e}"));
        let written = serde_json::to_value(&read).expect("json");
        assert_eq!(serde_json::from_value::<ClientFrame>(written).expect("a frame"), read);
    }
    read_and_written_back::<ServerFrame>("server");
    let all = ["welcome", "event", "reply", "signal", "gap", "peers", "migrate", "ping"];
    assert_eq!(types(&examples("server")), all.map(str::to_owned).into());
    let all = ["hello", "command", "ack", "signal", "subscribe", "unsubscribe", "pong"];
    assert_eq!(types(&examples("client")), all.map(str::to_owned).into());
}

#[test]
fn bodies_of_the_apis_are_read_and_written_back_the_same() {
    read_and_written_back::<Accepted>("accepted");
    read_and_written_back::<Problem>("problem");
    read_and_written_back::<Journey>("journey");
    read_and_written_back::<Heartbeat>("heartbeat");
    read_and_written_back::<DeadLetterView>("dead");
    for example in examples("list") {
        serde_json::from_value::<InteractionList>(example).expect("a list");
    }
    for example in examples("detail") {
        serde_json::from_value::<InteractionDetail>(example).expect("a detail");
    }
}

#[test]
fn every_close_code_is_on_the_page() {
    for code in CloseCode::ALL {
        let line = format!("| {} | {}", code.code(), code.reason());
        assert!(PAGE.contains(&line), "{line}");
    }
}

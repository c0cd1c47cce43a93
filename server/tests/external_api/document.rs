//! What the API says of itself.

use std::sync::atomic::Ordering;

use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use domain::{Channel, Kind};
use serde_json::{Value, json};
use uuid::Uuid;
use warren::broker::BrokerState;

use crate::{World, table};

#[tokio::test]
async fn health_tells_what_is_down() {
    let world = World::new();
    assert_eq!(world.get("/readyz").await.body, json!({"ready":true,"broker":"up","store":"up"}));
    world.broker.set_state(BrokerState::Blocked("disk".into()));
    world.store.down.store(true, Ordering::SeqCst);
    let answer = world.get("/readyz").await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.body, json!({"ready":false,"broker":"blocked","store":"down"}));
    assert_eq!(world.get("/healthz").await.status, StatusCode::OK);
}

#[tokio::test]
async fn the_document_and_the_router_agree_on_every_method() {
    let world = World::new();
    let document = world.get("/openapi.json").await.body;
    let paths = document["paths"].as_object().expect("paths");
    for (path, operations) in paths {
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
            let described = operations.get(method.to_lowercase()).is_some();
            let request = Request::builder()
                .method(Method::from_bytes(method.as_bytes()).expect("a method"))
                .uri(path.replace("{id}", &Uuid::nil().to_string()));
            let answer = world.ask(request.body(Body::empty()).expect("a request")).await;
            let served = answer.status != StatusCode::METHOD_NOT_ALLOWED;
            assert_eq!(served, described, "{method} {path}");
        }
    }
}

#[tokio::test]
async fn the_document_is_whole_and_its_examples_are_accepted() {
    let world = World::new();
    let document = world.get("/openapi.json").await.body;
    assert!(document["openapi"].as_str().is_some_and(|version| version.starts_with("3.1")));
    assert_eq!(document["components"]["securitySchemes"]["key"]["scheme"], "bearer");
    let mut references = Vec::new();
    collect(&document, &mut references);
    assert!(references.len() > 50);
    for reference in references {
        let pointer = reference.strip_prefix('#').expect("inside the document");
        assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
    }
    let schemas = document["components"]["schemas"].as_object().expect("schemas");
    let mut kinds = Vec::new();
    for channel in Channel::ALL {
        let operation = &document["paths"][format!("/external/{channel}")]["post"];
        for status in ["202", "207", "400", "401", "403", "408", "413", "415", "422", "429", "503"]
        {
            assert!(!operation["responses"][status].is_null(), "{channel} {status}");
        }
        let body = &operation["requestBody"]["content"]["application/json"]["schema"]["$ref"];
        let name = body.as_str().and_then(|text| text.rsplit('/').next()).expect("a schema");
        let events = schemas[name]["oneOf"][0]["oneOf"].as_array().expect("events");
        for event in events {
            let name = event["$ref"].as_str().and_then(|text| text.rsplit('/').next());
            let schema = &schemas[name.expect("a name")];
            let example = &schema["examples"][0];
            let answer = world.post(&format!("/external/{channel}"), example.to_string()).await;
            assert_eq!(answer.status, StatusCode::ACCEPTED, "{example}: {}", answer.body);
            kinds.push(example["type"].as_str().expect("a type").to_owned());
        }
    }
    kinds.sort();
    kinds.dedup();
    let mut known: Vec<String> =
        table().iter().filter_map(|(_, body)| body["type"].as_str().map(str::to_owned)).collect();
    known.sort();
    known.dedup();
    assert_eq!(kinds, known, "every type of the table is described");
    assert_eq!(Kind::ALL.len(), Channel::ALL.len());
}

fn collect(value: &Value, references: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            for (name, value) in map {
                match value.as_str() {
                    Some(text) if name == "$ref" => references.push(text.to_owned()),
                    _ => collect(value, references),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, references)),
        _ => {}
    }
}

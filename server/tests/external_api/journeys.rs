//! Where an event has got to, and who may ask.

use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use domain::Timestamp;
use protocol::{Journey, Outcome, ReplyError, Stage};
use serde_json::json;
use uuid::Uuid;
use warren::external_api::Config;
use warren::store::Receipt;

use crate::{NOTICE, NOW, World};

#[tokio::test(start_paused = true)]
async fn a_journey_is_told_before_it_is_decided() {
    let world = World::new();
    let id = world.post("/external/chat", NOTICE).await.id();
    let answer = world.get(&format!("/external/events/{id}")).await;
    assert_eq!(answer.status, StatusCode::OK);
    let journey: Journey = serde_json::from_value(answer.body).expect("a journey");
    assert_eq!(journey.status, Stage::Brokered);
    let stages: Vec<_> = journey.stages.iter().map(|one| one.stage).collect();
    assert_eq!(stages, [Stage::Accepted, Stage::Brokered]);
    let mut stored = world.store.recorded();
    stored.wait_for(|all| all.len() == 2).await.expect("written");
    world.receipts.drain().await;
    let answer = world.get(&format!("/external/events/{id}")).await;
    assert_eq!(answer.body["status"], "brokered", "told by the store now");
    world.get("/external/events/x?wait=soon").await.problem(400);
    world.get(&format!("/external/events/{id}?wait=sent&timeout_ms=x")).await.problem(400);
    let request = Request::get(format!("/external/events/{id}")).body(Body::empty());
    world.ask(request.expect("a request")).await.problem(401);
}

#[tokio::test(start_paused = true)]
async fn a_journey_is_there_for_the_integration_that_sent_its_event_alone() {
    let world = World::new();
    let sender = [("authorization", "Bearer wk_voice")];
    let id = world.post_with("/external/voice", &sender, NOTICE).await.id();
    let url = format!("/external/events/{id}");
    let mut stored = world.store.recorded();
    // Told by this process at first, then by the store.
    for _ in 0..2 {
        assert_eq!(world.get_by("wk_voice", &url).await.body["status"], "brokered");
        world.get(&url).await.problem(404);
        let begun = tokio::time::Instant::now();
        let wait = format!("{url}?wait=brokered&timeout_ms=700");
        assert_eq!(world.get_by("wk_voice", &wait).await.body["status"], "brokered");
        assert!(begun.elapsed().is_zero());
        world.get(&wait).await.problem(404);
        assert_eq!(begun.elapsed().as_millis(), 700, "as long as for one that isn't there");
        stored.wait_for(|all| all.len() == 2).await.expect("written");
        world.receipts.drain().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_wait_ends_when_the_stage_is_reached_here_or_elsewhere() {
    let world = World::new();
    let id = world.post("/external/chat", NOTICE).await.id();
    let url = format!("/external/events/{id}?wait=rendered&timeout_ms=20000");
    let begun = tokio::time::Instant::now();
    let tell = async {
        tokio::time::sleep(Duration::from_millis(5)).await;
        let at = Timestamp::from_millis(NOW * 1_000 + 5);
        world.receipts.note(Receipt {
            cause: id.0,
            stage: Stage::Received,
            at,
            integration: None,
            agent: None,
            count: 1,
        });
        world.receipts.note(Receipt {
            cause: id.0,
            stage: Stage::Rendered,
            at,
            integration: None,
            agent: None,
            count: 1,
        });
    };
    let (answer, ()) = tokio::join!(world.get(&url), tell);
    assert_eq!(answer.body["status"], "rendered");
    assert!(begun.elapsed() < Duration::from_millis(25), "told by the receipt, not by a poll");

    let other = Uuid::from_u128(9);
    let tell = async {
        tokio::time::sleep(Duration::from_secs(3)).await;
        world.store.set_journey(other, &[Stage::Accepted, Stage::Decided], None);
    };
    let url = format!("/external/events/{other}?wait=decided");
    let (answer, ()) = tokio::join!(world.get(&url), tell);
    assert_eq!(answer.body["status"], "decided");
}

#[tokio::test(start_paused = true)]
async fn a_wait_ends_when_time_is_up_or_nothing_more_will_come() {
    let world = World::new();
    let id = world.post("/external/chat", NOTICE).await.id();
    let begun = tokio::time::Instant::now();
    let answer = world.get(&format!("/external/events/{id}?wait=sent&timeout_ms=700")).await;
    assert_eq!((answer.status, &answer.body["status"]), (StatusCode::OK, &json!("brokered")));
    assert_eq!(begun.elapsed().as_millis(), 700);
    let unknown = Uuid::from_u128(3);
    world
        .get(&format!("/external/events/{unknown}?wait=sent&timeout_ms=99999999"))
        .await
        .problem(404);
    assert!(begun.elapsed() < Duration::from_secs(31));
    let refused = ReplyError {
        code: "not_found".into(),
        message: "no".into(),
        temporary: false,
        pointer: None,
    };
    world.store.set_journey(id.0, &[Stage::Decided], Some(Outcome::Error(refused)));
    let begun = tokio::time::Instant::now();
    let answer = world.get(&format!("/external/events/{id}?wait=sent")).await;
    assert_eq!(answer.body["outcome"]["error"]["code"], "not_found");
    assert!(begun.elapsed().is_zero());
    world.stopping.cancel();
    let answer = world.get(&format!("/external/events/{}?wait=sent", Uuid::from_u128(4))).await;
    answer.problem(404);
    assert!(begun.elapsed().is_zero());
}

#[tokio::test(start_paused = true)]
async fn those_who_wait_are_bounded() {
    let world = World::with(Config { waiters_max: 1, ..Config::default() });
    let id = world.post("/external/chat", NOTICE).await.id();
    let url = format!("/external/events/{id}?wait=sent&timeout_ms=1000");
    let (first, second) = tokio::join!(world.get(&url), world.get(&url));
    assert_eq!(first.status, StatusCode::OK);
    second.problem(429);
}

//! Aggregators and their clients in one process: what a client may do, what
//! it is spared, and how it moves on.

mod bench;
mod crowd;
mod desk;

use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Router;
use domain::{Channel, Timestamp};
use serde_json::{Value, json};
use sqlx::SqlitePool;
use tokio::net::TcpListener;
use uuid::Uuid;
use warren::aggregator::{Config, channel_router};

use desk::{Client, Desk, PATIENCE, begin, serve};

fn quick() -> Config {
    Config { heartbeat: Duration::from_millis(100), ..Config::default() }
}

fn presence(presence: &str) -> Value {
    json!({ "type": "set_presence", "presence": presence })
}

fn started(chat: &str) -> Value {
    json!({ "type": "chat.started", "chat": chat, "contact": { "name": "Ines" } })
}

fn is_reply(frame: &&Value, id: &Uuid) -> bool {
    frame["type"] == "reply" && frame["id"] == json!(id)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acks_of_what_was_sent_are_free_and_a_flood_is_not() {
    let desk = Desk::start().await;
    let node = desk.aggregator(Config::default()).await;
    let (mut client, _) = node.client("/ws", &desk.tokens[0], json!({})).await;
    desk.notices("chat", 1_000, "hello").await;
    for _ in 0..1_000 {
        let offset = client.next("event").await["offset"].clone();
        let ack = json!({ "type": "ack", "channel": "chat", "offset": offset });
        client.send(&ack).await;
    }
    let id = Uuid::now_v7();
    client.command(&id, &presence("busy"), None).await;
    assert!(client.reply(&id).await.get("ok").is_some());
    let signal = json!({ "type": "typing", "interaction_id": Uuid::nil() });
    client.flood(&json!({ "type": "signal", "signal": signal }), 1_000).await;
    assert_eq!(client.code().await, 4506);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_sent_again_before_its_reply_gets_one_reply() {
    let desk = Desk::start().await;
    let node = desk.aggregator(Config::default()).await;
    let (mut client, _) = node.client("/ws", &desk.tokens[0], json!({})).await;
    desk.broker.replies.shut();
    let (id, after) = (Uuid::now_v7(), Uuid::now_v7());
    for _ in 0..3 {
        client.command(&id, &presence("busy"), None).await;
    }
    desk.broker.publishes.came(3).await;
    // A fourth time it can't be published: said at once, and the reply that
    // is on its way comes all the same.
    desk.broker.down.store(true, Ordering::SeqCst);
    client.command(&id, &presence("busy"), None).await;
    let refused = client.reply(&id).await;
    assert_eq!(refused["error"]["code"], "unavailable", "{refused}");
    assert_eq!(refused["error"]["temporary"], true);
    desk.broker.down.store(false, Ordering::SeqCst);
    client.command(&after, &presence("available"), None).await;
    desk.broker.publishes.came(5).await;
    desk.broker.replies.open();
    // Replies of one partition come in order: behind this one there is none.
    client.reply(&after).await;
    let replies: Vec<_> = client.passed.iter().filter(|frame| is_reply(frame, &id)).collect();
    assert_eq!(replies.len(), 1, "{replies:?}");
    assert!(replies[0].get("ok").is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_through_two_aggregators_has_one_effect_and_its_first_reply() {
    let desk = Desk::start().await;
    let (node, other) =
        (desk.aggregator(Config::default()).await, desk.aggregator(Config::default()).await);
    let (mut first, _) = node.client("/ws", &desk.tokens[0], json!({})).await;
    let (mut second, _) = other.client("/ws", &desk.tokens[0], json!({})).await;
    desk.post("chat", &started("c-1")).await;
    let interaction = first.next("event").await["event"]["interaction_id"].clone();
    let note = json!({ "type": "add_note", "interaction_id": interaction, "text": "Called." });
    let [lost, both, after] = [(); 3].map(|()| Uuid::now_v7());

    // It is done, and the connection that asked for it never hears so.
    desk.broker.replies.shut();
    first.command(&lost, &note, None).await;
    first.until("its effect", |frame| frame["event"]["cause"] == json!(lost)).await;
    drop(first);
    desk.broker.replies.open();
    second.command(&lost, &note, None).await;
    assert_eq!(second.reply(&lost).await["ok"]["version"], 2);

    // Neither is decided when the other one comes.
    let (mut first, _) = node.client("/ws", &desk.tokens[0], json!({})).await;
    desk.broker.publishes.shut();
    first.command(&both, &note, None).await;
    second.command(&both, &note, None).await;
    // The chat's beginning, twice the one that was lost, and these two.
    desk.broker.publishes.came(5).await;
    desk.broker.publishes.open();
    let replies = [first.reply(&both).await, second.reply(&both).await];
    assert_eq!(replies[0]["ok"]["version"], 3, "{replies:?}");
    assert_eq!(replies[0], replies[1]);

    second.command(&after, &note, None).await;
    assert_eq!(second.reply(&after).await["ok"]["version"], 4);
    let caused = |id: Uuid| {
        second.passed.iter().filter(|frame| frame["event"]["cause"] == json!(id)).count()
    };
    assert_eq!([lost, both].map(caused), [1, 1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_that_are_stuck_hold_up_nothing_else() {
    let desk = Desk::start().await;
    let node = desk.aggregator(quick()).await;
    let (mut client, _) = node.client("/ws", &desk.tokens[0], json!({})).await;
    for round in 0..2 {
        desk.broker.announcements.shut();
        desk.notices("chat", 1, "while it is stuck").await;
        desk.broker.publishes.shut();
        let ids: Vec<Uuid> = (0..100).map(|_| Uuid::now_v7()).collect();
        for id in &ids {
            client.command(id, &presence("busy"), None).await;
        }
        desk.broker.announcements.open();
        client.next("event").await;
        for _ in 0..5 {
            client.next("ping").await;
        }
        if round == 0 {
            desk.broker.publishes.open();
            for id in &ids {
                assert!(client.reply(id).await.get("ok").is_some());
            }
        }
    }
    node.stop.cancel();
    assert_eq!(client.code().await, 4000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_is_decided_too_late_says_so_and_does_nothing() {
    let desk = Desk::start().await;
    let node = desk.aggregator(Config::default()).await;
    let (mut client, _) = node.client("/ws", &desk.tokens[0], json!({})).await;
    desk.post("chat", &started("c-1")).await;
    let interaction = client.next("event").await["event"]["interaction_id"].clone();
    let take = json!({ "type": "take", "interaction_id": interaction });
    desk.broker.publishes.shut();
    let (late, again) = (Uuid::now_v7(), Uuid::now_v7());
    client.command(&late, &take, Some(1_000)).await;
    desk.broker.publishes.came(2).await;
    desk.clock.set(Timestamp::from_millis(begin().as_millis() + 1_001));
    desk.broker.publishes.open();
    let reply = client.reply(&late).await;
    assert_eq!(reply["error"]["code"], "deadline_exceeded", "{reply}");
    assert_eq!(reply["error"]["temporary"], false);
    // The next one finds the chat as it was.
    client.command(&again, &take, Some(1_000)).await;
    assert_eq!(client.reply(&again).await["ok"]["version"], 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agents_events_carry_the_trace_that_their_command_began() {
    let desk = Desk::start().await;
    let node = desk.aggregator(Config::default()).await;
    let (mut client, _) = node.client("/ws", &desk.tokens[0], json!({})).await;
    let at = "2026-09-21T12:00:00.000Z";
    let mut event = started("c-1");
    event["at"] = json!(at);
    desk.post("chat", &event).await;
    let event = client.next("event").await["event"].clone();
    assert_eq!(event["occurred_at"], at, "{event}");
    let take = json!({ "type": "take", "interaction_id": event["interaction_id"] });
    client.command(&Uuid::now_v7(), &take, None).await;
    let event = client.next("event").await["event"].clone();
    let trace = event["trace"].as_str().expect("a trace");
    assert!(trace.starts_with("00-") && trace.len() == 55, "{trace}");
    assert_eq!(event.get("occurred_at"), None, "an agent's event happens when it is decided");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socket_of_one_channel_hears_of_that_channel_alone() {
    let desk = Desk::start().await;
    let (node, other) =
        (desk.aggregator(Config::default()).await, desk.aggregator(Config::default()).await);
    let mut roster = node.members.roster();
    roster.wait_for(|roster| roster.aggregators(None).len() == 2).await.expect("both");
    let chat = json!({ "channels": ["chat"] });
    let (mut ana, _) = node.client("/ws", &desk.tokens[0], json!({})).await;
    let (mut ben, welcome) = node.client("/ws/voice", &desk.tokens[1], json!({})).await;
    let (mut cem, _) = node.client("/ws", &desk.tokens[2], chat).await;
    let mut peers: Vec<String> = serde_json::from_value(welcome["peers"].clone()).expect("urls");
    peers.sort();
    let mut voice = [node.url("/ws/voice"), other.url("/ws/voice")];
    voice.sort();
    assert_eq!(peers, voice);

    // A signal about a call isn't for who follows chats, nor one about a chat
    // for who follows calls.
    desk.post("voice", &json!({ "type": "call.ringing", "call": "p-1" })).await;
    desk.post("chat", &started("c-1")).await;
    let call = ben.next("event").await["event"]["interaction_id"].clone();
    let talk = cem.next("event").await["event"]["interaction_id"].clone();
    for interaction in [&call, &talk] {
        let signal = json!({ "type": "viewing", "interaction_id": interaction });
        ana.send(&json!({ "type": "signal", "signal": signal })).await;
    }
    let id = Uuid::now_v7();
    ana.command(&id, &presence("busy"), None).await;
    for client in [&mut ana, &mut ben, &mut cem] {
        let is_presence = |frame: &Value| frame["signal"]["type"] == "presence";
        client.until("presence", is_presence).await;
    }
    let seen = |client: &Client| -> Vec<Value> {
        let signals = client.passed.iter().filter(|frame| frame["type"] == "signal");
        signals.map(|frame| frame["signal"]["interaction_id"].clone()).collect()
    };
    assert_eq!(seen(&ana), [call.clone(), talk.clone()]);
    assert_eq!(seen(&ben), [call]);
    assert_eq!(seen(&cem), [talk]);

    // Lists of peers and the word to leave are for the channel as well.
    let third = desk.aggregator(Config::default()).await;
    let urls = |peers: &Value| -> Vec<String> {
        serde_json::from_value(peers["urls"].clone()).expect("urls")
    };
    assert!(urls(&ben.next("peers").await).contains(&third.url("/ws/voice")));
    assert!(urls(&ana.next("peers").await).contains(&third.url("/ws")));
    node.stop.cancel();
    let to = ben.next("migrate").await["to"].clone();
    assert!([other.url("/ws/voice"), third.url("/ws/voice")].map(Value::from).contains(&to));
    let to = ana.next("migrate").await["to"].clone();
    assert!([other.url("/ws"), third.url("/ws")].map(Value::from).contains(&to));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_is_told_to_move_opens_the_new_socket_first_and_misses_nothing() {
    let desk = Desk::start().await;
    let (node, other) =
        (desk.aggregator(Config::default()).await, desk.aggregator(Config::default()).await);
    let mut roster = node.members.roster();
    roster.wait_for(|roster| roster.aggregators(None).len() == 2).await.expect("both");
    let (mut before, welcome) = node.client("/ws", &desk.tokens[0], json!({})).await;
    let epoch = welcome["streams"]["chat"]["epoch"].clone();
    desk.notices("chat", 5, "before").await;
    for offset in 1..=5 {
        assert_eq!(before.next("event").await["offset"], offset);
    }
    node.stop.cancel();
    let migrate = before.next("migrate").await;
    assert_eq!(migrate["to"], other.url("/ws"));
    // It is served until it goes.
    desk.notices("chat", 5, "during").await;
    for offset in 6..=10 {
        assert_eq!(before.next("event").await["offset"], offset);
    }
    let mut after = Client::open(migrate["to"].as_str().expect("a url")).await;
    let resume = json!({ "resume": { "chat": { "epoch": epoch, "offset": 8 } } });
    let welcome = after.hello(&desk.tokens[0], resume).await;
    let chat = &welcome["streams"]["chat"];
    assert_eq!((&chat["recovered"], &chat["replayed"]), (&json!(true), &json!(2)));
    drop(before);
    desk.notices("chat", 5, "after").await;
    for offset in 9..=15 {
        assert_eq!(after.next("event").await["offset"], offset);
    }
    // Who comes late is sent on.
    assert_eq!(Client::open(&node.url("/ws")).await.code().await, 4000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_port_of_a_channel_serves_it_and_all_of_them() {
    let desk = Desk::start().await;
    let node = desk.aggregator(Config::default()).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let base = format!("ws://{}", listener.local_addr().expect("an address"));
    let router: Router = channel_router(node.aggregator.clone(), Channel::Chat);
    serve(listener, router);
    for (path, streams) in [
        ("/", &["chat"][..]),
        ("/ws", &["chat"]),
        ("/ws/chat", &["chat"]),
        ("/ws/all", &["chat", "tickets", "voice"]),
    ] {
        let mut client = Client::open(&format!("{base}{path}")).await;
        let welcome = client.hello(&desk.tokens[0], json!({})).await;
        let mut carried: Vec<_> = welcome["streams"].as_object().expect("streams").keys().collect();
        carried.sort();
        assert_eq!(carried, streams, "{path}");
    }
    assert!(Client::try_open(&format!("{base}/ws/voice")).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hole_in_the_journal_is_told_and_then_passed() {
    let desk = Desk::start().await;
    let node = desk.aggregator(Config::default()).await;
    let (mut client, welcome) = node.client("/ws", &desk.tokens[0], json!({})).await;
    let epoch = welcome["streams"]["chat"]["epoch"].clone();
    let database = SqlitePool::connect(&desk.database).await.expect("the database");
    desk.broker.announcements.shut();
    desk.notices("chat", 1, "lost").await;
    desk.broker.announcements.came(1).await;
    // Recorded, on its way out, and then it never was.
    sqlx::query("DELETE FROM journal").execute(&database).await.expect("deleted");
    desk.broker.forgets.store(true, Ordering::SeqCst);
    desk.broker.announcements.open();
    let lost = async {
        let mut look = tokio::time::interval(Duration::from_millis(10));
        while !node
            .members
            .roster()
            .borrow()
            .members
            .values()
            .any(|member| member.positions.get(&Channel::Chat) == Some(&1))
        {
            look.tick().await;
        }
    };
    tokio::time::timeout(PATIENCE, lost).await.expect("announced into nothing");
    desk.broker.forgets.store(false, Ordering::SeqCst);
    desk.notices("chat", 1, "kept").await;
    assert_eq!(client.code().await, 4004);
    assert!(client.passed.iter().all(|frame| frame["type"] != "event"), "{:?}", client.passed);
    let resume = json!({ "resume": { "chat": { "epoch": epoch, "offset": 0 } } });
    let (mut client, welcome) = node.client("/ws", &desk.tokens[0], resume).await;
    let chat = &welcome["streams"]["chat"];
    assert_eq!((&chat["recovered"], &chat["offset"]), (&json!(false), &json!(2)));
    desk.notices("chat", 1, "next").await;
    assert_eq!(client.next("event").await["offset"], 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn null_is_absent_and_a_channel_that_is_held_has_no_gap() {
    let desk = Desk::start().await;
    let node = desk.aggregator(Config::default()).await;
    let nothing = json!({ "resume": null, "channels": null, "client": null });
    let (mut client, welcome) = node.client("/ws", &desk.tokens[0], nothing).await;
    assert_eq!(welcome["streams"].as_object().map(serde_json::Map::len), Some(3));
    client.send(&json!({ "type": "pong", "positions": null })).await;
    client.send(&json!({ "type": "subscribe", "channels": ["voice", "chat"] })).await;
    client.send(&json!({ "type": "unsubscribe", "channels": ["chat"] })).await;
    client.send(&json!({ "type": "subscribe", "channels": ["chat"] })).await;
    assert_eq!(client.next("gap").await["channel"], "chat");
    assert!(client.passed.iter().all(|frame| frame["type"] != "gap"), "{:?}", client.passed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_for_some_is_seen_by_those() {
    let desk = Desk::start().await;
    let node = desk.aggregator(Config::default()).await;
    let mut clients = Vec::new();
    for token in &desk.tokens {
        clients.push(node.client("/ws", token, json!({})).await.0);
    }
    let mut some = started("c-1");
    some["distribution"] = json!({ "multicast": ["ana", "ben"] });
    desk.post("chat", &some).await;
    desk.notices("chat", 1, "for all").await;
    for (client, offset) in clients.iter_mut().zip([1, 1, 2]) {
        assert_eq!(client.next("event").await["offset"], offset);
    }
}

//! The store's story, told to SQLite and to a real PostgreSQL.

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use domain::{
    Channel, Contact, Distribution, Event, EventId, Interaction, InteractionId, Kind, Login,
    Presence, Recorded, Role, Timestamp, apply,
};
use protocol::{Outcome, Principal, Stage, View};
use testkit::postgres::Postgres;
use uuid::Uuid;
use warren::store::{
    self, AgentRecord, Changed, Commit, Config, Decided, Integration, ListQuery, NewEvent,
    PresenceChange, Receipt, Store, StoreError,
};

/// One server for all tests, stopped with this process.
static SERVER: LazyLock<Mutex<Postgres>> =
    LazyLock::new(|| Mutex::new(Postgres::start().expect("PostgreSQL")));

async fn open(url: &str) -> Result<Arc<dyn Store>, StoreError> {
    store::open(&Config { url: url.to_owned(), max_connections: 8 }).await
}

fn sqlite_url() -> String {
    // The folder goes with the system's temporary files.
    let folder = tempfile::tempdir().expect("a folder").keep();
    format!("sqlite://{}", folder.join("warren.db").display())
}

fn postgres_url() -> String {
    let name = format!("t{}", Uuid::now_v7().simple());
    let server = SERVER.lock().unwrap_or_else(PoisonError::into_inner);
    server.create_database(&name).expect("a database");
    server.url(&name)
}

macro_rules! tell {
    ($($name:ident),+ $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                let url = super::sqlite_url();
                super::$name(super::open(&url).await.expect("a store"), &url).await;
            })+
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                let url = super::postgres_url();
                super::$name(super::open(&url).await.expect("a store"), &url).await;
            })+
        }
    };
}

tell!(
    offsets_are_dense_however_many_commit_at_once,
    what_is_stale_writes_nothing,
    the_outbox_empties_in_order,
    each_sees_what_is_theirs_to_see,
    pages_have_no_holes_and_no_doubles,
    a_contact_is_one_however_many_ask_at_once,
    there_is_one_first_agent,
    sessions_end_with_their_time_and_their_agent,
    keys_are_unique_and_revoked,
    journeys_keep_the_first_time_and_add_up_counts,
    what_is_due_is_found_and_what_is_old_goes,
    all_is_there_after_reopening,
);

fn now() -> Timestamp {
    Timestamp::from_millis(1_769_860_800_000)
}

fn login(text: &str) -> Login {
    text.parse().expect("a login")
}

/// A ticket as the backend would make it.
struct Made {
    state: Interaction,
    commit: Commit,
}

fn ticket(name: &str, distribution: &Distribution, at: Timestamp) -> Made {
    let event = Event::TicketOpened {
        ticket: name.into(),
        subject: name.into(),
        body: "body".into(),
        priority: domain::Priority::Medium,
        requester: Contact::default(),
        queue: Some("mail".into()),
        tags: Vec::new(),
        by: None,
    };
    let id = InteractionId::derive("form", Kind::Ticket, name);
    next(None, id, event, Some(distribution.clone()), at, false)
}

fn next(
    state: Option<Interaction>,
    id: InteractionId,
    event: Event,
    distribution: Option<Distribution>,
    at: Timestamp,
    by_agent: bool,
) -> Made {
    let from_version = state.as_ref().map_or(0, |state| state.version);
    let recorded = Recorded {
        occurred_at: None,
        id: EventId(Uuid::now_v7()),
        cause: Uuid::now_v7(),
        at,
        interaction_id: Some(id),
        version: Some(from_version + 1),
        trace: None,
        integration: (from_version == 0).then(|| "form".to_owned()),
        distribution: distribution.clone(),
        event,
    };
    let state = apply(state, &recorded).expect("a state");
    let commit = Commit {
        decided: vec![Decided {
            id: recorded.cause,
            integration: "form".to_owned(),
            outcome: Outcome::Ok(serde_json::json!({ "version": from_version + 1 })),
            at,
        }],
        changed: vec![Changed { interaction: state.clone(), partition: 1, from_version }],
        events: vec![NewEvent {
            id: recorded.id,
            kind: recorded.event.name(),
            channel: Channel::Tickets,
            partition: 1,
            cause: recorded.cause,
            by_agent,
            interaction: Some((id, from_version + 1)),
            distribution: state.distribution.clone(),
            trace: None,
            body: serde_json::to_string(&recorded).expect("json"),
            at,
        }],
        presences: Vec::new(),
    };
    Made { state, commit }
}

fn query(viewer: &str, view: View) -> ListQuery {
    ListQuery { viewer: login(viewer), channel: None, view, queue: None, cursor: None, limit: 200 }
}

async fn names(store: &dyn Store, query: &ListQuery) -> Vec<String> {
    let list = store.interactions(query).await.expect("a list");
    list.interactions.into_iter().map(|one| one.external_id).collect()
}

fn agent(name: &str) -> AgentRecord {
    let principal = Principal {
        id: Uuid::now_v7(),
        login: login(name),
        name: name.to_uppercase(),
        role: Role::Agent,
    };
    AgentRecord { principal, password_hash: "$argon2id$…".into(), disabled: false }
}

async fn offsets_are_dense_however_many_commit_at_once(store: Arc<dyn Store>, _url: &str) {
    let mut tasks = Vec::new();
    for task in 0..8 {
        let store = store.clone();
        tasks.push(tokio::spawn(async move {
            let mut offsets = Vec::new();
            for turn in 0..20 {
                let made = ticket(&format!("{task}-{turn}"), &Distribution::Broadcast, now());
                offsets.extend(store.commit(&made.commit).await.expect("committed"));
                // What can be read is whole, whenever it is read.
                let rows = store.journal(Channel::Tickets, 0, 1_000).await.expect("rows");
                let read: Vec<u64> = rows.iter().map(|row| row.offset).collect();
                assert_eq!(read, (1..=read.len() as u64).collect::<Vec<_>>());
                let list = store.interactions(&query("ana", View::All)).await.expect("a list");
                let head = list.streams[&Channel::Tickets].offset;
                assert_eq!(list.interactions.len() as u64, head.min(200), "of one moment");
            }
            offsets
        }));
    }
    let mut offsets = Vec::new();
    for task in tasks {
        offsets.extend(task.await.expect("a task"));
    }
    offsets.sort_unstable();
    assert_eq!(offsets, (1..=160).collect::<Vec<u64>>());
    let heads = store.heads().await.expect("heads");
    assert_eq!(heads[&Channel::Tickets].offset, 160);
    assert_eq!(heads[&Channel::Voice].offset, 0);
    assert_eq!(heads[&Channel::Voice].epoch, store.epoch());
}

async fn what_is_stale_writes_nothing(store: Arc<dyn Store>, _url: &str) {
    let made = ticket("t-1", &Distribution::Broadcast, now());
    store.commit(&made.commit).await.expect("committed");
    let again = store.commit(&made.commit).await.expect_err("decided already");
    assert!(matches!(again, StoreError::Stale), "{again:?}");
    let other = ticket("t-1", &Distribution::Broadcast, now());
    let stale = store.commit(&other.commit).await.expect_err("there is one already");
    assert!(matches!(stale, StoreError::Stale), "{stale:?}");
    assert_eq!(store.journal(Channel::Tickets, 0, 10).await.expect("rows").len(), 1);
    let cause = other.commit.decided[0].id;
    assert!(store.outcomes(&[cause]).await.expect("outcomes").is_empty());
    let known = store.outcomes(&[made.commit.decided[0].id]).await.expect("outcomes");
    assert_eq!(known.len(), 1);
    let loaded = store.load(&[made.state.id]).await.expect("states");
    assert_eq!(loaded[&made.state.id], made.state);
}

async fn the_outbox_empties_in_order(store: Arc<dyn Store>, _url: &str) {
    for turn in 0..5 {
        let made = ticket(&format!("t-{turn}"), &Distribution::Broadcast, now());
        store.commit(&made.commit).await.expect("committed");
    }
    let rows = store.outbox(Channel::Tickets, &[0, 1], 3).await.expect("rows");
    assert_eq!(rows.iter().map(|row| row.offset).collect::<Vec<_>>(), [1, 2, 3]);
    assert!(store.outbox(Channel::Tickets, &[2], 3).await.expect("rows").is_empty());
    store.announced(Channel::Tickets, &[1, 2, 4]).await.expect("marked");
    let rows = store.outbox(Channel::Tickets, &[1], 9).await.expect("rows");
    assert_eq!(rows.iter().map(|row| row.offset).collect::<Vec<_>>(), [3, 5]);
    let rows = store.journal(Channel::Tickets, 3, 9).await.expect("rows");
    let ids = store.journal_ids(Channel::Tickets, 3, 9).await.expect("rows");
    let wanted = rows.iter().map(|row| (row.offset, row.id, row.partition));
    assert!(ids.iter().map(|id| (id.offset, id.id, id.partition)).eq(wanted));
    assert_eq!(rows.iter().map(|row| row.offset).collect::<Vec<_>>(), [4, 5]);
}

async fn each_sees_what_is_theirs_to_see(store: Arc<dyn Store>, _url: &str) {
    let both = Distribution::Multicast(vec![login("ana"), login("ben")]);
    let open = ticket("open", &Distribution::Broadcast, now());
    for made in [
        &open,
        &ticket("for-ana", &Distribution::Direct(login("ana")), now()),
        &ticket("for-both", &both, now()),
    ] {
        store.commit(&made.commit).await.expect("committed");
    }
    let seen = |viewer: &'static str| {
        let store = store.clone();
        async move {
            let names = names(&*store, &query(viewer, View::Open)).await;
            names.into_iter().collect::<BTreeSet<_>>()
        }
    };
    let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(seen("ana").await, set(&["open", "for-ana", "for-both"]));
    assert_eq!(seen("ben").await, set(&["open", "for-both"]));
    assert_eq!(seen("cleo").await, set(&["open"]));
    let hidden = InteractionId::derive("form", Kind::Ticket, "for-ana");
    assert!(store.interaction(hidden, &login("ben")).await.expect("read").is_none());
    let found = store.interaction(hidden, &login("ana")).await.expect("read").expect("hers");
    assert_eq!((found.timeline.len(), found.interaction.version), (1, 1));

    let assigned = Event::Assigned { agent: Some(login("ana")), by: login("ana") };
    let mine = next(Some(open.state.clone()), open.state.id, assigned, None, now(), true);
    store.commit(&mine.commit).await.expect("committed");
    assert_eq!(names(&*store, &query("ana", View::Mine)).await, ["open"]);
    assert!(names(&*store, &query("ben", View::Mine)).await.is_empty());
    assert_eq!(names(&*store, &query("cleo", View::Unassigned)).await, Vec::<String>::new());
    let other = ListQuery { queue: Some("phone".into()), ..query("ana", View::All) };
    assert!(names(&*store, &other).await.is_empty());
    let voice = ListQuery { channel: Some(Channel::Voice), ..query("ana", View::All) };
    assert!(names(&*store, &voice).await.is_empty());
}

async fn pages_have_no_holes_and_no_doubles(store: Arc<dyn Store>, _url: &str) {
    for turn in 0..25 {
        // Several of one moment: the id decides.
        let at = now().plus(Duration::from_millis(turn / 4));
        let made = ticket(&format!("t-{turn}"), &Distribution::Broadcast, at);
        store.commit(&made.commit).await.expect("committed");
    }
    let mut query = ListQuery { limit: 7, ..query("ana", View::All) };
    let mut seen = Vec::new();
    loop {
        let page = store.interactions(&query).await.expect("a page");
        seen.extend(page.interactions.iter().map(|one| (one.updated_at, one.id)));
        query.cursor = page.next_cursor.map(|text| text.parse().expect("a place"));
        if query.cursor.is_none() {
            break;
        }
    }
    assert_eq!(seen.len(), 25);
    assert!(seen.windows(2).all(|pair| pair[0].0 >= pair[1].0), "newest first");
    assert_eq!(seen.iter().map(|(_, id)| *id).collect::<BTreeSet<_>>().len(), 25);
}

async fn resolve(store: &Arc<dyn Store>, contact: Contact) -> Contact {
    let mut found = store.resolve_contacts(&[contact], now()).await.expect("resolved");
    assert_eq!(found.len(), 1);
    found.remove(0)
}

async fn a_contact_is_one_however_many_ask_at_once(store: Arc<dyn Store>, _url: &str) {
    let given = Contact { email: Some("Ines@Example.com".into()), ..Contact::default() };
    let asks = (0..8).map(|_| {
        let (store, given) = (store.clone(), given.clone());
        tokio::spawn(async move { resolve(&store, given).await })
    });
    let mut ids = BTreeSet::new();
    for ask in asks.collect::<Vec<_>>() {
        ids.insert(ask.await.expect("a task").id.expect("an id"));
    }
    assert_eq!(ids.len(), 1);
    let more = Contact {
        name: Some("Ines".into()),
        email: Some("ines@example.com".into()),
        phone: Some("+351210000101".into()),
        ..Contact::default()
    };
    let known = resolve(&store, more).await;
    assert_eq!(known.id, ids.first().copied());
    assert_eq!(known.email.as_deref(), Some("Ines@Example.com"), "what was known is kept");
    let by_phone = Contact { phone: Some("+351210000101".into()), ..Contact::default() };
    let found = resolve(&store, by_phone).await;
    assert_eq!((found.id, found.name), (known.id, Some("Ines".into())));
    assert_eq!(store.contact(known.id.expect("an id")).await.expect("read"), Some(known));
}

async fn there_is_one_first_agent(store: Arc<dyn Store>, _url: &str) {
    let asks = (0..6).map(|turn| {
        let store = store.clone();
        let one = agent(&format!("agent{turn}"));
        tokio::spawn(async move { store.add_first_agent(&one, now()).await.expect("asked") })
    });
    let mut firsts = 0;
    for ask in asks.collect::<Vec<_>>() {
        firsts += u32::from(ask.await.expect("a task"));
    }
    assert_eq!(firsts, 1);
    assert_eq!(store.agents().await.expect("agents").len(), 1);
    let second = store.add_agent(&agent("ana"), now()).await;
    second.expect("another one");
    let twice = store.add_agent(&agent("ana"), now()).await.expect_err("taken");
    assert!(matches!(twice, StoreError::Exists(_)), "{twice:?}");
    let commit = Commit {
        presences: vec![PresenceChange {
            login: login("ana"),
            presence: Presence::Away,
            reason: Some("lunch".into()),
            since: now(),
        }],
        ..Commit::default()
    };
    store.commit(&commit).await.expect("committed");
    let agents = store.agents().await.expect("agents");
    let ana = agents.iter().find(|one| one.login == login("ana")).expect("ana");
    assert_eq!((ana.presence, ana.reason.as_deref()), (Presence::Away, Some("lunch")));
}

async fn sessions_end_with_their_time_and_their_agent(store: Arc<dyn Store>, _url: &str) {
    store.add_agent(&agent("ana"), now()).await.expect("added");
    let later = now().plus(Duration::from_secs(60));
    store.add_session([1; 32], &login("ana"), now(), later).await.expect("opened");
    let (principal, until) = store.session([1; 32], now()).await.expect("read").expect("a session");
    assert_eq!((principal.login, until), (login("ana"), later));
    assert!(store.session([1; 32], later).await.expect("read").is_none());
    assert!(store.session([2; 32], now()).await.expect("read").is_none());
    store.end_session([1; 32]).await.expect("ended");
    assert!(store.session([1; 32], now()).await.expect("read").is_none());
    store.add_session([3; 32], &login("ana"), now(), later).await.expect("opened");
    assert!(store.disable_agent(&login("ana")).await.expect("disabled"));
    assert!(store.session([3; 32], now()).await.expect("read").is_none());
    assert!(!store.disable_agent(&login("nobody")).await.expect("asked"));
}

async fn keys_are_unique_and_revoked(store: Arc<dyn Store>, _url: &str) {
    let one = Integration {
        id: Uuid::now_v7(),
        name: "pbx".into(),
        scopes: vec![Channel::Voice, Channel::Tickets],
        key_hash: [7; 32],
        signature_required: true,
        created_at: now(),
        revoked_at: None,
    };
    store.add_integration(&one).await.expect("added");
    let twice = Integration { id: Uuid::now_v7(), key_hash: [8; 32], ..one.clone() };
    assert!(matches!(store.add_integration(&twice).await, Err(StoreError::Exists(_))));
    assert_eq!(store.integration([7; 32]).await.expect("read"), Some(one));
    assert!(store.revoke_integration("pbx", now()).await.expect("revoked"));
    assert!(!store.revoke_integration("pbx", now()).await.expect("asked"));
    assert_eq!(store.integration([7; 32]).await.expect("read"), None);
    assert_eq!(store.integrations().await.expect("read")[0].revoked_at, Some(now()));
}

async fn journeys_keep_the_first_time_and_add_up_counts(store: Arc<dyn Store>, _url: &str) {
    assert!(store.journey(Uuid::now_v7()).await.expect("read").is_none());
    let made = ticket("t-1", &Distribution::Broadcast, now());
    let cause = made.commit.decided[0].id;
    let receipt = |stage, ms, agent: Option<&str>, count| Receipt {
        cause,
        stage,
        at: now().plus(Duration::from_millis(ms)),
        integration: (stage == Stage::Accepted).then(|| "form".to_owned()),
        agent: agent.map(login),
        count,
    };
    store.record(&[receipt(Stage::Accepted, 0, None, 0)]).await.expect("recorded");
    let other = ticket("t-2", &Distribution::Broadcast, now());
    store.commit(&other.commit).await.expect("committed");
    let other = other.commit.decided[0].id;
    let (_, sender) = store.journey(other).await.expect("read").expect("known");
    assert_eq!(sender.as_deref(), Some("form"), "by AMQP");
    let (journey, sender) = store.journey(cause).await.expect("read").expect("known");
    assert_eq!((journey.status, sender.as_deref()), (Stage::Accepted, Some("form")));
    store.commit(&made.commit).await.expect("committed");
    store
        .record(&[receipt(Stage::Sent, 9, None, 2), receipt(Stage::Sent, 5, None, 1)])
        .await
        .expect("recorded");
    store.record(&[receipt(Stage::Sent, 7, Some("ana"), 1)]).await.expect("recorded");
    let (journey, _) = store.journey(cause).await.expect("read").expect("known");
    assert_eq!(journey.status, Stage::Sent);
    let sent = journey.stages.iter().find(|one| one.stage == Stage::Sent).expect("sent");
    assert_eq!((sent.count, sent.at), (Some(4), now().plus(Duration::from_millis(5))));
    assert!(sent.agents.contains_key(&login("ana")));
    assert_eq!(journey.events.len(), 1);
    let note = Event::Noted { text: "x".into(), by: login("ana") };
    let acted = next(Some(made.state.clone()), made.state.id, note, None, now(), true);
    store.commit(&acted.commit).await.expect("committed");
    let (journey, _) = store.journey(cause).await.expect("read").expect("known");
    assert_eq!(journey.status, Stage::Acted);
}

async fn what_is_due_is_found_and_what_is_old_goes(store: Arc<dyn Store>, _url: &str) {
    let made = ticket("t-1", &Distribution::Broadcast, now());
    store.commit(&made.commit).await.expect("committed");
    let until = now().plus(Duration::from_secs(9));
    let snooze = Event::TicketSnoozed { ticket: "t-1".into(), until, by: login("ana") };
    let put = next(Some(made.state.clone()), made.state.id, snooze, None, now(), true);
    store.commit(&put.commit).await.expect("committed");
    assert!(store.due(now(), 9).await.expect("due").is_empty());
    let due = store.due(until, 9).await.expect("due");
    assert_eq!((due[0].interaction_id, due[0].version, due[0].partition), (made.state.id, 2, 1));
    let cause = made.commit.decided[0].id;
    store.prune(now()).await.expect("pruned");
    assert_eq!(store.outcomes(&[cause]).await.expect("read").len(), 1);
    store.prune(until).await.expect("pruned");
    assert!(store.outcomes(&[cause]).await.expect("read").is_empty());
    store.ping().await.expect("alive");
}

async fn all_is_there_after_reopening(store: Arc<dyn Store>, url: &str) {
    let made = ticket("t-1", &Distribution::Broadcast, now());
    store.commit(&made.commit).await.expect("committed");
    let epoch = store.epoch().to_owned();
    store.close().await;
    let again = open(url).await.expect("opened again");
    assert_eq!(again.epoch(), epoch);
    assert_eq!(again.journal(Channel::Tickets, 0, 9).await.expect("rows").len(), 1);
}

#[tokio::test]
async fn what_is_no_store_of_ours_is_refused_in_one_line_that_names_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("warren.db");
    std::fs::write(&file, [7_u8; 8_192]).expect("written");
    let error = open(&format!("sqlite://{}", file.display())).await.err().expect("damaged");
    assert!(matches!(error, StoreError::Broken(_)), "{error:?}");
    let line = error.to_string();
    assert!(line.contains("warren.db") && !line.contains('\n'), "{line}");
    let error = open("mysql://somewhere").await.err().expect("another kind");
    assert!(error.to_string().contains("store.url"), "{error}");
}

#[tokio::test]
async fn a_newer_store_is_refused() {
    let url = sqlite_url();
    open(&url).await.expect("a store").close().await;
    sqlx::any::install_default_drivers();
    let pool = sqlx::AnyPool::connect(&url).await.expect("a pool");
    sqlx::query(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
         VALUES (9999, 'later', 1, x'00', 0)",
    )
    .execute(&pool)
    .await
    .expect("written");
    pool.close().await;
    let error = open(&url).await.err().expect("newer").to_string();
    assert!(error.contains("9999") && error.contains("newer"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_was_gone_is_used_again() {
    let mut server = Postgres::start().expect("PostgreSQL");
    server.create_database("own").expect("a database");
    let store = open(&server.url("own")).await.expect("a store");
    store.ping().await.expect("alive");
    server.kill();
    let error = store.ping().await.expect_err("gone");
    assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
    server.start_again().expect("back");
    let healed = async {
        while store.ping().await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), healed).await.expect("healed by itself");
    let made = ticket("t-1", &Distribution::Broadcast, now());
    assert_eq!(store.commit(&made.commit).await.expect("committed"), [1]);
}

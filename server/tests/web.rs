//! Pages, sessions and the snapshot API, as a browser's requests meet them.

use reqwest::header::{self, HeaderMap};
use reqwest::{Client, Response, StatusCode, redirect};
use serde_json::{Value, json};
use testkit::warren::Warren;

const WARREN: &str = env!("CARGO_BIN_EXE_warren");
const PASSWORD: &str = "correct horse battery";

struct Desk {
    service: Warren,
    folder: tempfile::TempDir,
    client: Client,
}

impl Desk {
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let data = folder.path().to_str().expect("a path");
        let service = Warren::command(WARREN)
            .args(["up", "--data", data, "--web", "127.0.0.1:0", "--external", "127.0.0.1:0"])
            .start();
        let client = Client::builder().redirect(redirect::Policy::none()).build();
        Self { service, folder, client: client.expect("a client") }
    }

    fn warren(&self, arguments: &[&str], stdin: &str) -> String {
        let data = self.folder.path().to_str().expect("a path");
        Warren::command(WARREN).args(arguments).args(["--data", data]).say(stdin)
    }

    fn with_ana(self) -> Self {
        self.warren(&["user", "add", "ana", "--password-stdin"], PASSWORD);
        self
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.service.web())
    }

    async fn get(&self, path: &str, headers: HeaderMap) -> Response {
        self.client.get(self.url(path)).headers(headers).send().await.expect("an answer")
    }

    async fn sign_in(&self, login: &str, password: &str) -> Response {
        self.form("sign_in", &[("login", login), ("password", password)], HeaderMap::new()).await
    }

    async fn form(&self, name: &str, fields: &[(&str, &str)], headers: HeaderMap) -> Response {
        let body: Vec<String> = fields
            .iter()
            .map(|(name, value)| format!("{name}={}", value.replace(' ', "+")))
            .collect();
        self.client
            .post(self.url(&format!("/api/desk/{name}")))
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .headers(headers)
            .body(body.join("&"))
            .send()
            .await
            .expect("an answer")
    }
}

fn one(name: header::HeaderName, value: &str) -> HeaderMap {
    HeaderMap::from_iter([(name, value.parse().expect("a value"))])
}

fn cookie_of(answer: &Response) -> Option<String> {
    answer.headers().get(header::SET_COOKIE)?.to_str().ok().map(str::to_owned)
}

#[tokio::test]
async fn a_session_is_a_cookie_that_scripts_and_other_sites_never_get() {
    let desk = Desk::start().with_ana();
    let answer = desk.sign_in("ana", PASSWORD).await;
    assert!(answer.status().is_success(), "{}", answer.status());
    let cookie = cookie_of(&answer).expect("a cookie");
    for word in ["warren_session=ws_", "HttpOnly", "SameSite=Lax", "Path=/", "Max-Age=43200"] {
        assert!(cookie.contains(word), "{word} in {cookie}");
    }
    let pair = cookie.split(';').next().expect("a pair");
    let me = desk.get("/api/v1/me", one(header::COOKIE, pair)).await;
    let me: Value = me.json().await.expect("json");
    assert_eq!(me["principal"]["login"], "ana");
    assert_eq!(me["aggregators"][0], format!("{}/ws", desk.url("").replacen("http", "ws", 1)));

    let out = desk.form("sign_out", &[], one(header::COOKIE, pair)).await;
    assert!(cookie_of(&out).expect("a cookie").contains("Max-Age=0"));
    let gone = desk.get("/api/v1/me", one(header::COOKIE, pair)).await;
    assert_eq!(gone.status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn who_guesses_learns_nothing_and_is_slowed_down() {
    let desk = Desk::start().with_ana();
    let wrong = desk.sign_in("ana", "not her password").await;
    let unknown = desk.sign_in("nobody", "not her password").await;
    assert_eq!(wrong.status(), unknown.status());
    assert!(cookie_of(&wrong).is_none());
    assert_eq!(wrong.text().await.expect("text"), unknown.text().await.expect("text"));
    for _ in 0..6 {
        desk.sign_in("ana", "not her password").await;
    }
    let slowed = desk.sign_in("ana", PASSWORD).await;
    assert!(cookie_of(&slowed).is_none(), "the right one has to wait too");
    assert!(slowed.text().await.expect("text").contains("wait"));
}

#[tokio::test]
async fn another_sites_page_can_do_nothing() {
    let desk = Desk::start().with_ana();
    let fields = [("login", "ana"), ("password", PASSWORD)];
    for headers in [
        one(header::ORIGIN, "http://evil.example"),
        one(header::ORIGIN, "null"),
        one(header::HeaderName::from_static("sec-fetch-site"), "cross-site"),
    ] {
        let answer = desk.form("sign_in", &fields, headers).await;
        assert_eq!(answer.status(), StatusCode::FORBIDDEN);
        assert!(cookie_of(&answer).is_none());
    }
    let own = one(header::ORIGIN, &desk.url(""));
    assert!(cookie_of(&desk.form("sign_in", &fields, own).await).is_some());
}

#[tokio::test]
async fn of_several_first_admins_there_is_one() {
    let desk = Desk::start();
    let make = |login: &'static str| {
        let fields = [("login", login), ("name", ""), ("password", "long enough it is")];
        let desk = &desk;
        async move { cookie_of(&desk.form("create_first_admin", &fields, HeaderMap::new()).await) }
    };
    let made = futures::future::join_all(["a1", "a2", "a3", "a4"].map(make)).await;
    assert_eq!(made.iter().flatten().count(), 1);
    assert!(make("late").await.is_none());
}

#[tokio::test]
async fn each_page_has_a_policy_of_its_own_and_scripts_that_fit_it() {
    let desk = Desk::start().with_ana();
    let mut nonces = Vec::new();
    for _ in 0..2 {
        let answer = desk.get("/sign-in", HeaderMap::new()).await;
        assert_eq!(answer.status(), StatusCode::OK);
        let policy = answer.headers()[header::CONTENT_SECURITY_POLICY].to_str().expect("text");
        assert!(!policy.contains("unsafe-inline") && policy.contains("default-src 'none'"));
        let nonce = policy.split("'nonce-").nth(1).and_then(|rest| rest.split('\'').next());
        let nonce = nonce.expect("a nonce").to_owned();
        assert_eq!(answer.headers()["x-content-type-options"], "nosniff");
        let html = answer.text().await.expect("text");
        for script in html.split("<script").skip(1) {
            let tag = script.split('>').next().unwrap_or_default();
            assert!(tag.contains(&format!("nonce=\"{nonce}\"")), "{tag}");
        }
        assert!(!html.contains(" style=\""), "no inline styles");
        nonces.push(nonce);
    }
    assert_ne!(nonces[0], nonces[1]);
    let lost = desk.get("/nowhere", HeaderMap::new()).await;
    assert_eq!(lost.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn assets_are_small_kept_for_good_and_known_by_name() {
    let desk = Desk::start();
    desk.warren(&["user", "add", "ana", "--password-stdin"], PASSWORD);
    let html = desk.get("/sign-in", HeaderMap::new()).await.text().await.expect("text");
    let path = html
        .split("href=\"")
        .find(|part| part.split('"').next().is_some_and(|one| one.ends_with(".css")));
    let path = path.and_then(|part| part.split('"').next()).expect("a style sheet");
    let plain = desk.get(path, HeaderMap::new()).await;
    assert_eq!(plain.headers()[header::CONTENT_TYPE], "text/css");
    assert!(plain.headers()[header::CACHE_CONTROL].to_str().expect("text").contains("immutable"));
    let small = desk.get(path, one(header::ACCEPT_ENCODING, "gzip, br")).await;
    assert_eq!(small.headers()[header::CONTENT_ENCODING], "br");
    let etag = small.headers()[header::ETAG].to_str().expect("text").to_owned();
    let mut again = one(header::ACCEPT_ENCODING, "br");
    again.insert(header::IF_NONE_MATCH, etag.parse().expect("a value"));
    assert_eq!(desk.get(path, again).await.status(), StatusCode::NOT_MODIFIED);
    assert_eq!(desk.get("/../Cargo.toml", HeaderMap::new()).await.status(), StatusCode::NOT_FOUND);
    assert_eq!(desk.get("/none.css", HeaderMap::new()).await.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn snapshots_say_where_the_channels_stood_and_what_is_wrong_with_a_question() {
    let desk = Desk::start().with_ana();
    let token = desk.warren(&["token", "ana"], "");
    let key = desk.warren(&["key", "add", "form", "--scopes", "tickets"], "");
    let bearer = || one(header::AUTHORIZATION, &format!("Bearer {token}"));
    let event = json!({ "type": "ticket.opened", "subject": "<i>Broken</i>", "body": "It is",
        "requester": { "name": "Ines" } });
    let posted = desk
        .client
        .post(format!("{}/external/tickets", desk.service.external()))
        .bearer_auth(&key)
        .json(&event)
        .send()
        .await
        .expect("an answer");
    let id = posted.json::<Value>().await.expect("json")["id"].as_str().expect("an id").to_owned();
    let journey =
        format!("{}/external/events/{id}?wait=decided&timeout_ms=20000", desk.service.external());
    let journey = desk.client.get(journey).bearer_auth(&key).send().await.expect("an answer");
    assert_eq!(journey.json::<Value>().await.expect("json")["id"], id);

    let list = desk.get("/api/v1/interactions?channel=tickets&view=open", bearer()).await;
    let list: Value = list.json().await.expect("json");
    assert_eq!(list["streams"]["tickets"]["offset"], 1);
    let interaction = list["interactions"][0]["id"].as_str().expect("an id").to_owned();
    let detail = desk.get(&format!("/api/v1/interactions/{interaction}"), bearer()).await;
    let detail: Value = detail.json().await.expect("json");
    assert_eq!(detail["timeline"][0]["type"], "ticket.opened");
    assert_eq!(detail["version"], 1);
    let cookie = desk.sign_in("ana", PASSWORD).await;
    let cookie = cookie_of(&cookie).expect("a cookie");
    let page = desk.get(&format!("/inbox/{interaction}"), one(header::COOKIE, &cookie)).await;
    let html = page.text().await.expect("text");
    assert!(html.contains("&lt;i&gt;Broken") && !html.contains("<i>Broken"), "escaped");

    for (path, status) in [
        ("/api/v1/interactions?channel=fax", StatusCode::BAD_REQUEST),
        ("/api/v1/interactions?view=odd", StatusCode::BAD_REQUEST),
        ("/api/v1/interactions?limit=0", StatusCode::BAD_REQUEST),
        ("/api/v1/interactions?cursor=17", StatusCode::BAD_REQUEST),
        ("/api/v1/interactions/nothing", StatusCode::NOT_FOUND),
        ("/api/v1/nothing", StatusCode::NOT_FOUND),
    ] {
        let answer = desk.get(path, bearer()).await;
        assert_eq!(answer.status(), status, "{path}");
        assert_eq!(answer.headers()[header::CONTENT_TYPE], "application/problem+json");
        if let Some((parameter, _)) = path.split_once('?').and_then(|(_, it)| it.split_once('=')) {
            let problem: Value = answer.json().await.expect("json");
            let detail = problem["detail"].as_str().expect("a detail");
            assert!(detail.starts_with(parameter), "{detail}");
        }
    }
    let nobody = desk.get("/api/v1/interactions", HeaderMap::new()).await;
    assert_eq!(nobody.status(), StatusCode::UNAUTHORIZED);
}

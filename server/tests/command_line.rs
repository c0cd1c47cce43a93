//! What can't begin says why in one line, and exits 2.

use std::net::TcpListener;
use std::process::Output;

use sqlx::{Connection, Executor};
use testkit::warren::Warren;

const WARREN: &str = env!("CARGO_BIN_EXE_warren");

fn run(arguments: &[&str]) -> Output {
    Warren::command(WARREN).env("WARREN_LOG", "off").args(arguments).run("")
}

/// The one line that it says, having exited 2.
fn refused(arguments: &[&str]) -> String {
    let output = run(arguments);
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    said
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().expect("a path").to_owned()
    }

    fn file(&self, name: &str, text: impl AsRef<[u8]>) -> String {
        std::fs::write(self.path(name), text).expect("written");
        self.path(name)
    }
}

#[test]
fn a_taken_port_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let folder = Folder::new();
    let data = folder.path("data");
    let said = refused(&["up", "--data", &data, "--web", &address, "--external", "127.0.0.1:0"]);
    assert!(said.contains(&address), "{said}");
}

#[test]
fn a_wrong_setting_an_unreadable_file_and_an_unknown_profile_are_named() {
    let folder = Folder::new();
    let wrong = folder.file("wrong.toml", "[web]\nlisten = \"nowhere\"\n");
    assert!(refused(&["up", "--config", &wrong]).contains("web.listen"));
    let missing = folder.path("missing.toml");
    assert!(refused(&["up", "--config", &missing]).contains("missing.toml"));
    let good = folder.file("good.toml", "[profile.office]\nstore.url = \"sqlite://x\"\n");
    let said = refused(&["backend", "nowhere", "--config", &good]);
    assert!(said.contains("nowhere") && said.contains("office"), "{said}");
    let said = refused(&["backend", "office", "--config", &good]);
    assert!(said.contains("PROFILE"), "{said}");
    let url = folder.file("url.toml", "[profile.a]\nbroker.publish_urls = [\"http://x\"]\n");
    let data = folder.path("data");
    let said = refused(&["backend", "a", "--config", &url, "--data", &data]);
    assert!(said.contains("http://x"), "{said}");
}

#[test]
fn a_damaged_or_foreign_file_is_named() {
    let folder = Folder::new();
    let data = folder.path("data");
    std::fs::create_dir(&data).expect("a folder");
    folder.file("data/warren.db", [7_u8; 8_192]);
    let ports = ["--web", "127.0.0.1:0", "--external", "127.0.0.1:0"];
    let said = refused(&[&["up", "--data", &data][..], &ports].concat());
    assert!(said.contains("warren.db"), "{said}");
}

#[test]
fn a_folder_in_use_is_named_and_the_one_who_uses_it_goes_on() {
    let folder = Folder::new();
    let data = folder.path("data");
    let ports = ["--web", "127.0.0.1:0", "--external", "127.0.0.1:0"];
    let arguments = [&["up", "--data", &data][..], &ports].concat();
    let first = Warren::command(WARREN).args(&arguments).start();
    let said = refused(&arguments);
    assert!(said.contains("in use"), "{said}");
    let web = first.web().replace("http://", "");
    let healthy = run(&["healthcheck", "--web", &web]);
    assert_eq!(healthy.status.code(), Some(0));
    let external = first.external().replace("http://", "");
    let asked = ["healthcheck", "--at", &external];
    assert_eq!(run(&asked).status.code(), Some(0));
    assert_eq!(first.term(), Some(0));
    assert_eq!(run(&asked).status.code(), Some(1));
    assert_eq!(run(&["healthcheck", "--web", &web]).status.code(), Some(1));
}

#[test]
fn the_demo_serves_this_machine_only() {
    let folder = Folder::new();
    let data = folder.path("data");
    let said = refused(&["up", "--demo", "--data", &data, "--web", "0.0.0.0:0"]);
    assert!(said.contains("0.0.0.0"), "{said}");
}

#[test]
fn what_is_refused_beside_the_service_exits_one() {
    let folder = Folder::new();
    let data = folder.path("data");
    let add = ["key", "add", "pbx", "--scopes", "voice", "--data", &data];
    let first = run(&add);
    assert_eq!(first.status.code(), Some(0));
    let key = String::from_utf8_lossy(&first.stdout).into_owned();
    assert!(key.starts_with("wk_") && key.lines().count() == 1, "the key alone");
    assert_eq!(run(&add).status.code(), Some(1));
    assert_eq!(run(&["token", "nobody", "--data", &data]).status.code(), Some(1));
    assert_eq!(run(&["key", "revoke", "pbx", "--data", &data]).status.code(), Some(0));
    let list = run(&["key", "list", "--data", &data]);
    assert_eq!(String::from_utf8_lossy(&list.stdout), "pbx\tvoice\trevoked\n");
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn who_is_revoked_is_listed_no_more_and_gets_no_token() {
    let folder = Folder::new();
    let data = folder.path("data");
    let user = |arguments: &[&str], password: &str| {
        let arguments = [arguments, &["--data", &data]].concat();
        Warren::command(WARREN).env("WARREN_LOG", "off").args(arguments).run(password)
    };
    let password = "correct horse battery\n";
    let ana = ["user", "add", "ana", "--name", "Ana", "--password-stdin"];
    let ben = ["user", "add", "ben", "--role", "admin", "--password-stdin"];
    assert_eq!(user(&ana, "short").status.code(), Some(1));
    assert_eq!(user(&ana, password).status.code(), Some(0));
    assert_eq!(user(&ben, password).status.code(), Some(0));
    assert_eq!(user(&ana, password).status.code(), Some(1), "taken");
    assert_eq!(said(&user(&["user", "list"], "")), "ana\tagent\tAna\nben\tadmin\tben\n");
    assert!(said(&user(&["token", "ana"], "")).starts_with("wt_"));
    assert_eq!(user(&["user", "revoke", "ana"], "").status.code(), Some(0));
    assert_eq!(said(&user(&["user", "list"], "")), "ben\tadmin\tben\n");
    assert_eq!(user(&["token", "ana"], "").status.code(), Some(1));
    assert_eq!(user(&["user", "revoke", "nobody"], "").status.code(), Some(1));
}

#[test]
fn the_topology_is_shown_as_it_is_and_deleted() {
    let folder = Folder::new();
    let data = folder.path("data");
    let topology = |action: &str| run(&["topology", action, "--data", &data]);
    let all = |status: &str| {
        let shown = topology("show");
        let shown_text = said(&shown);
        // Four partitions, a log and dead letters, for each channel.
        assert_eq!(shown_text.lines().count(), 18, "{shown_text}");
        assert!(shown_text.lines().all(|line| line.ends_with(status)), "{shown_text}");
        shown.status.code()
    };
    assert_eq!(all("missing"), Some(1));
    assert_eq!(topology("declare").status.code(), Some(0));
    assert_eq!(all("present"), Some(0));
    let ports = ["--web", "127.0.0.1:0", "--external", "127.0.0.1:0"];
    let service = Warren::command(WARREN).args(["up", "--data", &data]).args(ports).start();
    assert!(refused(&["topology", "delete", "--data", &data]).contains("in use"));
    assert_eq!(service.term(), Some(0));
    let deleted = topology("delete");
    assert_eq!((deleted.status.code(), said(&deleted).as_str()), (Some(0), "deleted\n"));
    assert_eq!(all("missing"), Some(1));
}

#[tokio::test]
async fn a_locked_database_is_named() {
    let folder = Folder::new();
    let data = folder.path("data");
    let add = ["key", "add", "pbx", "--scopes", "voice", "--data", &data];
    assert_eq!(run(&add).status.code(), Some(0));
    let url = format!("sqlite://{}", folder.path("data/warren.db"));
    let mut other = sqlx::SqliteConnection::connect(&url).await.expect("a connection");
    other.execute("BEGIN EXCLUSIVE").await.expect("a lock");
    let ports = ["--web", "127.0.0.1:0", "--external", "127.0.0.1:0"];
    let said = refused(&[&["up", "--data", &data][..], &ports].concat());
    assert!(said.contains("warren.db") && said.contains("locked"), "{said}");
    other.execute("ROLLBACK").await.expect("unlocked");
    let service = Warren::command(WARREN).args(["up", "--data", &data]).args(ports).start();
    assert_eq!(service.term(), Some(0));
}

//! A program that is asked over HTTP who may enter and what he may do: it answers, is slow, is dead, or lies.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sundew::backends::access::{AccessOptions, ListenerAccess, LiveAccess};
use sundew::backends::hashing::HashingOptions;
use sundew::backends::http::client::ClientOptions;
use sundew::backends::http::template::Template;
use sundew::backends::http::{Call, HttpOptions};
use sundew::backends::ways::HttpAsked;
use sundew::broker::Parts;
use sundew::protocol::property::PropertiesBuf;
use sundew::protocol::version::Version;
use sundew::server::ServerOptions;

use crate::backend::{Backend, Request, Says, TIRED};
use crate::broker::{BOTH, Broker, V5, story_with};
use crate::wire::{self, Connect, Publish};

mod kept;

fn call(url: &str, fields: &[&str]) -> Call {
    Call {
        name: url.into(),
        url: Template::parse(url).unwrap(),
        is_get: false,
        is_form: false,
        fields: fields
            .iter()
            .map(|name| ((*name).to_owned(), Template::parse(&format!("${{{name}}}")).unwrap()))
            .collect(),
        headers: vec![("authorization".into(), "Bearer of news".into())],
    }
}

/// Asked at these addresses; with short times and small bounds.
fn options(connect: Option<&str>, acl: Option<&str>) -> HttpOptions {
    HttpOptions {
        place: "test".into(),
        connect: connect.map(|url| call(url, &["username", "password", "clientid"])),
        acl: acl.map(|url| call(url, &["username", "clientid", "topic", "access", "qos", "retain"])),
        client: ClientOptions {
            ca_file: None,
            timeout: Duration::from_millis(500),
            connections_max: 2,
            answer_bytes_max: 4096,
        },
        waiting_max: 4,
        cache_lifetime: Duration::from_secs(60),
        cache_max: 100,
        allows_on_failure: false,
        is_status_all: false,
    }
}

fn asking(http: HttpOptions) -> impl Fn(&mut ServerOptions, &mut Parts) {
    move |options, _| {
        let access = AccessOptions {
            listeners: vec![ListenerAccess {
                name: "tcp".into(),
                allows_anonymous: true,
                ..ListenerAccess::default()
            }],
            http: vec![HttpAsked {
                listeners: Vec::new(),
                options: http.clone(),
            }],
            ..AccessOptions::default()
        };
        options.access = Some(Arc::new(LiveAccess::start(access, &HashingOptions::default()).unwrap()));
    }
}

fn as_user<'a>(name: &'a str, password: &'a str, client_id: &'a str) -> Connect<'a> {
    Connect {
        client_id,
        user_name: Some(name),
        password: Some(password.as_bytes()),
        ..Connect::default()
    }
}

fn try_user(broker: &Broker, version: Version, name: &str, password: &str) -> u8 {
    broker.open(version).try_connect(&as_user(name, password, "c")).1
}

fn fields(request: &Request) -> Value {
    serde_json::from_str(&request.body).unwrap()
}

/// Lets `secret` in, everybody publish to his own topics, and nobody subscribe to `secret`.
fn honest(request: &Request) -> Says {
    let asked = fields(request);
    let is_right = match request.path.as_str() {
        "/connect" => asked["password"] == "secret",
        "/acl" if asked["access"] == 4 => asked["topic"] != "secret",
        "/acl" => asked["topic"] == json!(format!("own/{}", asked["username"].as_str().unwrap())),
        _ => return None,
    };
    Some((if is_right { 200 } else { 403 }, String::new()))
}

#[test]
fn a_program_says_who_may_enter_and_what_he_may_do() {
    let backend = Backend::start(honest);
    let (connect, acl) = (backend.url("/connect"), backend.url("/acl"));
    story_with(asking(options(Some(&connect), Some(&acl))), BOTH, |broker, version| {
        let (wrong, refused) = if version.has_properties() {
            (0x86, 0x87)
        } else {
            (5, 0x80)
        };
        assert_eq!(try_user(broker, version, "alice", "guess"), wrong);
        let (mut alice, _) = broker.connect(version, &as_user("alice", "secret", "a"));
        let (mut bob, _) = broker.connect(version, &as_user("bob", "secret", "b"));
        assert_eq!((bob.subscribe("own/#", 2), bob.subscribe("secret", 0)), (2, refused));
        let asked = backend.requests().len();
        for number in ["1", "2"] {
            let told = alice.try_publish(Publish::new("own/bob", number, 1));
            assert_eq!(told, if version.has_properties() { 0x87 } else { 0 });
            alice.publish(Publish::new("own/alice", number, 1));
            bob.expect_text("own/alice", number);
        }
        assert_eq!(backend.requests().len() - asked, 2, "each answer is remembered");
        let last = backend.requests().pop().unwrap();
        assert_eq!(
            fields(&last),
            json!({"username": "alice", "clientid": "a", "topic": "own/alice", "access": 2, "qos": 1, "retain": false})
        );
        assert!(
            last.head.contains("Bearer of news") && last.head.contains("application/json"),
            "{}",
            last.head
        );
        assert!(broker.server.broker().metrics.sum().backend_answered > 0);
    });
}

#[test]
fn get_and_forms_say_the_same_and_names_stay_one_value() {
    let backend = Backend::start(|request| {
        Some((
            if request.path.contains("p%26w") || request.body.contains("p%26w") {
                204
            } else {
                401
            },
            String::new(),
        ))
    });
    let mut get = options(Some(&backend.url("/of/${clientid}?v=1")), None);
    let mut form = options(Some(&backend.url("/form")), None);
    for (options, is_get) in [(&mut get, true), (&mut form, false)] {
        let call = options.connect.as_mut().unwrap();
        (call.is_get, call.is_form) = (is_get, true);
    }
    for (options, method, path, body) in [
        (
            get,
            "GET",
            "/of/a%2Bb?v=1&username=al%20ice&password=p%26w&clientid=a%2Bb",
            "",
        ),
        (form, "POST", "/form", "username=al%20ice&password=p%26w&clientid=a%2Bb"),
    ] {
        story_with(asking(options), BOTH, |broker, version| {
            let mut client = broker.open(version);
            assert_eq!(client.try_connect(&as_user("al ice", "p&w", "a+b")).1, 0);
            let last = backend.requests().pop().unwrap();
            assert_eq!((&*last.method, &*last.path, &*last.body), (method, path, body));
        });
    }
}

/// Other clients notice nothing: neither those who are connected nor those who need no answer.
#[test]
fn a_slow_program_is_waited_for_by_those_who_need_it_only_and_what_waits_is_bounded() {
    let backend = Backend::start(|request| {
        let is_slow = request.body.contains("slow");
        std::thread::sleep(Duration::from_millis(if is_slow { 1500 } else { 0 }));
        Some((200, "ok".into()))
    });
    let (connect, acl) = (backend.url("/connect"), backend.url("/acl"));
    story_with(asking(options(Some(&connect), Some(&acl))), BOTH, |broker, version| {
        let mut canary = broker.client("canary", version);
        let (mut alice, _) = broker.connect(version, &as_user("alice", "secret", "a"));
        alice.send(&Publish::new("slow", "x", 0).encode(version));
        let mut storm: Vec<_> = (0..30).map(|_| broker.open(version)).collect();
        for (number, client) in storm.iter_mut().enumerate() {
            let name = format!("slow {number}");
            client.send(&as_user(&name, "guess", "c").encode(version));
        }
        let since = Instant::now();
        for _ in 0..20 {
            canary.expect_ping_answered();
        }
        assert!(since.elapsed() < Duration::from_millis(400), "{:?}", since.elapsed());
        let (failed, busy) = if version.has_properties() { (0x88, 0x89) } else { (3, 3) };
        let answers: Vec<_> = storm.iter_mut().map(|client| client.expect_connack().1).collect();
        assert!(
            answers.iter().all(|answer| [failed, busy].contains(answer)),
            "{answers:?}"
        );
        assert!(answers.contains(&failed) && answers.contains(&busy), "{answers:?}");
        assert!(since.elapsed() < Duration::from_secs(3), "{:?}", since.elapsed());
        alice.expect_ping_answered();
        let totals = broker.server.broker().metrics.sum();
        assert!(
            totals.backend_failed > 0 && totals.limit_backend_waiting > 0,
            "{totals:?}"
        );
        assert!(
            totals.dropped_not_authorized == 1,
            "what nobody allowed in time is denied"
        );
    });
}

#[test]
fn as_many_questions_are_out_at_once_as_there_are_connections() {
    let backend = Backend::start(|_| {
        std::thread::sleep(Duration::from_millis(20));
        Some((200, String::new()))
    });
    let mut http = options(Some(&backend.url("/")), None);
    http.waiting_max = 100;
    story_with(asking(http), V5, |broker, version| {
        let mut clients: Vec<_> = (0..10).map(|_| broker.open(version)).collect();
        for (number, client) in clients.iter_mut().enumerate() {
            let id = format!("c{number}");
            client.send(&as_user("alice", "secret", &id).encode(version));
        }
        for client in &mut clients {
            assert_eq!(client.expect_connack().1, 0);
        }
    });
    assert_eq!(backend.busy_max(), 2);
}

#[test]
fn a_program_that_is_dead_or_lies_lets_nobody_in() {
    // Bound, and never listening: nobody else can take its port meanwhile.
    let dead_socket = tokio::net::TcpSocket::new_v4().unwrap();
    dead_socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let dead = dead_socket.local_addr().unwrap();
    let liar = Backend::start(|request| match request.path.as_str() {
        "/page" => Some((200, "<html>Welcome to the airport</html>".into())),
        "/error" => Some((500, "ok".into())),
        "/elsewhere" => Some((302, "ok".into())),
        "/endless" => Some((200, "x".repeat(1 << 20))),
        "/half" => Some((200, "{\"result\": \"al".into())),
        _ => None,
    });
    let mut urls = vec![format!("http://{dead}/")];
    urls.extend(["/page", "/error", "/elsewhere", "/endless", "/half", "/nothing"].map(|path| liar.url(path)));
    for url in urls {
        story_with(asking(options(Some(&url), Some(&url))), V5, |broker, version| {
            assert_eq!(try_user(broker, version, "alice", "secret"), 0x88, "{url}");
            let mut anonymous = broker.client("anonymous", version);
            assert_eq!(anonymous.subscribe("a", 0), 0x87, "{url}");
            assert_eq!(anonymous.try_publish(Publish::new("a", "x", 1)), 0x87, "{url}");
            assert!(broker.server.broker().metrics.sum().backend_failed >= 3, "{url}");
        });
        let mut open = options(Some(&url), Some(&url));
        open.allows_on_failure = true;
        // Somebody else who answers there is no failure to answer.
        let is_odd = ["/page", "/elsewhere", "/endless", "/half"]
            .iter()
            .any(|path| url.ends_with(path));
        story_with(asking(open), V5, |broker, version| {
            let (entered, subscribed) = if is_odd { (0x88, 0x87) } else { (0, 0) };
            assert_eq!(try_user(broker, version, "alice", "secret"), entered, "{url}");
            let mut anonymous = broker.client("anonymous", version);
            assert_eq!(anonymous.subscribe("a", 0), subscribed, "{url}");
        });
    }
}

/// What has come before SUBSCRIBE, or behind it, counts; the will is published as for whoever goes without DISCONNECT.
#[test]
fn a_program_is_not_asked_on_about_the_subscribe_of_a_client_that_has_gone() {
    const FILTERS: usize = 30;
    let backend = Backend::start(|request| {
        let is_slow = request.body.contains("slow/");
        std::thread::sleep(Duration::from_millis(if is_slow { 50 } else { 0 }));
        Some((200, String::new()))
    });
    let mut http = options(None, Some(&backend.url("/acl")));
    http.client.timeout = Duration::from_secs(10);
    story_with(asking(http), BOTH, |broker, version| {
        let slow_questions = || {
            backend
                .requests()
                .iter()
                .filter(|one| one.body.contains("slow/"))
                .count()
        };
        let mut observer = broker.client("observer", version);
        observer.subscribe("told/#", 1);
        let subscribe = |names: &str, filters: usize| {
            let filters: Vec<_> = (0..filters).map(|number| format!("slow/{names}/{number}")).collect();
            let filters: Vec<_> = filters.iter().map(|filter| (filter.as_str(), 0)).collect();
            wire::subscribe(version, 7, &PropertiesBuf::new(), &filters)
        };
        let before = slow_questions();
        let leave = |client_id: &str, bytes: &[u8]| {
            let will = wire::Will {
                topic: "told/will",
                payload: client_id.as_bytes(),
                ..wire::Will::default()
            };
            let connect = Connect {
                client_id,
                will: Some(will),
                ..Connect::default()
            };
            let (mut client, _) = broker.connect(version, &connect);
            client.send(bytes);
        };
        let publish = |payload: &str| Publish::new("told/beside", payload, 0).encode(version);
        leave("gone", &[publish("gone"), subscribe("gone", FILTERS)].concat());
        observer.expect_text("told/beside", "gone");
        observer.expect_text("told/will", "gone");
        let asked = slow_questions() - before;
        assert!(asked < FILTERS, "{asked} questions");
        leave("more", &[subscribe("more", 3), publish("more")].concat());
        observer.expect_text("told/beside", "more");
        observer.expect_text("told/will", "more");
    });
}

/// One that closes connections as it likes is asked on another one.
#[test]
fn a_connection_that_was_closed_meanwhile_is_no_failure() {
    let backend = Backend::start(|_| Some((200, "ok".into())));
    story_with(
        asking(options(Some(&backend.url(TIRED)), None)),
        V5,
        |broker, version| {
            for number in 0..50 {
                assert_eq!(try_user(broker, version, "alice", &format!("{number}")), 0);
            }
            assert_eq!(broker.server.broker().metrics.sum().backend_failed, 0);
        },
    );
}

#[test]
fn who_is_a_superuser_is_asked_about_nothing_more_and_an_answer_may_bring_rules() {
    let backend = Backend::start(|request| {
        let asked = fields(request);
        let says = match (request.path.as_str(), asked["username"].as_str().unwrap()) {
            ("/connect", "root") => json!({"result": "allow", "is_superuser": true}),
            ("/connect", "alice") => {
                json!({"result": "allow", "acl": [{"permission": "allow", "action": "publish", "topic": "own/%u"}]})
            }
            ("/connect", _) => json!({"ok": false, "error": "no"}),
            _ => json!({"result": "deny"}),
        };
        Some((200, says.to_string()))
    });
    let (connect, acl) = (backend.url("/connect"), backend.url("/acl"));
    story_with(asking(options(Some(&connect), Some(&acl))), V5, |broker, version| {
        let (mut root, _) = broker.connect(version, &as_user("root", "x", "r"));
        assert_eq!((root.subscribe("#", 1), root.subscribe("$SYS/#", 0)), (1, 0));
        let (mut alice, _) = broker.connect(version, &as_user("alice", "x", "a"));
        assert_eq!(alice.try_publish(Publish::new("own/alice", "x", 1)), 0);
        assert_eq!(alice.try_publish(Publish::new("own/bob", "x", 1)), 0x87);
        assert_eq!(try_user(broker, version, "bob", "x"), 0x86);
        assert!(backend.requests().iter().all(|request| request.path == "/connect"));
    });
}

/// Only the authorities of its own are trusted.
#[test]
fn a_program_is_asked_over_tls() {
    let folder = tempfile::tempdir().unwrap();
    let own: PathBuf = folder.path().join("own.pem");
    let other: PathBuf = folder.path().join("other.pem");
    let backend = Backend::start_tls(&own, honest);
    let _other = Backend::start_tls(&other, honest);
    for (authority, expected) in [(Some(own), 0), (Some(other), 0x88), (None, 0x88)] {
        let mut http = options(Some(&backend.tls_url("/connect")), None);
        http.client.ca_file = authority;
        story_with(asking(http), V5, |broker, version| {
            assert_eq!(try_user(broker, version, "alice", "secret"), expected);
        });
    }
}

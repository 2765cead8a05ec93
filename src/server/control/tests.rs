use super::*;
use crate::broker::{BrokerOptions, Parts};
use crate::server::certificates::LiveCertificates;

use std::time::Instant;

fn broker() -> (Arc<Broker>, Clock) {
    let clock = Clock::start(Time(1_000_000), Instant::now());
    (Broker::new(BrokerOptions::default(), 1, Parts::default()), clock)
}

fn reloader(broker: &Arc<Broker>) -> Reloader {
    Reloader {
        access: None,
        broker: Arc::clone(broker),
        certificates: Arc::new(LiveCertificates::new(std::iter::empty())),
    }
}

fn add(kind: Kind, value: &str, seconds: Option<u64>) -> Request {
    Request::AddBan {
        kind,
        value: value.to_owned(),
        seconds,
        note: "noise".to_owned(),
    }
}

#[test]
fn bans_are_made_listed_and_lifted_over_a_socket_that_nobody_else_may_open_and_outlive_the_broker() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let (broker, clock) = broker();
    let control = Control::start(here, reloader(&broker), None, clock).unwrap();
    assert_eq!(
        fs::metadata(here.join("control")).unwrap().permissions().mode() & 0o777,
        0o600
    );
    for request in [
        add(Kind::Address, "10.0.0.0/8", None),
        add(Kind::User, "a \"b\"\n", Some(3600)),
        add(Kind::Client, "c", Some(1)),
    ] {
        assert_eq!(ask(here, &request).unwrap(), Response::Done(1));
    }
    let Response::Failed(message) = ask(here, &add(Kind::Address, "home", None)).unwrap() else {
        panic!("this is no address")
    };
    assert!(message.contains("\"home\" is not a network"), "{message}");
    let lift = |kind, value: &str| Request::LiftBan {
        kind,
        value: value.to_owned(),
    };
    assert_eq!(ask(here, &lift(Kind::Client, "c")).unwrap(), Response::Done(1));
    assert_eq!(ask(here, &lift(Kind::Client, "c")).unwrap(), Response::Done(0));
    drop((control, broker));
    assert!(matches!(
        ask(here, &Request::ListBans),
        Err(ControlError::NoBroker { .. })
    ));

    let (broker, clock) = self::broker();
    let _control = Control::start(here, reloader(&broker), None, clock).unwrap();
    let Response::Bans(bans) = ask(here, &Request::ListBans).unwrap() else {
        panic!("bans")
    };
    let known: Vec<_> = bans
        .iter()
        .map(|ban| (ban.kind, &*ban.value, ban.until.is_some(), &*ban.note))
        .collect();
    assert_eq!(
        known,
        [
            (Kind::Address, "10.0.0.0/8", false, "noise"),
            (Kind::User, "a \"b\"\n", true, "noise")
        ]
    );
    assert!(broker.bans.address("10.1.2.3".parse().unwrap(), clock.now()).is_some());
}

#[test]
fn a_damaged_file_of_bans_is_put_aside_and_what_is_no_request_is_answered() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    fs::write(here.join("bans.json"), "[{\"kind\": \"address\"").unwrap();
    let (broker, clock) = broker();
    let _control = Control::start(here, reloader(&broker), None, clock).unwrap();
    assert!(here.join("bans.json.damaged").exists() && !here.join("bans.json").exists());
    let mut stream = UnixStream::connect(here.join("control")).unwrap();
    stream.write_all(b"bans, please\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(
        answer.starts_with("{\"failed\":\"the request is not understood"),
        "{answer}"
    );
}

/// A byte now and then is no request.
#[test]
fn who_is_slow_holds_up_nobody_for_long() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let (broker, clock) = broker();
    let control = Control::start_with(Duration::from_millis(200), here, reloader(&broker), None, clock).unwrap();
    let mut slow = UnixStream::connect(here.join("control")).unwrap();
    let begin = Instant::now();
    let drip = std::thread::spawn(move || {
        while begin.elapsed() < Duration::from_secs(10) && slow.write_all(b" ").is_ok() {
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    assert_eq!(ask(here, &Request::ListBans).unwrap(), Response::Bans(Vec::new()));
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    drip.join().unwrap();
    drop(control);
}

#[test]
fn a_broker_that_stops_does_not_wait_for_who_says_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (broker, clock) = broker();
    let patience = Duration::from_secs(600);
    let control = Control::start_with(patience, folder.path(), reloader(&broker), None, clock).unwrap();
    // More than its line has places.
    let _silent: Vec<_> = (0..16)
        .map(|_| UnixStream::connect(folder.path().join("control")).unwrap())
        .collect();
    let begin = Instant::now();
    drop(control);
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
}

//! Too many, too fast, too slow: who floods the broker is slowed down or closed, and everybody else does not notice.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};
use sundew::protocol::version::Version;
use sundew::session::peer::{PublishRate, RatePolicy};
use sundew::transport::certificates::{self, CertificatesOptions};

use crate::broker::{BOTH, V311, story_with};
use crate::client::{Client, PATIENCE};
use crate::command_line::{self, free_port, sundew};
use crate::wire::{Connect, PUBACK, Packet, Publish, Will};

const HERE: Ipv4Addr = Ipv4Addr::LOCALHOST;
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// A connection from one of this machine's addresses; `None` where it is closed at once.
pub(crate) fn tcp_from(from: Ipv4Addr, port: u16) -> Option<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((from, 0)).into()).unwrap();
    socket.connect(&SocketAddr::from((HERE, port)).into()).ok()?;
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    Some(stream)
}

/// A client from there, if it is let in.
pub(crate) fn enter(from: Ipv4Addr, port: u16, version: Version, client_id: &str) -> Option<Client> {
    let mut client = Client::over(tcp_from(from, port)?, version);
    let connect = Connect {
        client_id,
        ..Connect::default()
    };
    client.send_lossy(&connect.encode(version));
    match client.receive_unless_closed()? {
        Packet::ConnAck { reason: 0, .. } => Some(client),
        packet => panic!("CONNACK, but there came {packet:?}"),
    }
}

#[test]
fn an_address_has_so_many_connections_and_no_more() {
    let set = |options: &mut sundew::server::ServerOptions, _: &mut _| {
        options.listeners[0].0.connections_per_address_max = Some(3);
    };
    story_with(set, BOTH, |broker, version| {
        let enter = |from, client_id| enter(from, broker.port, version, client_id);
        let mut clients: Vec<_> = ["a", "b", "c"].map(|id| enter(HERE, id).unwrap()).into();
        assert!(enter(HERE, "d").is_none());
        enter(ELSEWHERE, "e").unwrap().expect_ping_answered();
        drop(clients.pop());
        let begin = Instant::now();
        while enter(HERE, "d").is_none() {
            assert!(begin.elapsed() < PATIENCE, "the place of who has gone stays taken");
        }
        clients[0].expect_ping_answered();
        assert!(broker.server.broker().metrics.sum().limit_connections > 0);
    });
}

#[test]
fn an_address_that_connects_too_fast_is_closed_and_others_are_not() {
    let set = |options: &mut sundew::server::ServerOptions, _: &mut _| {
        options.listeners[0].0.connect_rate_per_address_max = Some(5);
    };
    story_with(set, V311, |broker, version| {
        let begin = Instant::now();
        let entered = (0..40)
            .filter(|_| enter(HERE, broker.port, version, "c").is_some())
            .count();
        let allowed = 6 + begin.elapsed().as_millis() as usize / 200;
        assert!((5..=allowed).contains(&entered), "{entered} of at most {allowed}");
        enter(ELSEWHERE, broker.port, version, "d")
            .unwrap()
            .expect_ping_answered();
        let refused = broker.server.broker().metrics.sum().limit_connect_rate;
        assert_eq!(refused as usize, 40 - entered);
    });
}

#[test]
fn a_listener_that_is_connected_to_too_fast_lets_all_wait_and_refuses_nobody() {
    let set = |options: &mut sundew::server::ServerOptions, _: &mut _| {
        options.listeners[0].0.connect_rate_max = Some(50);
    };
    story_with(set, V311, |broker, version| {
        let begin = Instant::now();
        for number in 0..100 {
            enter(HERE, broker.port, version, &number.to_string()).unwrap();
        }
        assert!(begin.elapsed() >= Duration::from_millis(900), "{:?}", begin.elapsed());
    });
}

/// A flood from an address that is banned, or has come too often, is no reason for anybody else to wait.
#[test]
fn who_is_kept_out_takes_nothing_of_the_rate_of_a_listener() {
    let set = |options: &mut sundew::server::ServerOptions, _: &mut _| {
        options.listeners[0].0.connect_rate_max = Some(2);
        options.listeners[0].0.connect_rate_per_address_max = Some(1);
    };
    story_with(set, V311, |broker, version| {
        let begin = Instant::now();
        let entered = (0..100).filter(|_| enter(HERE, broker.port, version, "c").is_some());
        assert!(entered.count() <= 2 + begin.elapsed().as_secs() as usize);
        enter(ELSEWHERE, broker.port, version, "d")
            .unwrap()
            .expect_ping_answered();
        assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
    });
}

/// It is read again in time, everything arrives in order, and its keep alive of a second does not end it meanwhile.
#[test]
fn who_publishes_too_fast_is_slowed_down_and_loses_nothing() {
    let rate = PublishRate {
        messages: Some(100),
        bytes: None,
        policy: RatePolicy::Delay,
    };
    let set = move |options: &mut sundew::server::ServerOptions, _: &mut _| {
        options.listeners[0].1.publish_rate = Some(rate);
    };
    story_with(set, BOTH, |broker, version| {
        const COUNT: u16 = 400;
        let mut subscriber = broker.client("subscriber", version);
        subscriber.subscribe("t", 0);
        let connect = Connect {
            client_id: "publisher",
            keep_alive: 1,
            ..Connect::default()
        };
        let (mut publisher, _) = broker.connect(version, &connect);
        let begin = Instant::now();
        let mut flood = Vec::new();
        for number in 1..=COUNT {
            flood.extend(Publish::new("t", number.to_string(), 1).id(number).encode(version));
        }
        publisher.send(&flood);
        for number in 1..=COUNT {
            subscriber.expect_text("t", &number.to_string());
        }
        for number in 1..=COUNT {
            publisher.await_ack(PUBACK, number);
        }
        assert!(begin.elapsed() >= Duration::from_millis(2900), "{:?}", begin.elapsed());
        publisher.expect_ping_answered();
    });
}

/// Whoever is over a limit is told which kind it was, where its version has words for it.
#[test]
fn packets_topics_wills_and_lists_of_properties_are_as_large_as_the_options_say() {
    let set = |options: &mut sundew::server::ServerOptions, _: &mut _| {
        options.broker.connect_bytes_max = 2000;
        options.broker.will_bytes_max = 10;
        options.broker.decode.topic_bytes_max = 10;
        options.broker.decode.user_properties_max = 2;
    };
    story_with(set, BOTH, |broker, version| {
        let mut client = broker.open(version);
        client.send(b"\x10\xb8\x17\x00\x04MQTT");
        client.send(&[version.level()]);
        if version.has_properties() {
            assert_eq!(client.expect_connack().1, 0x95, "before the rest has come");
        }
        client.expect_closed();
        let will = |payload| Connect {
            will: Some(Will {
                topic: "w",
                payload,
                ..Will::default()
            }),
            ..Connect::default()
        };
        let refused = if version.has_properties() { 0x95 } else { 3 };
        assert_eq!(broker.open(version).try_connect(&will(b"01234567890")).1, refused);
        assert_eq!(broker.open(version).try_connect(&will(b"0123456789")).1, 0);
        let mut client = broker.client("c", version);
        client.subscribe("0123456789", 0);
        client.publish(Publish::new("0123456789", "x", 1));
        client.expect_text("0123456789", "x");
        client.send(&Publish::new("01234567890", "x", 0).encode(version));
        client.expect_disconnect(0x90);
        if version.has_properties() {
            let mut client = broker.client("c", version);
            let publish =
                |count| Publish::new("t", "x", 1).with(|p| (0..count).fold(p, |p, _| p.push_user_property("k", "v")));
            client.publish(publish(2));
            client.send(&publish(3).encode(version));
            client.expect_disconnect(0x97);
        }
        let metrics = broker.server.broker().metrics.sum();
        assert_eq!((metrics.limit_packet_size, metrics.limit_topic_bytes), (1, 1));
    });
}

/// Half the time that a message takes to its publisher and back, of many.
pub(crate) fn median_round_trip(canary: &mut Client) -> Duration {
    const ROUNDS: usize = 301;
    let mut times: Vec<_> = (0..ROUNDS)
        .map(|round| {
            let begin = Instant::now();
            canary.publish(Publish::new("canary", round.to_string(), 0));
            canary.expect_text("canary", &round.to_string());
            begin.elapsed()
        })
        .collect();
    times.sort();
    times[ROUNDS / 2]
}

/// The resident memory of a process, KiB.
pub(crate) fn resident_kib(pid: u32) -> usize {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Three times as long as in calm; the rest is for a machine that has other things to do.
pub(crate) fn bound(calm: Duration) -> Duration {
    calm * 3 + Duration::from_millis(3)
}

/// 5,000 connections that say nothing, some that say it slowly, some that begin packets of which the rest never comes.
#[test]
fn a_crowd_that_does_not_enter_costs_little_memory_and_nobody_time() {
    const SILENT: usize = 5000;
    const UNFINISHED: usize = 500;
    rlimit::increase_nofile_limit(SILENT as u64 + 2000).unwrap();
    let port = free_port();
    let mut command = sundew(&["-p", &port]);
    command.env("SUNDEW__LIMITS__UNAUTHENTICATED_BYTES_MAX", "8MiB");
    let broker = command_line::Broker::start(&mut command);
    let port: u16 = port.parse().unwrap();
    let mut canary = enter(HERE, port, Version::V311, "canary").unwrap();
    canary.subscribe("canary", 0);
    let calm = median_round_trip(&mut canary);
    let before = resident_kib(broker.id());

    let address = |number: usize| Ipv4Addr::new(127, 1, (number / 200) as u8, (number % 200) as u8 + 1);
    let silent: Vec<_> = (0..SILENT)
        .filter_map(|number| tcp_from(address(number), port))
        .collect();
    assert_eq!(silent.len(), SILENT);
    let with_silent = resident_kib(broker.id());
    // The beginning of a CONNECT of 120 KB, and nearly all of it.
    let unfinished: Vec<_> = (0..UNFINISHED)
        .filter_map(|number| tcp_from(address(number), port))
        .map(|mut stream| {
            let mut packet = b"\x10\xc0\xa9\x07\x00\x04MQTT\x04\x02\x00\x00\xff\xff".to_vec();
            packet.resize(100_000, b'x');
            let _ = stream.write_all(&packet); // those beyond the bound are closed
            stream
        })
        .collect();
    let crowded = median_round_trip(&mut canary);
    for (number, mut stream) in silent.iter().step_by(10).enumerate() {
        let _ = stream.write_all(&[b"\x10\x20\x00"[number % 3]]); // slow, or not MQTT at all
    }
    let slow = median_round_trip(&mut canary);
    let after = resident_kib(broker.id());
    assert!(
        crowded <= bound(calm) && slow <= bound(calm),
        "{calm:?} in calm, {crowded:?}, {slow:?}"
    );
    let each = (with_silent.saturating_sub(before) * 1024) / SILENT;
    assert!(each < 4 * 1024, "{each} bytes for each that says nothing");
    // 50 MB were sent; 8 MiB are held, and some more in allocations that grow.
    let grown = after.saturating_sub(with_silent);
    assert!(grown < 40 * 1024, "{grown} KiB for the unfinished");
    enter(ELSEWHERE, port, Version::V311, "late")
        .unwrap()
        .expect_ping_answered();
    drop((silent, unfinished));
}

/// 5,000 TLS handshakes that never end: most after half of the first message, some after the answer to it, which is what costs.
#[test]
fn handshakes_that_stay_half_open_cost_little_memory_and_nobody_time() {
    const HALF: usize = 4500;
    const ANSWERED: usize = 500;
    rlimit::increase_nofile_limit((HALF + ANSWERED) as u64 + 2000).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let options = CertificatesOptions {
        folder: folder.path().join("certs"),
        ..CertificatesOptions::default()
    };
    certificates::make(&options).unwrap();
    let (plain, tls) = (free_port(), free_port());
    let config = folder.path().join("sundew.toml");
    let text = format!(
        "[[listeners]]\naddress = \"127.0.0.1:{plain}\"\n[[listeners]]\naddress = \"0.0.0.0:{tls}\"\nconnect_timeout = \"60s\"\n\
         [listeners.tls]\ncertificate = \"certs/server.pem\"\nkey = \"certs/server.key\"\n\
         [storage]\ndirectory = \"data\"\n[auth]\nallow_anonymous = true\n"
    );
    fs::write(&config, text).unwrap();
    let broker = command_line::Broker::start(&mut sundew(&["-c", config.to_str().unwrap()]));
    let (plain, tls): (u16, u16) = (plain.parse().unwrap(), tls.parse().unwrap());
    let mut canary = enter(HERE, plain, Version::V311, "canary").unwrap();
    canary.subscribe("canary", 0);
    let calm = median_round_trip(&mut canary);
    let before = resident_kib(broker.id());

    let hello = client_hello();
    let open = |number: usize, bytes: &[u8]| {
        let from = Ipv4Addr::new(127, 3, (number / 200) as u8, (number % 200) as u8 + 1);
        let mut stream = tcp_from(from, tls).unwrap();
        stream.write_all(bytes).unwrap();
        stream
    };
    let half: Vec<_> = (0..HALF)
        .map(|number| open(number, &hello[..hello.len() / 2]))
        .collect();
    let with_half = resident_kib(broker.id());
    let crowded = median_round_trip(&mut canary);
    let answered: Vec<_> = (HALF..HALF + ANSWERED).map(|number| open(number, &hello)).collect();
    let computing = median_round_trip(&mut canary);
    for mut stream in &answered {
        stream.read_exact(&mut [0; 5]).unwrap(); // the answer begins
    }
    let after = resident_kib(broker.id());
    assert!(
        crowded <= bound(calm) && computing <= bound(calm),
        "{calm:?} in calm, {crowded:?}, {computing:?}"
    );
    let each = with_half.saturating_sub(before) * 1024 / HALF;
    let each_answered = after.saturating_sub(with_half) * 1024 / ANSWERED;
    assert!(
        each < 16 * 1024 && each_answered < 128 * 1024,
        "{each} and {each_answered} bytes each"
    );
    drop((half, answered));
}

/// What a TLS client says first.
fn client_hello() -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let name = "localhost".try_into().unwrap();
    let mut client = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    hello
}

/// Wrong passwords as fast as they are refused, from addresses that are not banned.
#[test]
fn a_storm_of_passwords_costs_nobody_time_and_is_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let users = folder.path().join("users");
    let added = Command::new("sh")
        .args(["-c", "echo secret | \"$0\" user add canary --stdin --file \"$1\""])
        .args([env!("CARGO_BIN_EXE_sundew").as_ref(), users.as_os_str()])
        .status()
        .unwrap();
    assert!(added.success());
    let port = free_port();
    let mut command = sundew(&["-p", &port]);
    command.env("SUNDEW__AUTH__PASSWORD_FILE", &users);
    let broker = command_line::Broker::start(&mut command);
    let port: u16 = port.parse().unwrap();
    let as_canary = |password: &'static [u8]| Connect {
        client_id: "canary",
        user_name: Some("canary"),
        password: Some(password),
        ..Connect::default()
    };
    let mut canary = Client::open(port, Version::V311);
    canary.connect(&as_canary(b"secret"));
    canary.subscribe("canary", 0);
    let calm = median_round_trip(&mut canary);
    let before = resident_kib(broker.id());
    let (is_over, refused) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let storm: Vec<_> = (0..32u8)
        .map(|number| {
            let (is_over, refused) = (Arc::clone(&is_over), Arc::clone(&refused));
            let guess = as_canary(b"guess").encode(Version::V311);
            std::thread::spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    let mut stream = tcp_from(Ipv4Addr::new(127, 2, 0, number + 1), port).unwrap();
                    // Many wait, and on a busy machine a hash takes its time.
                    stream.set_read_timeout(Some(6 * PATIENCE)).unwrap();
                    stream.write_all(&guess).unwrap();
                    let mut answer = [0; 4];
                    stream.read_exact(&mut answer).unwrap();
                    assert!(matches!(answer[3], 3 | 5), "{answer:?}");
                    refused.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let begin = Instant::now();
    while refused.load(Ordering::Relaxed) < 8 {
        assert!(begin.elapsed() < 6 * PATIENCE, "nobody is refused");
        std::thread::sleep(Duration::from_millis(10));
    }
    let stormy = median_round_trip(&mut canary);
    let grown = resident_kib(broker.id()).saturating_sub(before);
    is_over.store(true, Ordering::Relaxed);
    for thread in storm {
        thread.join().unwrap();
    }
    assert!(stormy <= bound(calm), "{calm:?} in calm, {stormy:?} in the storm");
    assert!(grown < 40 * 1024, "{grown} KiB more, a hash has 19 MiB");
}

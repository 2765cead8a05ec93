//! Hostile input to a running broker: it says goodbye to whoever sends it, grows by nothing, and serves everybody else.
//!
//! `SUNDEW_HOSTILE_INPUTS` is the number of inputs, `SUNDEW_FUZZ_SEED` where they start from.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::client::Client;
use crate::generate::{Random, frame, mutate, with_packet};
use crate::is_long;
use crate::program::Program;
use sundew::codec::{Role, encode};
use sundew::protocol::version::Version;

/// Hostile clients at a time.
const THREADS: usize = 4;
/// Inputs of one of them between two round trips of its canary.
const INPUTS_PER_ROUND_TRIP: usize = 100;
/// Memory that the broker may grow by, once a tenth of the inputs have filled what its limits allow it to keep.
const GROWTH_MAX: u64 = 32 << 20;

/// Sessions and messages that hostile input leaves behind are kept like everybody's: few, and not long.
const CONFIGURATION: &str = r#"
[[listeners]]
name = "mqtt"
address = "127.0.0.1:0"
[[listeners]]
name = "websocket"
address = "127.0.0.1:0"
protocol = "websocket"
[auth]
allow_anonymous = true
[limits]
sessions_max = 1000
retained_messages_max = 1000
[mqtt]
session_expiry_max = "1s"
session_expiry_v3 = "1s"
[queue]
messages_max = 1000
bytes_max = "1MiB"
policy = "drop_oldest"
"#;

#[test]
fn hostile_clients_harm_nobody_else() {
    let number = |name, default| std::env::var(name).map_or(default, |text| text.parse().expect("a number"));
    let inputs = number("SUNDEW_HOSTILE_INPUTS", if is_long() { 100_000 } else { 2_000 });
    let first_seed = number("SUNDEW_FUZZ_SEED", 1) as u64;
    let program = Program::start(CONFIGURATION, None);
    let addresses = ["mqtt", "websocket"].map(|listener| program.address(listener));
    let started = Instant::now();
    let (done, round_trips) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let memory_then = std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (done, round_trips) = (&done, &round_trips);
            scope.spawn(move || {
                let topic = format!("canary/{thread}");
                let mut canary = Client::connect(addresses[0], 1, &topic).unwrap().expect("served");
                canary.subscribe(&topic, 2);
                for input in (thread..inputs).step_by(THREADS) {
                    let seed = first_seed + input as u64;
                    attack(addresses, seed).unwrap_or_else(|error| panic!("input with seed {seed}: {error}"));
                    done.fetch_add(1, Ordering::Relaxed);
                    if (input / THREADS).is_multiple_of(INPUTS_PER_ROUND_TRIP) {
                        let served = canary.round_trip(&topic, &seed.to_be_bytes());
                        served.unwrap_or_else(|error| panic!("canary, after the input with seed {seed}: {error}"));
                        round_trips.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        while done.load(Ordering::Relaxed) < inputs / 10 {
            std::thread::sleep(Duration::from_millis(5));
        }
        program.memory()
    });
    let memory_now = program.memory();
    eprintln!(
        "{inputs} hostile inputs in {:.1} s, {} canary round trips, memory {} KiB after a tenth, {} KiB after all, {} descriptors",
        started.elapsed().as_secs_f64(),
        round_trips.load(Ordering::Relaxed),
        memory_then / 1024,
        memory_now / 1024,
        program.descriptors(),
    );
    assert!(memory_now < memory_then + GROWTH_MAX, "the broker grows");
    let (code, log) = program.terminate();
    assert_eq!(code, Some(0), "{}", log.join("\n"));
    let panicked = log.iter().any(|line| line.contains("panicked"));
    assert!(!panicked, "{}", log.join("\n"));
}

/// One hostile client. An error says that the broker did not let it go.
fn attack(addresses: [SocketAddr; 2], seed: u64) -> io::Result<()> {
    let mut random = Random::new(seed);
    let mut bytes = session(&mut random);
    let is_websocket = random.once_in(8);
    if is_websocket {
        bytes = in_websocket(&mut random, &bytes);
    }
    let mut socket = TcpStream::connect(addresses[usize::from(is_websocket)])?;
    socket.set_read_timeout(Some(Duration::from_secs(20)))?;
    socket.set_nodelay(true)?;
    let pieces = random.pick(&[1, 1, 1, 2, 5]);
    for piece in bytes.chunks(bytes.len().div_ceil(pieces).max(1)) {
        if socket.write_all(piece).is_err() {
            return Ok(()); // it has hung up: rightly
        }
    }
    if random.once_in(4) {
        return Ok(()); // gone without a word, maybe with answers unread
    }
    if socket.shutdown(Shutdown::Write).is_err() {
        return Ok(());
    }
    let mut answers = Vec::new();
    match socket.read_to_end(&mut answers) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(error),
        _ => Ok(()),
    }
}

/// A client's packets, whole, broken, cut short or out of order; or no packets at all.
fn session(random: &mut Random) -> Vec<u8> {
    let mut bytes = Vec::new();
    if random.once_in(10) {
        bytes.extend((0..random.below(200)).map(|_| random.next() as u8));
        return bytes;
    }
    let version = random.pick(&Version::ALL);
    if !random.once_in(10) {
        let mut packet = connect(random, version);
        if random.once_in(4) {
            mutate(random, &mut packet);
        }
        bytes.extend(packet);
    }
    for _ in 0..random.below(6) {
        let mut packet = packet_for_broker(random, version);
        if random.once_in(2) {
            mutate(random, &mut packet);
        }
        bytes.extend(packet);
    }
    if random.once_in(5) {
        bytes.truncate(random.below(bytes.len() + 1));
    }
    bytes
}

/// A CONNECT: whatever else comes is mostly refused without one.
fn connect(random: &mut Random, version: Version) -> Vec<u8> {
    loop {
        let packet = packet(random, version, Role::Server);
        if packet[0] >> 4 == 1 {
            return packet;
        }
    }
}

/// Mostly of the version that the connection speaks, mostly one that clients send.
fn packet_for_broker(random: &mut Random, version: Version) -> Vec<u8> {
    if random.once_in(8) {
        frame(random).2
    } else {
        packet(random, version, Role::Server)
    }
}

fn packet(random: &mut Random, version: Version, reader: Role) -> Vec<u8> {
    let mut bytes = Vec::new();
    with_packet(random, version, reader, &mut |packet| {
        encode(packet, version, &mut bytes).expect("what is generated can be written");
    });
    bytes
}

/// The request that opens a WebSocket, and the bytes in frames; one of them broken now and then.
fn in_websocket(random: &mut Random, bytes: &[u8]) -> Vec<u8> {
    let mut all =
        b"GET /mqtt HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n"
            .to_vec();
    if random.once_in(10) {
        mutate(random, &mut all);
    }
    for piece in bytes.chunks(random.pick(&[1, 7, 100])) {
        let mut frame = vec![0x82, 0x80 | piece.len() as u8, 0, 0, 0, 0]; // binary, masked with zeros
        frame.extend_from_slice(piece);
        if random.once_in(20) {
            mutate(random, &mut frame);
        }
        all.extend(frame);
    }
    all
}

//! What keeping costs: acknowledgements per second by publishers and sync mode, time to start again, and what a snapshot does to latency.
//!
//! `cargo bench --bench storage` (a few minutes), or one of `-- commit`, `-- start`, `-- snapshot`. Figures of one run are compared with each other,
//! not with those of another machine. Everything is on loopback and in a scratch directory: `TMPDIR` says on which device.

#![allow(clippy::print_stdout)] // that is what it is for
#![allow(missing_docs)]
#![allow(clippy::disallowed_methods)] // a benchmark reads the clock

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use sundew::broker::Parts;
use sundew::server::{Server, ServerOptions};
use sundew::storage::disk::files::{Files, OsFiles};
use sundew::storage::disk::{StorageOptions, SyncMode};
use sundew::transport::options::ListenAddress;

fn main() {
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with("--"))
        .collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["child", directory] => started(Path::new(directory)),
        ["commit"] => group_commit(),
        ["start"] => start_again(),
        ["snapshot"] => snapshot(),
        _ => {
            group_commit();
            start_again();
            snapshot();
        }
    }
}

fn server(storage: Option<StorageOptions>) -> (Server, String) {
    let mut options = ServerOptions {
        storage,
        ..ServerOptions::default()
    };
    options.listeners.truncate(1);
    let any = "127.0.0.1:0".parse().expect("an address");
    options.listeners[0].0.addresses = vec![ListenAddress::Tcp(any)];
    let server = Server::start(options, Parts::default()).expect("it starts");
    let address = server.addresses()[0].1[0].to_string();
    (server, address)
}

fn storage(directory: &Path, sync: SyncMode) -> StorageOptions {
    let mut options = StorageOptions::in_directory(directory);
    options.disk.sync = sync;
    options
}

/// A client of MQTT 3.1.1, as few lines as it takes.
struct Client(TcpStream);

impl Client {
    fn connect(address: &str, id: &str, clean: bool) -> Self {
        let mut stream = TcpStream::connect(address).expect("the broker is there");
        stream.set_nodelay(true).expect("a socket");
        let mut packet = vec![0x10, 12 + id.len() as u8];
        packet.extend_from_slice(b"\x00\x04MQTT\x04");
        packet.extend_from_slice(&[u8::from(clean) << 1, 0, 0, 0, id.len() as u8]);
        packet.extend_from_slice(id.as_bytes());
        stream.write_all(&packet).expect("written");
        let mut connack = [0; 4];
        stream.read_exact(&mut connack).expect("CONNACK");
        assert_eq!(connack[3], 0, "refused");
        Self(stream)
    }

    fn subscribe(&mut self, filter: &str, qos: u8) {
        let mut packet = vec![0x82, 5 + filter.len() as u8, 0, 1, 0, filter.len() as u8];
        packet.extend_from_slice(filter.as_bytes());
        packet.push(qos);
        self.0.write_all(&packet).expect("written");
        let mut suback = [0; 5];
        self.0.read_exact(&mut suback).expect("SUBACK");
    }
}

/// PUBLISH at QoS 1, retained or not.
fn publish(topic: &str, id: u16, payload: &[u8], retain: bool, out: &mut Vec<u8>) {
    out.push(0x32 | u8::from(retain));
    let mut rest = 4 + topic.len() + payload.len();
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
    out.extend_from_slice(&(topic.len() as u16).to_be_bytes());
    out.extend_from_slice(topic.as_bytes());
    out.extend_from_slice(&id.to_be_bytes());
    out.extend_from_slice(payload);
}

/// Acknowledgements per second, each publisher with one message under way: retained ones, so that each has to be kept.
fn group_commit() {
    const SECONDS: u64 = 3;
    println!("acknowledged messages per second (QoS 1, retained, 100 bytes, one under way for each publisher)");
    println!(
        "{:>10} {:>12} {:>12} {:>12} {:>12}",
        "publishers", "memory", "os", "interval", "always"
    );
    for publishers in [1, 8, 64, 256] {
        let mut figures = Vec::new();
        for sync in [
            None,
            Some(SyncMode::Os),
            Some(SyncMode::Interval),
            Some(SyncMode::Always),
        ] {
            let directory = tempfile::tempdir().expect("a scratch directory");
            let (server, address) = server(sync.map(|sync| storage(directory.path(), sync)));
            let (count, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
            let threads: Vec<_> = (0..publishers)
                .map(|n| {
                    let (address, count, stop) = (address.clone(), Arc::clone(&count), Arc::clone(&stop));
                    thread::spawn(move || {
                        let mut client = Client::connect(&address, &format!("p{n}"), true);
                        let (mut packet, mut ack) = (Vec::new(), [0; 4]);
                        publish(&format!("t/{n}"), 1, &[b'x'; 100], true, &mut packet);
                        while !stop.load(Ordering::Relaxed) {
                            client.0.write_all(&packet).expect("written");
                            client.0.read_exact(&mut ack).expect("PUBACK");
                            count.fetch_add(1, Ordering::Relaxed);
                        }
                    })
                })
                .collect();
            thread::sleep(Duration::from_millis(500));
            let (before, begin) = (count.load(Ordering::Relaxed), Instant::now());
            thread::sleep(Duration::from_secs(SECONDS));
            let rate = (count.load(Ordering::Relaxed) - before) as f64 / begin.elapsed().as_secs_f64();
            stop.store(true, Ordering::Relaxed);
            threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
            server.stop();
            figures.push(rate);
        }
        println!(
            "{publishers:>10} {:>12.0} {:>12.0} {:>12.0} {:>12.0}",
            figures[0], figures[1], figures[2], figures[3]
        );
    }
}

const MILLION: usize = 1_000_000;

/// Publishes a million messages as fast as they are acknowledged.
fn fill(address: &str, topic: impl Fn(usize) -> String, retain: bool) {
    let client = Client::connect(address, "filler", true);
    let mut reader = client.0.try_clone().expect("a socket");
    let acknowledged = Arc::new(AtomicU64::new(0));
    let seen = Arc::clone(&acknowledged);
    let acks = thread::spawn(move || {
        let mut buffer = [0; 65_536];
        let mut bytes = 0;
        while bytes < MILLION * 4 {
            bytes += reader.read(&mut buffer).expect("PUBACK");
            seen.store(bytes as u64 / 4, Ordering::Relaxed);
        }
    });
    let mut writer = io::BufWriter::with_capacity(1 << 16, client.0);
    let mut packet = Vec::new();
    for n in 0..MILLION {
        packet.clear();
        publish(&topic(n), (n % 50_000) as u16 + 1, &[b'x'; 100], retain, &mut packet);
        writer.write_all(&packet).expect("written");
        while n as u64 > acknowledged.load(Ordering::Relaxed) + 20_000 {
            writer.flush().expect("written");
            thread::yield_now();
        }
    }
    writer.flush().expect("written");
    acks.join().expect("no panic");
}

/// How long it takes to start with a million retained, or queued, messages: from a snapshot, and from the log.
fn start_again() {
    println!("start with a million messages of 100 bytes, seconds and MiB of memory");
    for (name, retain) in [("retained", true), ("queued", false)] {
        let directory = tempfile::tempdir().expect("a scratch directory");
        let (server, address) = server(Some(storage(directory.path(), SyncMode::Interval)));
        if retain {
            fill(&address, |n| format!("home/room/{n}/state"), true);
        } else {
            Client::connect(&address, "away", false).subscribe("q/#", 1);
            fill(&address, |_| "q/one".to_owned(), false);
        }
        drop(server); // as if it had been killed: there is a log to replay
        let least = if retain { MILLION } else { 0 };
        println!("{name:>10} {:>12} {}", "log", child(directory.path(), least));
        println!("{name:>10} {:>12} {}", "snapshot", child(directory.path(), least));
    }
}

/// Starts on a directory in a process of its own, and stops in order.
fn child(directory: &Path, retained_min: usize) -> String {
    // A broker that is dropped gives its directory back when its store has ended, which may be a moment later.
    while OsFiles::new(directory).lock().is_err() {
        thread::sleep(Duration::from_millis(5));
    }
    let program = std::env::current_exe().expect("this program");
    let output = std::process::Command::new(program)
        .args(["child".as_ref(), directory.as_os_str()])
        .output()
        .expect("it runs");
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let retained = text
        .split(' ')
        .zip(text.split(' ').skip(1))
        .find(|(_, word)| *word == "retained;");
    let retained = retained.and_then(|(number, _)| number.parse::<usize>().ok());
    assert!(
        retained.is_some_and(|retained| retained >= retained_min),
        "lost: {text}"
    );
    text
}

fn started(directory: &Path) {
    let begin = Instant::now();
    let (server, _) = server(Some(storage(directory, SyncMode::Interval)));
    let (took, memory) = (begin.elapsed(), resident_mib());
    let retained = server.broker().retained.read().expect("no panic").len();
    let sampling = Arc::new(AtomicBool::new(true));
    let goes_on = Arc::clone(&sampling);
    let sampler = thread::spawn(move || {
        let mut highest = 0.0f64;
        while goes_on.load(Ordering::Relaxed) {
            highest = highest.max(resident_mib());
            thread::sleep(Duration::from_millis(5));
        }
        highest
    });
    let begin = Instant::now();
    server.stop();
    sampling.store(false, Ordering::Relaxed);
    println!(
        "{:.2} s, {memory:.0} MiB, {retained} retained; stop with a snapshot {:.2} s, at most {:.0} MiB meanwhile",
        took.as_secs_f64(),
        begin.elapsed().as_secs_f64(),
        sampler.join().expect("no panic")
    );
}

fn resident_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: f64 = status
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse().ok())
        .unwrap_or(0.0);
    pages * 4096.0 / 1048576.0
}

/// Latency from PUBLISH to delivery, 2,000 messages a second, with a million retained messages: without and with snapshots being made.
fn snapshot() {
    let directory = tempfile::tempdir().expect("a scratch directory");
    let (server, address) = server(Some(storage(directory.path(), SyncMode::Interval)));
    fill(&address, |n| format!("home/room/{n}/state"), true);
    println!("publish to deliver, microseconds, 2,000 messages a second, a million retained messages");
    for (name, qos) in [("QoS 0", 0), ("QoS 1", 1)] {
        let quiet = probe(&address, qos);
        let memory = resident_mib();
        let (sampling, highest) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicU64::new(0)));
        let busy = thread::scope(|scope| {
            scope.spawn(|| {
                while sampling.load(Ordering::Relaxed) {
                    server.broker().store.compact();
                    highest.fetch_max(resident_mib() as u64, Ordering::Relaxed);
                    thread::sleep(Duration::from_millis(5));
                }
            });
            let busy = probe(&address, qos);
            sampling.store(false, Ordering::Relaxed);
            busy
        });
        println!(
            "{name}: quiet p50 {} p99 {} p99.9 {}; during snapshots p50 {} p99 {} p99.9 {}; memory {memory:.0} → {} MiB",
            quiet[0],
            quiet[1],
            quiet[2],
            busy[0],
            busy[1],
            busy[2],
            highest.load(Ordering::Relaxed)
        );
    }
    server.stop();
}

/// p50, p99 and p99.9 of ten seconds, microseconds.
fn probe(address: &str, qos: u8) -> [u128; 3] {
    const MESSAGES: usize = 20_000;
    let mut subscriber = Client::connect(address, "probe-sub", true);
    subscriber.subscribe("probe", qos);
    let begin = Instant::now();
    let reader = thread::spawn(move || {
        let mut latencies = Vec::with_capacity(MESSAGES);
        while latencies.len() < MESSAGES {
            let mut header = [0; 2];
            subscriber.0.read_exact(&mut header).expect("PUBLISH");
            let mut body = vec![0; header[1].into()];
            subscriber.0.read_exact(&mut body).expect("PUBLISH");
            let (_, sent) = body.split_last_chunk::<8>().expect("a moment");
            let sent = u128::from(u64::from_be_bytes(*sent));
            latencies.push((begin.elapsed().as_nanos() - sent) / 1000);
            if qos > 0 {
                subscriber.0.write_all(&[0x40, 2, body[7], body[8]]).expect("PUBACK");
            }
        }
        latencies.sort_unstable();
        [50_000, 99_000, 99_900].map(|share| latencies[(latencies.len() - 1) * share / 100_000])
    });
    let mut publisher = Client::connect(address, "probe-pub", true);
    let mut acks = publisher.0.try_clone().expect("a socket");
    let drain = thread::spawn(move || {
        let mut buffer = [0; 4096];
        while acks.read(&mut buffer).is_ok_and(|count| count > 0) {}
    });
    let mut packet = Vec::new();
    for n in 0..MESSAGES {
        let due = begin + Duration::from_micros(500 * n as u64);
        thread::sleep(due.saturating_duration_since(Instant::now()));
        packet.clear();
        publish(
            "probe",
            (n % 60_000) as u16 + 1,
            &(begin.elapsed().as_nanos() as u64).to_be_bytes(),
            false,
            &mut packet,
        );
        if qos == 0 {
            packet = [&[0x30, 15][..], &packet[2..9], &packet[11..]].concat();
        }
        publisher.0.write_all(&packet).expect("written");
    }
    let result = reader.join().expect("no panic");
    publisher.0.shutdown(std::net::Shutdown::Both).expect("a socket");
    drain.join().expect("no panic");
    result
}

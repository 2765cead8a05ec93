//! Thousands of connections, and more than there are descriptors for.
//!
//! `SUNDEW_CROWD_CONNECTIONS` is the number of connections; this process and the broker each need a descriptor for every one.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::client::Client;
use crate::is_long;
use crate::program::Program;

/// Connections of this process at a time while they are opened.
const THREADS: usize = 4;
/// Memory of one idle connection with its session, bytes, kernel buffers not counted.
const IDLE_BYTES_MAX: u64 = 2560;
/// Connections with fewer say little about memory: the allocator takes it in large pieces.
const MEASURED_FROM: usize = 5_000;

const CONFIGURATION: &str =
    "[[listeners]]\nname = \"mqtt\"\naddress = \"127.0.0.1:0\"\n[auth]\nallow_anonymous = true\n";

#[test]
fn a_crowd_is_held_and_a_part_of_it_publishes() {
    let wanted = if is_long() { 18_000 } else { 800 };
    let count = std::env::var("SUNDEW_CROWD_CONNECTIONS").map_or(wanted, |text| text.parse().expect("a number"));
    let descriptors = rlimit::increase_nofile_limit(u64::MAX).unwrap();
    assert!(
        descriptors > count as u64 + 100,
        "{count} connections need more descriptors than {descriptors} (ulimit -Hn)"
    );
    let program = Program::start(CONFIGURATION, None);
    let address = program.address("mqtt");
    let mut subscriber = Client::connect(address, 1, "subscriber").unwrap().expect("served");
    subscriber.subscribe("crowd/+", 0);

    let memory_before = program.memory();
    let started = Instant::now();
    let mut crowd = open(address, count);
    let opening = started.elapsed();
    let allowed = memory_before + IDLE_BYTES_MAX * count as u64;
    let memory_peak = program.memory();
    let memory_idle = settled_memory(&program, allowed);
    assert_eq!(crowd.len(), count, "some were not let in");

    let publishers = count / 9;
    let rounds = if is_long() { 20 } else { 2 };
    let started = Instant::now();
    for round in 0..rounds {
        for (number, client) in crowd[..publishers].iter_mut().enumerate() {
            client.publish(&format!("crowd/{number}"), &[round; 64], 1);
        }
        for client in &mut crowd[..publishers] {
            assert_eq!(client.receive().unwrap().0, 0x40);
        }
        for _ in 0..publishers {
            assert_eq!(subscriber.receive().unwrap().0, 0x30);
        }
    }
    let messages = publishers * usize::from(rounds);
    let publishing = started.elapsed();
    let memory_busy = program.memory();
    for client in &mut crowd {
        client.ping().expect("everybody is still served");
    }
    let idle = memory_idle.saturating_sub(memory_before) / count as u64;
    eprintln!(
        "{count} connections in {:.2} s ({:.0}/s); {messages} messages of {publishers} publishers in {:.2} s; memory {} KiB before, \
         {} KiB at its peak, {} KiB idle ({idle} bytes a connection), {} KiB after publishing; {} descriptors",
        opening.as_secs_f64(),
        count as f64 / opening.as_secs_f64(),
        publishing.as_secs_f64(),
        memory_before / 1024,
        memory_peak / 1024,
        memory_idle / 1024,
        memory_busy / 1024,
        program.descriptors(),
    );
    assert!(
        count < MEASURED_FROM || idle < IDLE_BYTES_MAX,
        "{idle} bytes a connection"
    );
    drop(crowd);
    assert_eq!(program.terminate().0, Some(0));
}

/// Memory once it is no more than `allowed`, or after a while: the allocator does not give back at once what a burst took.
fn settled_memory(program: &Program, allowed: u64) -> u64 {
    let give_up = Instant::now() + Duration::from_secs(5);
    loop {
        let memory = program.memory();
        if memory <= allowed || Instant::now() > give_up {
            return memory;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Opens connections from several source addresses.
fn open(address: SocketAddr, count: usize) -> Vec<Client> {
    std::thread::scope(|scope| {
        let opening: Vec<_> = (0..THREADS)
            .map(|thread| {
                scope.spawn(move || {
                    let numbers = (thread..count).step_by(THREADS);
                    let connected =
                        numbers.map(|n| Client::connect(address, 2 + (n % 100) as u8, &format!("device-{n}")));
                    connected.filter_map(|client| client.unwrap()).collect::<Vec<_>>()
                })
            })
            .collect();
        opening.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    })
}

#[test]
fn beyond_its_descriptors_the_broker_refuses_and_serves_on() {
    const RESERVE: usize = 64;
    let program = Program::start(CONFIGURATION, Some(300));
    let ready = program.wait_for("ready");
    assert!(
        ready.contains("connections_max=236") && ready.contains("descriptors=300"),
        "{ready}"
    );
    let address = program.address("mqtt");

    let mut crowd = Vec::new();
    let mut refused = 0;
    for number in 0..400 {
        match Client::connect(address, 1, &format!("device-{number}")).unwrap() {
            Some(client) => crowd.push(client),
            None => refused += 1,
        }
    }
    assert_eq!((crowd.len(), refused), (300 - RESERVE, 164));
    assert!(program.descriptors() < 300 - RESERVE / 2, "the reserve is not used up");
    let lines = program.lines("limits.connections_max reached");
    assert!(lines.len() == 1 && lines[0].contains("limit=236"), "{lines:?}");

    for client in &mut crowd {
        client.ping().expect("who is in is served");
    }
    let left = crowd.split_off(100);
    drop(left);
    let give_up = Instant::now() + Duration::from_secs(10);
    while crowd.len() < 300 - RESERVE {
        assert!(
            Instant::now() < give_up,
            "{} of {} places are used",
            crowd.len(),
            300 - RESERVE
        );
        crowd.extend(Client::connect(address, 1, &format!("newcomer-{}", crowd.len())).unwrap());
    }
    for client in &mut crowd {
        client.ping().expect("everybody is served again");
    }
    assert_eq!(program.terminate().0, Some(0));
}

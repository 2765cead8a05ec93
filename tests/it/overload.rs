//! More than the broker can take: what happens is what the options say, and who has nothing to do with it does not notice.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use sundew::broker::Parts;
use sundew::protocol::version::Version;
use sundew::server::ServerOptions;

use crate::abuse::{bound, median_round_trip, resident_kib};
use crate::broker::{BOTH, Broker, story_with};
use crate::client::{Client, PATIENCE};
use crate::command_line::{self, free_port, sundew};
use crate::wire::{self, Connect, PUBACK, Packet, Publish};

const KIB: usize = 1024;

/// A publisher that would fill a machine is refused at the budget, everything that was acknowledged arrives, and then there is room again.
#[test]
fn memory_is_bounded_by_its_budget_and_what_was_acknowledged_arrives() {
    const BUDGET_KIB: usize = 96 * KIB;
    const PAYLOAD_BYTES: usize = 32 * KIB;
    let port = free_port();
    let mut command = sundew(&["-p", &port]);
    command
        .env("SUNDEW__LIMITS__MEMORY_MAX", "96MiB")
        .env("SUNDEW__QUEUE__UNSTORED_BYTES_MAX", "1GiB");
    let mut broker = command_line::Broker::start(&mut command);
    let port: u16 = port.parse().unwrap();
    let enter = |connect: &Connect<'_>| {
        let mut client = Client::open(port, Version::V5);
        client.connect(connect);
        client
    };
    let mut canary = enter(&Connect {
        client_id: "canary",
        ..Connect::default()
    });
    canary.subscribe("canary", 0);
    let calm = median_round_trip(&mut canary);
    let mut away = enter(&Connect::lasting("away", Version::V5));
    away.subscribe("t", 1);
    away.disconnect();
    let mut publisher = enter(&Connect {
        client_id: "publisher",
        ..Connect::default()
    });
    let message = |number: usize| {
        let mut payload = format!("{number} ");
        payload.extend(std::iter::repeat_n('x', PAYLOAD_BYTES));
        Publish::new("t", payload, 1)
    };
    let mut kept = 0;
    while publisher.try_publish(message(kept)) == 0 {
        kept += 1;
        assert!(kept * PAYLOAD_BYTES < 2 * BUDGET_KIB * KIB, "nothing is refused");
    }
    assert!(kept * PAYLOAD_BYTES > BUDGET_KIB * KIB / 2, "{kept} were taken");
    broker.wait_for("memory is used up");
    let used = resident_kib(broker.id());
    assert!(used < BUDGET_KIB + 48 * KIB, "{used} KiB of {BUDGET_KIB}");
    assert_eq!(publisher.try_publish(message(0)), 0x97);
    assert_eq!(publisher.try_publish(Publish::new("r", "kept", 1).retained()), 0x97);
    let busy = median_round_trip(&mut canary);
    assert!(busy <= bound(calm), "{calm:?} in calm, {busy:?} with memory used up");

    let mut away = enter(&Connect::lasting("away", Version::V5));
    for number in 0..kept {
        let got = away.expect_message();
        let text = got.text();
        assert!(
            text.starts_with(&format!("{number} ")),
            "{number}, but there came {}",
            &text[..9]
        );
    }
    away.disconnect();
    broker.wait_for("enough memory again");
    let begin = Instant::now();
    while publisher.try_publish(message(0)) != 0 {
        assert!(begin.elapsed() < PATIENCE, "there is room again");
    }
}

/// A client that reads nothing until its queue is nearly full, a publisher that sends as fast as it can and a policy that refuses: nothing is
/// refused, as the publisher is made to wait.
#[test]
fn a_publisher_waits_for_a_slow_client_that_is_kept() {
    const COUNT: usize = 10_000;
    let set = |options: &mut ServerOptions, _: &mut Parts| {
        options.broker.delivery.outbox.messages_max = 4000;
        options.broker.delivery.in_flight_max = 100;
        options.broker.receive_maximum = u16::MAX;
    };
    story_with(set, BOTH, |broker, version| {
        let (mut slow, _) = broker.connect(version, &Connect::lasting("slow", version));
        slow.subscribe("t", 1);
        let connect = Connect {
            client_id: "publisher",
            keep_alive: 1,
            ..Connect::default()
        };
        let (mut publisher, _) = broker.connect(version, &connect);
        let publishing = std::thread::spawn(move || {
            // Long, so that one read of the broker is few of them.
            let message = |number: usize| Publish::new("t", format!("{number:0>500}"), 1).id(number as u16 + 1);
            for first in (0..COUNT).step_by(100) {
                let some: Vec<_> = (first..first + 100).flat_map(|n| message(n).encode(version)).collect();
                publisher.send(&some);
            }
            for number in 0..COUNT {
                let ack = publisher.await_ack(PUBACK, number as u16 + 1);
                assert_eq!(ack.reason, 0, "of message {number}");
            }
            publisher.expect_ping_answered();
        });
        let begin = Instant::now();
        while broker.server.broker().metrics.sum().publishers_paused == 0 {
            assert!(begin.elapsed() < PATIENCE, "nobody is made to wait");
            std::thread::sleep(Duration::from_millis(1));
        }
        for number in 0..COUNT {
            slow.expect_text("t", &format!("{number:0>500}"));
        }
        publishing.join().unwrap();
    });
}

/// It does not read before it has sent everything: to wait for it would be to wait for ever.
#[test]
fn a_client_that_publishes_to_itself_is_never_made_to_wait() {
    const COUNT: u16 = 5_000;
    let set = |options: &mut ServerOptions, _: &mut Parts| {
        options.broker.delivery.outbox.messages_max = 1000;
        options.broker.delivery.in_flight_max = 10;
        options.broker.receive_maximum = u16::MAX;
    };
    story_with(set, BOTH, |broker, version| {
        let (mut client, _) = broker.connect(version, &Connect::lasting("c", version));
        client.subscribe("t", 1);
        for number in 0..COUNT {
            client.send(&Publish::new("t", number.to_string(), 1).id(number + 2).encode(version));
        }
        let (mut acked, mut accepted, mut got) = (0, 0, 0);
        while acked < COUNT || (version.has_properties() && got < accepted) {
            match client.receive() {
                Packet::PubAck(ack) => {
                    acked += 1;
                    accepted += u16::from(ack.reason == 0);
                }
                Packet::Publish(message) => {
                    got += 1;
                    client.send(&wire::ack(PUBACK, message.packet_id));
                }
                other => panic!("{other:?}"),
            }
        }
        assert!(accepted >= 1000 && got >= 10, "{accepted} and {got}");
        assert_eq!(broker.server.broker().metrics.sum().publishers_paused, 0);
    });
}

/// Counted in what the broker reads of others while a quiet client waits, as time is another thing on every machine: some turns of who floods, not
/// some dozens.
#[test]
fn a_quiet_client_waits_for_few_turns_of_one_who_floods() {
    const ROUNDS: usize = 41;
    let broker = Broker::start(1, |_, _| {});
    let mut quiet = broker.client("quiet", Version::V311);
    quiet.subscribe("quiet", 0);
    let mut flooder = broker.client("flooder", Version::V311);
    let is_over = Arc::new(AtomicBool::new(false));
    let is_enough = Arc::clone(&is_over);
    let flooding = std::thread::spawn(move || {
        let flood = Publish::new("flood", "x", 0).encode(Version::V311).repeat(100_000);
        while !is_enough.load(Ordering::Relaxed) {
            flooder.send(&flood);
        }
    });
    let received = || broker.server.broker().metrics.sum().bytes_received;
    let begin = Instant::now();
    while received() < 8 << 20 {
        assert!(begin.elapsed() < PATIENCE, "no flood");
        std::thread::sleep(Duration::from_millis(1));
    }
    let mut read: Vec<_> = (0..ROUNDS)
        .map(|round| {
            let before = received();
            quiet.publish(Publish::new("quiet", round.to_string(), 0));
            quiet.expect_text("quiet", &round.to_string());
            received() - before
        })
        .collect();
    is_over.store(true, Ordering::Relaxed);
    flooding.join().unwrap();
    read.sort_unstable();
    let median = read[ROUNDS / 2];
    assert!(
        median < 2 << 20,
        "{median} bytes of the flood in a round trip; {read:?}"
    );
}

//! Clients that are silent for long give up what they cost, and nobody notices; one that only talks to itself never stands still.

use std::time::Duration;

use sundew::server::ServerOptions;

use crate::broker::{ALL, BOTH, Broker, story, story_with};
use crate::client::Client;
use crate::wire::{self, Connect, Packet, Publish};

const PARKED: &str = "$SYS/broker/clients/parked";

fn soon(options: &mut ServerOptions) {
    options.park_after = Duration::from_millis(50);
    options.broker.sys_interval_secs = 1;
}

/// A client that reads how many are parked. It is never one of them for long.
fn observer(broker: &Broker, version: sundew::protocol::version::Version) -> Client {
    let mut observer = broker.client("observer", version);
    observer.subscribe(PARKED, 0);
    observer
}

fn await_parked(observer: &mut Client, is_enough: impl Fn(u64) -> bool) {
    while !is_enough(observer.expect_message().text().parse().unwrap()) {}
}

#[test]
fn a_client_that_was_silent_is_served_as_before() {
    story_with(
        |options, _| soon(options),
        ALL,
        |broker, version| {
            let mut observer = observer(broker, version);
            let mut reader = broker.client("reader", version);
            reader.subscribe("a/#", 2);
            let mut writer = broker.client("writer", version);
            let mut idle = broker.client("idle", version);
            await_parked(&mut observer, |count| count >= 3);
            for qos in 0..3 {
                writer.publish(Publish::new("a/b", "after a silence", qos));
                reader.expect_text("a/b", "after a silence");
            }
            reader.expect_ping_answered();
            // Taken over while it is parked.
            let mut other = broker.client("idle", version);
            idle.receive_to_end();
            other.publish(Publish::new("a/b", "again", 1));
            reader.expect_text("a/b", "again");
            reader.disconnect();
        },
    );
}

/// [MQTT-3.1.2-22]
#[test]
fn a_parked_client_is_missed_when_its_keep_alive_is_over_and_its_end_is_seen() {
    story_with(
        |options, _| soon(options),
        BOTH,
        |broker, version| {
            let mut observer = observer(broker, version);
            let connect = |client_id| Connect {
                client_id,
                keep_alive: 1,
                ..Connect::default()
            };
            let (mut silent, _) = broker.connect(version, &connect("silent"));
            let (leaving, _) = broker.connect(
                version,
                &Connect {
                    keep_alive: 0,
                    ..connect("leaving")
                },
            );
            await_parked(&mut observer, |count| count >= 2);
            silent.receive_to_end();
            drop(leaving);
            await_parked(&mut observer, |count| count <= 1);
        },
    );
}

#[test]
fn parked_clients_are_let_go_when_the_broker_stops() {
    for workers in [1, 4] {
        let broker = Broker::start(workers, |options, _| soon(options));
        let version = sundew::protocol::version::Version::V5;
        let mut observer = observer(&broker, version);
        let mut clients: Vec<_> = (0..20)
            .map(|number| broker.client(&number.to_string(), version))
            .collect();
        await_parked(&mut observer, |count| count >= 20);
        let stopping = std::thread::spawn(move || broker.server.stop());
        for client in &mut clients {
            client.expect_disconnect(0x8B);
        }
        drop((clients, observer));
        assert!(stopping.join().unwrap(), "all were gone in time");
    }
}

/// What it owes is the only thing that lets it go on: nobody may wait for it, least of all for its own acknowledgements.
#[test]
fn a_client_that_publishes_to_itself_with_a_full_window_never_stands_still() {
    story(BOTH, |broker, version| {
        for qos in [1, 2] {
            let mut client = broker.client("selfish", version);
            client.subscribe("self", qos);
            let (total, window) = (2_000u16, 500u16);
            let (mut sent, mut received, mut done) = (0, 0, 0);
            while done < total || received < total {
                let mut bytes = Vec::new();
                while sent < total && sent - done < window {
                    sent += 1;
                    let publish = Publish::new("self", [0; 64], qos).id(sent);
                    bytes.extend(publish.encode(version));
                }
                client.send(&bytes);
                match client.receive() {
                    Packet::Publish(publish) => {
                        received += 1;
                        let kind = if qos == 1 { wire::PUBACK } else { wire::PUBREC };
                        client.send(&wire::ack(kind, publish.packet_id));
                    }
                    Packet::PubAck(_) | Packet::PubComp(_) => done += 1,
                    Packet::PubRec(ack) => client.send(&wire::ack(wire::PUBREL, ack.packet_id)),
                    Packet::PubRel(ack) => client.send(&wire::ack(wire::PUBCOMP, ack.packet_id)),
                    other => panic!("{other:?}"),
                }
            }
            client.disconnect();
        }
    });
}

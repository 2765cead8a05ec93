//! Clients that nobody here wrote, over a broker that is killed under them: mosquitto_sub, paho-mqtt, rumqttc.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rumqttc::{Client, Event, MqttOptions, Packet, QoS};

use crate::program::Start;
use crate::programs::installed;
use crate::random::Random;

/// Messages of each publisher.
const COUNT: usize = 400;
const PATIENCE: Duration = Duration::from_secs(60);

/// What each subscriber got, by its name: how often each payload.
type Got = Arc<Mutex<BTreeMap<&'static str, BTreeMap<String, usize>>>>;

#[test]
fn real_clients_lose_nothing_by_kill_9() {
    let folder = tempfile::tempdir().unwrap();
    let mut start = Start::on(&folder.path().join("data"), "interval").with("snapshot_after = \"1MiB\"");
    start.port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut program = start.start();
    let got = Got::default();
    let (told, tellings) = channel();
    let mosquitto = mosquitto_sub(start.port, &got, &told);
    let mut paho = Other::start(
        "paho-mqtt",
        Command::new(installed("venv/bin/python"))
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/durability/survive_paho.py"))
            .args([start.port.to_string(), COUNT.to_string()]),
        "got ",
        &got,
        &told,
    );
    rumqttc_subscriber(start.port, &got, &told);
    for _ in 0..3 {
        wait_for(&tellings, "subscribed");
    }
    paho.say("go");
    let publisher = rumqttc_publisher(start.port);
    let mut random = Random::new(crate::seed(50));
    for _ in 0..crate::rounds("SUNDEW_KILL_ROUNDS", 3, 10) {
        std::thread::sleep(Duration::from_millis(random.between(200, 1500) as u64));
        program.kill();
        program = start.start();
    }
    wait_for(&tellings, "all acknowledged");
    publisher.join().unwrap();
    let expected = 2 * COUNT;
    let give_up = Instant::now() + PATIENCE;
    while got.lock().unwrap().values().any(|came| came.len() < expected) && Instant::now() < give_up {
        std::thread::sleep(Duration::from_millis(20));
    }
    paho.say("leave");
    drop(mosquitto);
    for (name, came) in got.lock().unwrap().iter() {
        let twice: Vec<_> = came
            .iter()
            .filter(|(_, times)| **times > 1)
            .map(|(payload, _)| payload)
            .collect();
        eprintln!(
            "{name}: {} of {expected} messages, {} more than once",
            came.len(),
            twice.len()
        );
        assert_eq!(came.len(), expected, "{name}");
        // The others hand on what they had before.
        let is_wrong = |payload: &&&String| payload.contains("-2-") && *name == "paho-mqtt";
        let wrong: Vec<_> = twice.iter().filter(is_wrong).collect();
        assert!(wrong.is_empty(), "{name} got at QoS 2 twice: {wrong:?}");
    }
}

fn wait_for(tellings: &Receiver<String>, text: &str) {
    loop {
        let said = tellings
            .recv_timeout(PATIENCE)
            .unwrap_or_else(|_| panic!("nobody says {text:?}"));
        if said.contains(text) {
            return;
        }
    }
}

/// Another program: what it gets is counted, the rest of what it says is told.
struct Other {
    process: Child,
    input: ChildStdin,
}

impl Other {
    fn start(
        name: &'static str,
        command: &mut Command,
        before_payload: &'static str,
        got: &Got,
        told: &Sender<String>,
    ) -> Self {
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit());
        let mut process = command
            .spawn()
            .unwrap_or_else(|error| panic!("{name}: {error}; run tests/run"));
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let (got, told) = (Arc::clone(got), told.clone());
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                match line.strip_prefix(before_payload) {
                    Some(payload) => came(&got, name, payload),
                    None => drop(told.send(line)),
                }
            }
        });
        let input = process.stdin.take().unwrap();
        Self { process, input }
    }

    fn say(&mut self, line: &str) {
        writeln!(self.input, "{line}").unwrap();
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.process.kill(); // it may have ended
        let _ = self.process.wait();
    }
}

fn came(got: &Got, name: &'static str, payload: &str) {
    *got.lock()
        .unwrap()
        .entry(name)
        .or_default()
        .entry(payload.to_owned())
        .or_insert(0) += 1;
}

/// mosquitto_sub with a session that stays, at QoS 1: at QoS 2 libmosquitto takes a message that is sent again for a second one; what it says besides messages is `Subscribed …`.
fn mosquitto_sub(port: u16, got: &Got, told: &Sender<String>) -> Other {
    let port = port.to_string();
    let session = [
        "-p",
        &port,
        "-i",
        "mosquitto",
        "-V",
        "5",
        "-c",
        "-x",
        "1000",
        "-q",
        "1",
        "-t",
        "real/#",
    ];
    let subscribed = Command::new("mosquitto_sub").args(session).arg("-E").status();
    assert!(subscribed.expect("mosquitto_sub: run tests/run").success());
    told.send("subscribed".to_owned()).unwrap();
    let mut command = Command::new("mosquitto_sub");
    Other::start(
        "mosquitto_sub",
        command.args(session).args(["-F", "got %p"]),
        "got ",
        got,
        told,
    )
}

fn options(port: u16, client_id: &str) -> MqttOptions {
    let mut options = MqttOptions::new(client_id, "127.0.0.1", port);
    options.set_clean_session(false).set_keep_alive(Duration::from_secs(30));
    options
}

fn rumqttc_subscriber(port: u16, got: &Got, told: &Sender<String>) {
    let (client, mut connection) = Client::new(options(port, "rumqttc-subscriber"), 50);
    client.subscribe("real/#", QoS::AtLeastOnce).unwrap();
    let (got, told) = (Arc::clone(got), told.clone());
    std::thread::spawn(move || {
        let _client = client; // without it the connection ends
        for event in connection.iter() {
            match event {
                Ok(Event::Incoming(Packet::Publish(message))) => {
                    came(&got, "rumqttc", std::str::from_utf8(&message.payload).unwrap());
                }
                Ok(Event::Incoming(Packet::SubAck(_))) => drop(told.send("subscribed".to_owned())),
                Ok(_) => {}
                Err(_) => std::thread::sleep(Duration::from_millis(20)), // the broker is being killed
            }
        }
    });
}

/// Publishes with rumqttc, and ends when everything is acknowledged.
fn rumqttc_publisher(port: u16) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        let (client, mut connection) = Client::new(options(port, "rumqttc-publisher"), 10);
        let sending = std::thread::spawn(move || {
            for number in 0..COUNT {
                let qos = 1 + number % 2;
                let level = if qos == 1 { QoS::AtLeastOnce } else { QoS::ExactlyOnce };
                client
                    .publish("real/rumqttc", level, false, format!("rumqttc-{qos}-{number}"))
                    .unwrap();
                std::thread::sleep(Duration::from_millis(4));
            }
            client
        });
        let give_up = Instant::now() + PATIENCE;
        let mut acknowledged = 0;
        while acknowledged < COUNT {
            assert!(
                Instant::now() < give_up,
                "{acknowledged} of {COUNT} messages of rumqttc acknowledged"
            );
            match connection.recv_timeout(Duration::from_millis(100)) {
                Ok(Ok(Event::Incoming(Packet::PubAck(_) | Packet::PubComp(_)))) => acknowledged += 1,
                Ok(Err(_)) => std::thread::sleep(Duration::from_millis(20)),
                _ => {}
            }
        }
        sending.join().unwrap();
    })
}

//! Retained messages of a running broker, copied by `sundew import mosquitto --live`.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;

use crate::migration::{ALICE, Migration, NOBODY, mosquitto_program, said, succeed, wait_for};
use crate::program::{PATIENCE, Running, sundew};

/// More than fit into mosquitto's queue, of every QoS, with properties.
#[test]
fn retained_messages_of_a_running_mosquitto() {
    let conf = "user root\nlistener PORT0 127.0.0.1\nallow_anonymous false\npassword_file DIR/passwd\nmax_queued_messages 200\n";
    let migration = Migration::new(&[("mosquitto.conf", conf)]).with_users(&["alice"]);
    let _mosquitto = Running::start(Command::new(mosquitto_program()).args(["-c", &migration.path("mosquitto.conf")]));
    wait_for("mosquitto", migration.ports[0]);
    for qos in ["0", "1", "2"] {
        let mut publish = migration.client("mosquitto_pub", 0, ALICE);
        let properties = [
            "-D",
            "publish",
            "content-type",
            "text/plain",
            "-D",
            "publish",
            "user-property",
            "a",
            "b",
        ];
        publish
            .args(["-r", "-q", qos, "-t", &format!("one/{qos}"), "-m", qos])
            .args(properties);
        succeed(&mut publish);
    }
    let port = migration.ports[0];
    fill(port, 1200);
    let live = format!("mqtt://alice:secret@127.0.0.1:{port}");
    into_a_file(&migration, &live);
    into_a_broker(&migration, port);
}

/// And from there into the store that Sundew starts with.
fn into_a_file(migration: &Migration, live: &str) {
    let (backup, data) = (migration.path("retained.snap"), migration.path("data"));
    succeed(sundew().args(["import", "mosquitto", "--live", live, "--backup", &backup]));
    succeed(sundew().args(["store", "import", &backup, "-d", &data]));
    let toml = format!(
        "[[listeners]]\naddress = \"127.0.0.1:{}\"\n[storage]\nenabled = true\ndirectory = \"data\"\n",
        migration.ports[1]
    );
    fs::write(migration.path("one.toml"), toml).unwrap();
    let mut command = sundew();
    command
        .env_remove("SUNDEW__STORAGE__ENABLED")
        .args(["-c", &migration.path("one.toml")]);
    let _one = Running::start(&mut command);
    wait_for("sundew", migration.ports[1]);
    has_all(migration, 1, "1");
}

/// In which a topic is newer.
fn into_a_broker(migration: &Migration, port: u16) {
    let toml = format!("[[listeners]]\naddress = \"127.0.0.1:{}\"\n", migration.ports[2]);
    fs::write(migration.path("two.toml"), toml).unwrap();
    let _two = Running::start(sundew().args(["-c", &migration.path("two.toml")]));
    wait_for("sundew", migration.ports[2]);
    succeed(
        migration
            .client("mosquitto_pub", 2, NOBODY)
            .args(["-r", "-q", "1", "-t", "one/1", "-m", "newer"]),
    );
    let to = format!("mqtt://127.0.0.1:{}", migration.ports[2]);
    let mut import = sundew();
    import.env("SUNDEW_LIVE_PASSWORD", "secret");
    let live = format!("mqtt://alice@127.0.0.1:{port}");
    let output = import
        .args(["import", "mosquitto", "--live", &live, "--to", &to])
        .output()
        .unwrap();
    let told = said(&output);
    assert!(output.status.success(), "{told}");
    assert!(told.contains("1203 retained messages\n"), "{told}");
    assert!(told.contains("1202 published, 1 were there already and stay"), "{told}");
    has_all(migration, 2, "newer");
}

fn has_all(migration: &Migration, port: usize, one: &str) {
    let mut subscribe = migration.client("mosquitto_sub", port, NOBODY);
    let format = "%t %p %q %C %P";
    let all = ["-q", "2", "-t", "#", "-C", "1203", "-W", "20", "-F", format];
    let output = subscribe.args(all).output().unwrap();
    let told = said(&output);
    assert!(output.status.success(), "port {port}: {} lines", told.lines().count());
    assert!(told.contains("one/2 2 2 text/plain a:b\n"), "{told}");
    assert!(told.contains(&format!("one/1 {one} 1 ")), "{told}");
    assert!(told.contains("many/1200 1200 0 "), "{told}");
}

/// A broker that does not know MQTT 5, and one that lets nobody publish.
#[test]
fn retained_messages_of_an_old_broker() {
    let toml = "[[listeners]]\naddress = \"127.0.0.1:PORT0\"\nallowed_versions = [\"3.1.1\"]\n\
                [[listeners]]\naddress = \"127.0.0.1:PORT1\"\nacl_file = \"acl\"\n";
    let acl = "topic read #\ntopic write a\n";
    let migration = Migration::new(&[("sundew.toml", toml), ("acl", acl)]);
    let _old = Running::start(sundew().args(["-c", &migration.path("sundew.toml")]));
    wait_for("sundew", migration.ports[0]);
    for topic in ["a", "b"] {
        for qos in ["0", "1"] {
            let mut publish = migration.client("mosquitto_pub", 0, &["-V", "311"]);
            succeed(publish.args(["-r", "-q", qos, "-t", &format!("{topic}/{qos}"), "-m", "x"]));
        }
    }
    let url = |port: usize| format!("mqtt://127.0.0.1:{}", migration.ports[port]);
    let backup = migration.path("old.snap");
    let import = [
        "import",
        "mosquitto",
        "--live",
        &url(0),
        "--backup",
        &backup,
        "--topic",
        "a/#",
    ];
    let told = said(&sundew().args(import).output().unwrap());
    assert!(
        told.contains("2 retained messages\n") && told.contains("old.snap: retained=2, "),
        "{told}"
    );
    let output = sundew()
        .args(["import", "mosquitto", "--live", &url(0), "--to", &url(1), "--force"])
        .output()
        .unwrap();
    let told = said(&output);
    assert_eq!(output.status.code(), Some(2), "{told}");
    // The store is one, so what is read there is there; what is acknowledged is told apart.
    assert!(
        told.contains("not carried: a/1: ") && told.contains("not carried: b/1: "),
        "{told}"
    );
    let nobody = sundew()
        .args(["import", "mosquitto", "--live", "mqtt://127.0.0.1:1", "--backup", "x"])
        .output()
        .unwrap();
    assert_eq!(nobody.status.code(), Some(69), "{}", said(&nobody));
    let nowhere = sundew()
        .args(["import", "mosquitto", "--live", &url(0)])
        .output()
        .unwrap();
    assert!(
        nowhere.status.code() == Some(64) && said(&nowhere).contains("--to URL"),
        "{}",
        said(&nowhere)
    );
}

/// Retained messages of QoS 0, each with its number.
fn fill(port: u16, count: u32) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let mut bytes = b"\x10\x1b\0\x04MQTT\x04\xc2\0\0\0\0\0\x05alice\0\x06secret".to_vec();
    bytes[1] = (bytes.len() - 2) as u8;
    for number in 1..=count {
        let (topic, payload) = (format!("many/{number}"), number.to_string());
        bytes.extend([0x31, (2 + topic.len() + payload.len()) as u8, 0, topic.len() as u8]);
        bytes.extend(topic.as_bytes());
        bytes.extend(payload.as_bytes());
    }
    bytes.extend([0xC0, 0]); // PINGREQ: answered when all of it is read
    stream.write_all(&bytes).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut answers = [0; 6];
    stream.read_exact(&mut answers).unwrap();
    assert_eq!(answers, [0x20, 2, 0, 0, 0xD0, 0]);
}

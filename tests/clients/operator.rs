//! What an operator sees: the program's log, its end, its mistakes told in one line. Lines of the log are for programs to read,
//! so they are tested like any other interface.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Output;

use crate::program::{PATIENCE, Program, sundew};

const CONFIGURATION: &str = "[[listeners]]\nname = \"plain\"\naddress = [\"127.0.0.1:0\"]\n";

/// CONNECT of MQTT 3.1.1 and of 5.0, clean start, keep alive 60.
fn connect(client_id: &str, level: u8, keep_alive: u8) -> Vec<u8> {
    let properties: &[u8] = if level == 5 { &[0] } else { &[] };
    let mut body = b"\0\x04MQTT".to_vec();
    body.extend([level, 2, 0, keep_alive]);
    body.extend(properties);
    body.extend([0, client_id.len() as u8]);
    body.extend(client_id.as_bytes());
    [vec![0x10, body.len() as u8], body].concat()
}

fn open(program: &Program, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", program.port("plain"))).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(bytes).unwrap();
    stream
}

/// Connects and reads the CONNACK.
fn client(program: &Program, client_id: &str, level: u8) -> TcpStream {
    let mut stream = open(program, &connect(client_id, level, 60));
    let mut head = [0; 2];
    stream.read_exact(&mut head).unwrap();
    let mut rest = vec![0; usize::from(head[1])];
    stream.read_exact(&mut rest).unwrap();
    assert_eq!((head[0], rest[1]), (0x20, 0), "CONNACK");
    stream
}

#[test]
fn sigterm_tells_the_clients_and_ends_with_success() {
    let program = Program::serve(CONFIGURATION);
    let mut new = client(&program, "new", 5);
    let mut old = client(&program, "old", 4);
    program.running.terminate();
    let mut told = Vec::new();
    new.read_to_end(&mut told).unwrap();
    assert!(told.starts_with(&[0xE0]) && told[2] == 0x8B, "{told:02x?}");
    told.clear();
    old.read_to_end(&mut told).unwrap();
    assert!(told.is_empty(), "{told:02x?}");
    program.running.finish();
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let program = Program::serve(&format!("{CONFIGURATION}\n[shutdown]\ndeadline = \"1h\"\n"));
    let _stays = client(&program, "stays", 4);
    program.running.terminate();
    program.running.terminate();
    let mut running = program.running;
    running.lines_until("stop");
}

#[test]
fn who_came_and_why_he_went_is_one_line_each() {
    let mut program = Program::serve(CONFIGURATION);
    let mut stream = client(&program, "sensor/1", 5);
    let came = program.running.lines_until("connected").pop().unwrap();
    for part in [
        "INFO",
        "client=\"sensor/1\"",
        "addr=127.0.0.1:",
        "listener=\"plain\"",
        "version=\"5.0\"",
        "keep_alive=60",
    ] {
        assert!(came.contains(part), "{part} in {came}");
    }
    stream.write_all(&[0x30, 6, 0, 3, b'a', b'/', b'#', 0]).unwrap();
    let went = program.running.lines_until("disconnected").pop().unwrap();
    for part in [
        "WARN",
        "client=\"sensor/1\"",
        "listener=\"plain\"",
        "reason=",
        "wildcard",
    ] {
        assert!(went.contains(part), "{part} in {went}");
    }
    drop(client(&program, "lost", 4));
    let went = program.running.lines_until("disconnected").pop().unwrap();
    assert!(
        went.contains("client=\"lost\"") && went.contains("without DISCONNECT"),
        "{went}"
    );
}

#[test]
fn a_keep_alive_that_ran_out_is_told_with_its_numbers() {
    let mut program = Program::serve(CONFIGURATION);
    let _silent = open(&program, &connect("silent", 4, 1));
    let went = program.running.lines_until("disconnected").pop().unwrap();
    assert!(
        went.contains("keep alive is 1000 ms") || went.contains("keep alive is 1 s"),
        "{went}"
    );
}

#[test]
fn what_is_not_mqtt_is_named_in_one_line() {
    let mut program = Program::serve(CONFIGURATION);
    for (bytes, word) in [
        (&b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..], "HTTP"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "TLS"),
        (b"PROXY TCP4 192.0.2.7 127.0.0.1 49152 1883\r\n", "PROXY"),
    ] {
        let _stream = open(&program, bytes);
        let line = program.running.lines_until(word).pop().unwrap();
        assert!(line.contains("plain") && line.contains("127.0.0.1:"), "{line}");
    }
}

#[test]
fn a_dropped_message_is_told_at_the_beginning_and_counted_at_the_end() {
    let options = "[queue]\nmessages_max = 3\npolicy = \"drop_newest\"\n";
    let mut program = Program::serve(&format!("{CONFIGURATION}{options}"));
    // A session that stays: clean session 0, one subscription, then away.
    let mut bytes = connect("away", 4, 60);
    bytes[9] = 0;
    let mut away = open(&program, &bytes);
    away.write_all(&[0x82, 6, 0, 1, 0, 1, b'a', 1, 0xE0, 0]).unwrap();
    away.read_to_end(&mut Vec::new()).unwrap();
    let mut publisher = client(&program, "p", 4);
    for id in 1..=10 {
        publisher.write_all(&[0x32, 6, 0, 1, b'a', 0, id, b'x']).unwrap();
        publisher.read_exact(&mut [0; 4]).unwrap();
    }
    let line = program.running.lines_until("queue full").pop().unwrap();
    for part in ["WARN", "client=\"away\"", "topic=\"a\"", "drop_newest"] {
        assert!(line.contains(part), "{part} in {line}");
    }
    let mut back = open(&program, &bytes);
    let mut read = [0; 4 + 3 * 8];
    back.read_exact(&mut read).unwrap();
    back.write_all(&[0x40, 2, 0, 1, 0x40, 2, 0, 2, 0x40, 2, 0, 3]).unwrap();
    let line = program.running.lines_until("dropped=").pop().unwrap();
    assert!(line.contains("client=\"away\"") && line.contains("dropped=7"), "{line}");
}

#[test]
fn two_clients_with_one_id_are_named_together() {
    let mut program = Program::serve(CONFIGURATION);
    let mut held = Vec::new();
    for _ in 0..8 {
        held.push(client(&program, "arduinoClient", 4));
    }
    let line = program.running.lines_until("WARN").pop().unwrap();
    assert!(
        line.contains("arduinoClient") && line.matches("127.0.0.1").count() == 2,
        "{line}"
    );
}

#[test]
fn a_port_in_use_is_told_in_one_line() {
    let program = Program::serve(CONFIGURATION);
    let port = program.port("plain").to_string();
    let output = sundew().args(["-p", &port]).output().unwrap();
    let text = said(&output);
    assert!(
        !output.status.success() && text.contains(&port) && text.contains("in use"),
        "{text}"
    );
}

#[test]
fn every_mistake_of_a_configuration_is_told_with_its_line() {
    let folder = tempfile::TempDir::new().unwrap();
    let file = folder.path().join("bad.toml");
    std::fs::write(
        &file,
        "[mqtt]\nmaximum_qqos = 1\nretain_available = \"perhaps\"\n\n[queue]\nmessages_max = 0\n",
    )
    .unwrap();
    for arguments in [&["check"][..], &["-c"]] {
        let output = sundew().args(arguments).arg(&file).output().unwrap();
        let text = said(&output);
        assert!(!output.status.success());
        for part in [
            "bad.toml:2",
            "maximum_qos",
            "bad.toml:3",
            "retain_available",
            "bad.toml:6",
            "messages_max",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}

#[test]
fn options_come_from_file_environment_and_flags() {
    let folder = tempfile::TempDir::new().unwrap();
    let file = folder.path().join("sundew.toml");
    std::fs::write(
        &file,
        format!("{CONFIGURATION}[mqtt]\nreceive_maximum = 7\ntopic_alias_max = 3\n"),
    )
    .unwrap();
    let mut running = crate::program::Running::start(
        sundew()
            .arg("-c")
            .arg(&file)
            .env("SUNDEW__MQTT__RECEIVE_MAXIMUM", "9")
            .args(["-l", "127.0.0.1:0"]),
    );
    let line = running.lines_until(" listening ").pop().unwrap();
    let port: u16 = line.trim().rsplit(':').next().unwrap().parse().unwrap();
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(&connect("c", 5, 60)).unwrap();
    let mut answer = [0; 64];
    let length = stream.read(&mut answer).unwrap();
    let answer = &answer[..length];
    assert!(
        answer.windows(3).any(|part| part == [0x21, 0, 9]),
        "Receive Maximum 9 in {answer:02x?}"
    );
    assert!(
        answer.windows(3).any(|part| part == [0x22, 0, 3]),
        "Topic Alias Maximum 3 in {answer:02x?}"
    );
}

fn said(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

//! Flipped, overwritten, zeroed and cut bytes in a real data directory: the broker starts every time with what is readable,
//! invents nothing, and never loses a thing silently. With `on_corruption = "refuse"` it either starts with everything, or names
//! file and offset and ends.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use sundew::protocol::version::Version;

use crate::program::{Program, Start};
use crate::random::Random;
use crate::talker::{Outcome, Talker, slow};
use crate::{rounds, seed};

const STORAGE: &str = "segment_size = \"1MiB\"\nsnapshot_after = \"1MiB\"";
/// Sessions that are away, retained topics, messages.
const SESSIONS: usize = 3;
const RETAINED: usize = 60;
const MESSAGES: usize = 600;

#[test]
fn damage_is_survived_and_told() {
    let places = rounds("SUNDEW_DAMAGED_PLACES", 60, 1000);
    let first_seed = seed(40);
    let originals: Vec<Original> = [true, false].into_iter().map(Original::make).collect();
    let (next, tally) = (AtomicUsize::new(0), Tally::default());
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                loop {
                    let place = next.fetch_add(1, Ordering::Relaxed);
                    if place >= places {
                        return;
                    }
                    let mut random = Random::new(first_seed + place as u64);
                    let original = &originals[place % originals.len()];
                    one_place(original, &mut random, first_seed + place as u64, &tally);
                }
            });
        }
    });
    eprintln!("{places} damaged places: {tally:?}");
}

/// What came of it.
#[derive(Debug, Default)]
struct Tally {
    whole: AtomicUsize,
    something_lost_and_told: AtomicUsize,
    refused: AtomicUsize,
    started_though_refusing: AtomicUsize,
}

/// A data directory made by the real program, and what is in it.
struct Original {
    folder: tempfile::TempDir,
    content: Content,
}

/// What clients find: retained messages by topic, what waits for each session (none: the session is not there).
#[derive(Debug, PartialEq, Eq)]
struct Content {
    retained: BTreeMap<String, Vec<u8>>,
    waiting: BTreeMap<usize, Option<BTreeSet<Vec<u8>>>>,
}

impl Original {
    /// By a clean stop, or by SIGKILL.
    fn make(is_clean: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let start = Start::on(&folder.path().join("data"), "interval").with(STORAGE);
        let program = start.start();
        write_some(&program);
        // What is a second old is on the device, and the log says so.
        std::thread::sleep(Duration::from_millis(1200));
        assert_eq!(
            Talker::connect(program.address(), Version::V5, "publisher", true)
                .unwrap()
                .publish("other", b"x", 1, true),
            Outcome::Acknowledged
        );
        if is_clean {
            program.terminate();
        } else {
            program.kill();
        }
        let original = Self {
            content: {
                let copy = copy(&folder.path().join("data"));
                let program = on(&start, copy.path()).start();
                Content::read(&program)
            },
            folder,
        };
        let queued: usize = original.content.waiting.values().flatten().map(BTreeSet::len).sum();
        assert_eq!(original.content.retained.len(), RETAINED);
        assert_eq!(queued, SESSIONS * MESSAGES, "lost without any damage");
        original
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }
}

/// Sessions, retained messages, messages that wait, some of them on their way.
fn write_some(program: &Program) {
    for session in 0..SESSIONS {
        let mut client =
            Talker::connect_as(program.address(), Version::V5, &slow(&format!("session-{session}"))).unwrap();
        assert_eq!(client.subscribe("queue/#", 1), Ok(1));
        client.leave();
    }
    let mut publisher = Talker::connect(program.address(), Version::V5, "publisher", true).unwrap();
    for number in 0..MESSAGES {
        // Larger than a segment, all together.
        let payload = [format!("{number} ").into_bytes(), vec![b'.'; 100 + number * 37 % 7000]].concat();
        let outcome = publisher.publish(
            &format!("queue/{}", number % 7),
            &payload,
            1 + (number % 2) as u8,
            false,
        );
        assert_eq!(outcome, Outcome::Acknowledged);
        let (topic, value) = (format!("kept/{}", number % RETAINED), number.to_string());
        assert_eq!(
            publisher.publish(&topic, value.as_bytes(), 1, true),
            Outcome::Acknowledged
        );
    }
}

impl Content {
    /// What is there; a message at each QoS, sent behind it, shows that there is no more.
    fn read(program: &Program) -> Self {
        let address = program.address();
        let mut sessions: Vec<Talker> = (0..SESSIONS)
            .map(|session| Talker::connect(address, Version::V5, &format!("session-{session}"), true).unwrap())
            .collect();
        let mut reader = Talker::connect(address, Version::V5, "reader", false).unwrap();
        reader.subscribe("kept/#", 0).unwrap();
        for qos in [1, 2] {
            assert_eq!(reader.publish("queue/end", b"end", qos, false), Outcome::Acknowledged);
        }
        reader.publish("kept/end", b"end", 0, false);
        let retained = reader.messages_until(1, "kept/end").unwrap();
        let mut waiting = BTreeMap::new();
        for (number, session) in sessions.iter_mut().enumerate() {
            let found = session.session_present.then(|| {
                let messages = session.messages_until(2, "queue/end").unwrap();
                messages.into_iter().map(|message| message.payload).collect()
            });
            waiting.insert(number, found);
        }
        Self {
            retained: retained
                .into_iter()
                .map(|message| (message.topic, message.payload))
                .collect(),
            waiting,
        }
    }

    /// What of `whole` is missing here, and what is here that was never there.
    fn compare(&self, whole: &Self) -> (Vec<String>, Vec<String>) {
        let (mut missing, mut invented) = (Vec::new(), Vec::new());
        for (topic, value) in &whole.retained {
            if self.retained.get(topic) != Some(value) {
                missing.push(format!("retained {topic}"));
            }
        }
        for (topic, value) in &self.retained {
            // An earlier value may be all that is left.
            let number: usize = std::str::from_utf8(value)
                .ok()
                .and_then(|text| text.parse().ok())
                .unwrap_or(usize::MAX);
            if number >= MESSAGES || *topic != format!("kept/{}", number % RETAINED) {
                invented.push(format!("retained {topic} {value:?}"));
            }
        }
        for (session, whole) in &whole.waiting {
            let (Some(whole), here) = (whole, &self.waiting[session]) else {
                continue;
            };
            let Some(here) = here else {
                missing.push(format!("session {session}"));
                continue;
            };
            missing.extend(
                whole
                    .difference(here)
                    .map(|payload| format!("message {} bytes", payload.len())),
            );
            invented.extend(here.difference(whole).map(|payload| format!("message {payload:?}")));
        }
        (missing, invented)
    }
}

fn one_place(original: &Original, random: &mut Random, seed: u64, tally: &Tally) {
    let start = Start::on(&original.data(), "interval").with(STORAGE);
    let damaged = copy(&original.data());
    let (file, what) = damage(damaged.path(), random);
    let about = format!("seed {seed}: {what}");

    let refusing = copy(damaged.path());
    let before = bytes_of(refusing.path());
    let mut program = on(&start, refusing.path()).with("on_corruption = \"refuse\"").spawn();
    if program.wait_until_ready().is_ok() {
        let (missing, invented) = Content::read(&program).compare(&original.content);
        assert!(invented.is_empty(), "{about}: invented under refuse: {invented:?}");
        assert!(
            missing.is_empty() || !program.lines(&file).is_empty(),
            "{about}: silently lost under refuse: {missing:?}\n{}",
            program.lines("").join("\n")
        );
        tally.started_though_refusing.fetch_add(1, Ordering::Relaxed);
    } else {
        let (code, log) = program.end();
        let told = log
            .iter()
            .any(|line| line.contains(&file) && line.contains("damaged at byte "));
        assert!(
            code.is_some_and(|code| code != 0) && told,
            "{about}: exit {code:?}\n{}",
            log.join("\n")
        );
        assert!(
            before == bytes_of(refusing.path()),
            "{about}: refuse changed the directory"
        );
        tally.refused.fetch_add(1, Ordering::Relaxed);
    }
    drop(program);

    let start = on(&start, damaged.path());
    let program = start.start();
    let found = Content::read(&program);
    let (missing, invented) = found.compare(&original.content);
    let log = program.lines("");
    assert!(
        invented.is_empty(),
        "{about}: invented {invented:?}\n{}",
        log.join("\n")
    );
    assert!(
        !log.iter().any(|line| line.contains("panicked")),
        "{about}:\n{}",
        log.join("\n")
    );
    if missing.is_empty() {
        tally.whole.fetch_add(1, Ordering::Relaxed);
    } else {
        let is_told = log.iter().any(|line| line.contains(&file));
        assert!(is_told, "{about}: silently lost {missing:?}\n{}", log.join("\n"));
        tally.something_lost_and_told.fetch_add(1, Ordering::Relaxed);
    }
    wait_until_set_aside(damaged.path(), &log, &about);
    program.kill();
    let again = start.start();
    let errors = again.lines("ERROR");
    assert!(errors.is_empty(), "{about}: the next start complains again: {errors:?}");
}

/// A damaged file is set aside when a snapshot has taken its place: before, it is read, and told, again.
fn wait_until_set_aside(directory: &Path, log: &[String], about: &str) {
    let set_aside = log
        .iter()
        .filter(|line| line.contains("ERROR"))
        .filter_map(|line| line.split_once(" file="));
    for name in set_aside.filter_map(|(_, rest)| rest.split(' ').next()) {
        let give_up = Instant::now() + Duration::from_secs(20);
        while directory.join(name).exists() {
            assert!(Instant::now() < give_up, "{about}: {name} is not set aside");
            std::thread::sleep(Duration::from_millis(2));
        }
        assert!(directory.join("quarantine").is_dir(), "{about}");
    }
}

/// Damages one file at one place: its name, and what was done.
fn damage(directory: &Path, random: &mut Random) -> (String, String) {
    let mut files: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.retain(|path| path.is_file() && path.file_name().unwrap() != "lock");
    files.sort();
    let path = files[random.below(files.len())].clone();
    let name = path.file_name().unwrap().to_str().unwrap().to_owned();
    let length = fs::metadata(&path).unwrap().len() as usize;
    let file = fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let at = random.below(length);
    let kind = if length == 0 { 6 } else { random.below(7) };
    let what = match kind {
        0..3 => {
            let mut byte = [0];
            file.read_exact_at(&mut byte, at as u64).unwrap();
            let bit = random.below(8);
            file.write_all_at(&[byte[0] ^ 1 << bit], at as u64).unwrap();
            format!("bit {bit} of byte {at} flipped")
        }
        3 => {
            let bytes: Vec<u8> = (0..random.between(1, 64)).map(|_| random.next() as u8).collect();
            file.write_all_at(&bytes, at as u64).unwrap();
            format!("{} bytes at {at} overwritten", bytes.len())
        }
        4 => {
            let count = random.between(1, 4096).min(length - at);
            file.write_all_at(&vec![0; count], at as u64).unwrap();
            format!("{count} bytes at {at} zeroed")
        }
        5 => {
            file.set_len(at as u64).unwrap();
            format!("cut to {at} bytes")
        }
        _ => match random.below(3) {
            0 => {
                fs::write(&path, vec![0; length]).unwrap();
                "all zero".to_owned()
            }
            1 => {
                fs::write(&path, []).unwrap();
                "empty".to_owned()
            }
            _ => {
                let bytes: Vec<u8> = (0..random.between(1, 2000)).map(|_| random.next() as u8).collect();
                file.write_all_at(&bytes, length as u64).unwrap();
                format!("{} bytes at the end added", bytes.len())
            }
        },
    };
    (name.clone(), format!("{name} ({length} bytes): {what}"))
}

fn on(start: &Start, directory: &Path) -> Start {
    Start {
        directory: Some(directory.to_owned()),
        ..start.clone()
    }
}

fn copy(directory: &Path) -> tempfile::TempDir {
    let into = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            fs::copy(&path, into.path().join(path.file_name().unwrap())).unwrap();
        }
    }
    into
}

/// Every file with its bytes, but for the lock.
fn bytes_of(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let paths = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let files = paths.filter(|path| path.is_file() && path.file_name().unwrap() != "lock");
    files.map(|path| (path.clone(), fs::read(&path).unwrap())).collect()
}

//! A disk that is full, broken or read-only: serving goes on, what cannot be kept is refused truthfully, nothing acknowledged is
//! lost, and it heals by itself.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use sundew::protocol::version::Version;

use crate::program::{Program, Start};
use crate::random::Random;
use crate::replay::Disk;
use crate::shim::{Fault, Shim, Switch};
use crate::talker::{Outcome, Talker};

/// How long it may take until the broker has noticed that the disk is well again.
const HEALING: Duration = Duration::from_secs(30);
const STORAGE: &str = "segment_size = \"1MiB\"\nsnapshot_after = \"1MiB\"";
/// Quota exceeded.
const QUOTA: u8 = 0x97;

/// A file system of 16 MiB, really full.
#[test]
fn a_full_file_system_refuses_and_heals() {
    let Some(mount) = Mount::new() else { return };
    let start = Start::on(&mount.path().join("data"), "interval")
        .with(STORAGE)
        .with("reserve = \"1MiB\"");
    let filler = mount.path().join("filler");
    let program = start.start();
    let mut story = Story::begin(&program);
    fill(&filler);
    story.refuses();
    story.goes_on();
    fs::remove_file(&filler).unwrap();
    story.heals();
    for _ in 0..3 {
        // Full by its own data, too: as long as messages wait, they are in memory and on disk.
        fill(&filler);
        story.refuses();
        fs::remove_file(&filler).unwrap();
        story.heals();
    }
    story.after(program, &start);
}

/// Filled by what is stored: messages for a session that does not come.
#[test]
fn a_file_system_filled_by_messages_refuses_and_heals() {
    let Some(mount) = Mount::new() else { return };
    let start = Start::on(&mount.path().join("data"), "interval")
        .with(STORAGE)
        .with("reserve = \"2MiB\"");
    let program = start.start();
    let mut story = Story::begin(&program);
    let mut hoarder = Talker::connect(program.address(), Version::V5, "hoarder", true).unwrap();
    assert_eq!(hoarder.subscribe("hoard/#", 1), Ok(1));
    hoarder.leave();
    let mut publisher = Talker::connect(program.address(), Version::V5, "filler", false).unwrap();
    let payload = vec![b'x'; 50_000];
    let mut hoarded = 0;
    let refused = loop {
        match publisher.publish("hoard/x", &payload, 1, false) {
            Outcome::Acknowledged => hoarded += 1,
            outcome => break outcome,
        }
        assert!(hoarded < 2_000, "more than the file system holds is acknowledged");
    };
    assert_eq!(refused, Outcome::Refused(QUOTA));
    story.refuses();
    story.goes_on();
    let mut hoarder = Talker::connect(program.address(), Version::V5, "hoarder", true).unwrap();
    assert!(hoarder.session_present);
    for _ in 0..hoarded {
        assert_eq!(hoarder.message().unwrap().payload, payload);
    }
    story.heals();
    story.after(program, &start);
}

#[test]
fn no_room_refuses_and_heals() {
    broken_disk(Fault::Full, "interval");
    broken_disk(Fault::Full, "always");
}

#[test]
fn failing_writes_refuse_and_heal() {
    broken_disk(Fault::WriteFails, "interval");
    broken_disk(Fault::WriteFails, "always");
}

#[test]
fn failing_syncs_refuse_and_heal() {
    broken_disk(Fault::SyncFails, "always");
}

#[test]
fn a_read_only_directory_refuses_and_heals() {
    broken_disk(Fault::ReadOnly, "interval");
    broken_disk(Fault::ReadOnly, "always");
}

#[test]
fn half_of_a_write_is_no_record() {
    broken_disk(Fault::ShortWrites, "interval");
    broken_disk(Fault::ShortWrites, "always");
}

/// One sync that fails, and then all succeed: what it should have saved is lost on such disks, and yet nothing is lost.
#[test]
fn one_sync_that_failed_loses_nothing_in_a_power_cut() {
    for seed in 0..crate::rounds("SUNDEW_SYNC_FAILURES", 2, 20) as u64 {
        let disk = Broken::new("always");
        let mut program = disk.start().start();
        let mut story = Story::begin(&program);
        disk.switch.set(Fault::SyncFails, 1);
        let give_up = Instant::now() + HEALING;
        while !disk.switch.is_off() {
            story.publish_one();
            assert!(Instant::now() < give_up, "no sync is asked for");
        }
        story.heals();
        story.publish_some();
        program.kill();
        let mut random = Random::new(seed);
        let start = disk.cut(&mut random);
        program = start.start();
        story.account(&program);
    }
}

/// Clients are read as slowly as the disk writes: what waits for it is bounded, also of messages that nobody acknowledges.
#[test]
fn a_slow_disk_slows_its_clients_down_and_nothing_is_lost() {
    const MESSAGES: usize = 100;
    let disk = Broken::new("always");
    let program = disk.start().with("waiting_max = \"1MiB\"").start();
    let mut story = Story::begin(&program);
    disk.switch.set(Fault::SlowSyncs, 0);
    let begin = Instant::now();
    for number in 0..MESSAGES {
        // 10 MiB, of which each sync takes about one.
        let payload = vec![b'a' + (number % 26) as u8; 100 * 1024];
        assert_eq!(
            story.version_5.publish("large/x", &payload, 0, true),
            Outcome::Acknowledged
        );
    }
    assert_eq!(story.publish_one(), Outcome::Acknowledged);
    let took = begin.elapsed();
    assert!(took > Duration::from_millis(1500), "10 MiB went to memory in {took:?}");
    assert_eq!(program.lines("the disk is slower than what is to be kept").len(), 1);
    disk.switch.set(Fault::None, 0);
    story.publish_some();
    let mut reader = Talker::connect(program.address(), Version::V5, "reader-of-large", false).unwrap();
    reader.subscribe("large/x", 0).unwrap();
    assert_eq!(reader.message().unwrap().payload[0], b'a' + ((MESSAGES - 1) % 26) as u8);
    story.after(program, &disk.plain);
}

/// Faults by the switch of the shim; afterwards the power is cut, where that must lose nothing.
fn broken_disk(fault: Fault, sync: &str) {
    let disk = Broken::new(sync);
    let mut program = disk.start().start();
    let mut story = Story::begin(&program);
    disk.switch.set(fault, 0);
    story.refuses();
    story.goes_on();
    disk.switch.set(Fault::None, 0);
    story.heals();
    if sync == "always" {
        program.kill();
        program = disk.cut(&mut Random::new(31)).start();
        story.account(&program);
    } else {
        story.after(program, &disk.plain);
    }
}

/// A data directory behind the shim.
struct Broken {
    folder: tempfile::TempDir,
    plain: Start,
    switch: Switch,
    before: std::cell::RefCell<Option<Disk>>,
}

impl Broken {
    fn new(sync: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        fs::create_dir(&data).unwrap();
        Self {
            plain: Start::on(&data, sync).with(STORAGE),
            switch: Switch::new(folder.path().join("switch")),
            before: std::cell::RefCell::new(Some(Disk::of(&data))),
            folder,
        }
    }

    fn start(&self) -> Start {
        self.switch
            .before(&Shim::default().before(&self.plain, &self.folder.path().join("log")))
    }

    /// A start on what the disk may hold after a power cut now.
    fn cut(&self, random: &mut Random) -> Start {
        let disk = self.before.take().unwrap();
        let folder = self.folder.path();
        disk.after_cut(&folder.join("log"), &folder.join("after"), &self.plain, random)
    }
}

/// Clients of one story: a keeper who is away, publishers, somebody who listens at QoS 0.
struct Story {
    address: SocketAddr,
    version_5: Talker,
    listener: Talker,
    number: usize,
    /// What was acknowledged and goes to the keeper, in order.
    acknowledged: Vec<Vec<u8>>,
    /// What is retained on `kept/x`: last acknowledged, and what was refused since.
    retained: Vec<Vec<u8>>,
}

impl Story {
    fn begin(program: &Program) -> Self {
        let address = program.address();
        let mut keeper = Talker::connect(address, Version::V5, "keeper", true).unwrap();
        assert_eq!(keeper.subscribe("to/keeper/#", 2), Ok(2));
        keeper.leave();
        let mut listener = Talker::connect(address, Version::V311, "listener", false).unwrap();
        assert_eq!(listener.subscribe("to/all", 0), Ok(0));
        let mut story = Self {
            address,
            version_5: Talker::connect(address, Version::V5, "version-5", false).unwrap(),
            listener,
            number: 0,
            acknowledged: Vec::new(),
            retained: Vec::new(),
        };
        story.publish_some();
        story
    }

    fn payload(&mut self) -> Vec<u8> {
        self.number += 1;
        format!("{:06}", self.number).into_bytes()
    }

    /// One message of 5.0 for the keeper.
    fn publish_one(&mut self) -> Outcome {
        let (payload, qos) = (self.payload(), 1 + (self.number % 2) as u8);
        let outcome = self.version_5.publish("to/keeper/5", &payload, qos, false);
        if outcome == Outcome::Acknowledged {
            self.acknowledged.push(payload);
        }
        outcome
    }

    /// One retained message of 5.0.
    fn retain_one(&mut self) -> Outcome {
        let payload = self.payload();
        let outcome = self.version_5.publish("kept/x", &payload, 1, true);
        if outcome == Outcome::Acknowledged {
            self.retained.clear();
        }
        self.retained.push(payload);
        outcome
    }

    /// One message of 3.1.1 for the keeper, on a connection of its own.
    fn publish_before_5(&mut self) -> Outcome {
        let payload = self.payload();
        let Ok(mut publisher) = Talker::connect(self.address, Version::V311, "version-311", false) else {
            return Outcome::Closed;
        };
        let outcome = publisher.publish("to/keeper/3", &payload, 1, false);
        if outcome == Outcome::Acknowledged {
            self.acknowledged.push(payload);
        }
        outcome
    }

    fn publish_some(&mut self) {
        for _ in 0..20 {
            assert_eq!(self.publish_one(), Outcome::Acknowledged);
            assert_eq!(self.retain_one(), Outcome::Acknowledged);
        }
        assert_eq!(self.publish_before_5(), Outcome::Acknowledged);
    }

    /// With the fault there, what must be kept is refused, once it was noticed.
    fn refuses(&mut self) {
        let give_up = Instant::now() + HEALING;
        loop {
            match self.publish_one() {
                Outcome::Acknowledged => assert!(Instant::now() < give_up, "what cannot be kept is acknowledged"),
                // It was taken before the fault was seen: that it was not acknowledged is all that can be said.
                Outcome::Closed => {
                    self.version_5 = Talker::connect(self.address, Version::V5, "version-5", false).unwrap()
                }
                outcome => {
                    assert_eq!(outcome, Outcome::Refused(QUOTA));
                    break;
                }
            }
        }
        for _ in 0..5 {
            assert_eq!(self.publish_one(), Outcome::Refused(QUOTA));
            assert_eq!(self.retain_one(), Outcome::Refused(QUOTA), "retained");
        }
        assert_eq!(
            self.publish_before_5(),
            Outcome::Closed,
            "3.1.1 has no other word for no"
        );
    }

    /// What needs no disk is served.
    fn goes_on(&mut self) {
        for qos in 0..3 {
            let payload = self.payload();
            let outcome = self.version_5.publish("to/all", &payload, qos, false);
            assert_eq!(
                outcome,
                Outcome::Acknowledged,
                "QoS {qos}, for a session that does not stay"
            );
            assert_eq!(self.listener.message().unwrap().payload, payload);
        }
    }

    /// The fault is gone: messages are taken again, after a while.
    fn heals(&mut self) {
        let give_up = Instant::now() + HEALING;
        while self.publish_one() != Outcome::Acknowledged {
            assert!(Instant::now() < give_up, "not healed after {HEALING:?}");
            std::thread::sleep(Duration::from_millis(100));
        }
        self.publish_some();
    }

    /// Kills the broker and accounts with the next one.
    fn after(self, program: Program, start: &Start) {
        program.kill();
        self.account(&start.start());
    }

    /// Everything acknowledged is there, in order, once.
    fn account(&self, program: &Program) {
        let mut keeper = Talker::connect(program.address(), Version::V5, "keeper", true).unwrap();
        assert!(keeper.session_present, "the keeper's session is lost");
        let messages = keeper.messages(self.acknowledged.len()).unwrap();
        let log = program.lines("").join("\n");
        for (topic, qos) in [("to/keeper/5", 1), ("to/keeper/5", 2), ("to/keeper/3", 1)] {
            let came: Vec<_> = messages
                .iter()
                .filter(|message| message.topic == topic && message.qos == qos)
                .map(|message| message.text())
                .collect();
            assert!(
                came.is_sorted_by(|a, b| a < b),
                "out of order, or twice, {topic} at QoS {qos}: {came:?}\n{log}"
            );
        }
        let came: BTreeSet<_> = messages.iter().map(|message| &message.payload).collect();
        let lost: Vec<_> = self
            .acknowledged
            .iter()
            .filter(|payload| !came.contains(payload))
            .collect();
        assert!(
            lost.is_empty(),
            "lost: {} of {}, first {:?}; there are {}\n{log}",
            lost.len(),
            self.acknowledged.len(),
            lost[0],
            came.len()
        );
        let mut reader = Talker::connect(program.address(), Version::V5, "reader", false).unwrap();
        reader.subscribe("kept/x", 0).unwrap();
        let retained = reader.messages(1).unwrap();
        let is_right = retained.len() == 1 && self.retained.contains(&retained[0].payload);
        assert!(is_right, "retained {retained:?}, allowed {:?}", self.retained);
    }
}

/// A file system of 16 MiB in memory, gone when it is dropped.
struct Mount(tempfile::TempDir);

impl Mount {
    /// Only root may mount: without, the story is not told, and says so.
    fn new() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=16m", "tmpfs"])
            .arg(folder.path())
            .output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self(folder)),
            outcome => {
                eprintln!("SKIPPED, since no tmpfs can be mounted here (that needs root): {outcome:?}");
                None
            }
        }
    }

    fn path(&self) -> PathBuf {
        self.0.path().to_owned()
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
    }
}

/// Writes until nothing more fits.
fn fill(file: &Path) {
    use std::io::Write;
    let mut file = fs::OpenOptions::new().create(true).append(true).open(file).unwrap();
    let mut piece = 64 * 1024;
    while piece > 0 {
        if file.write(&vec![1; piece]).is_err() {
            piece /= 2;
        }
    }
}

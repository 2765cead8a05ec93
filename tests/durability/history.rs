//! One history: the same clients over many lives of the broker, and the account at the end.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use sundew::protocol::version::Version;

use crate::link::{Gone, Link};
use crate::mortal;
use crate::program::{Program, Start};
use crate::publisher::Publisher;
use crate::stage::{Phase, Stage};
use crate::subscriber::{Plan, Subscriber};
use crate::wire::{self, Connect, Packet};

/// At the end: what did not come for so long does not come. Longer than the grace of wills and the longest recovery.
const PATIENCE: Duration = Duration::from_secs(10);

/// The clients, at work until it is dropped.
pub(crate) struct History {
    pub(crate) stage: Arc<Stage>,
    threads: Vec<JoinHandle<()>>,
    name: String,
    patience: Duration,
}

/// Names, versions, filters, QoS and plans of the subscribers; `m/PUBLISHER/0` is published at QoS 1, `m/PUBLISHER/1` at QoS 2.
const SUBSCRIBERS: &[(&str, Version, &str, u8, Plan)] = &[
    ("stays-311", Version::V311, "m/#", 2, Plan::Stay),
    ("stays-5", Version::V5, "m/+/1", 2, Plan::Stay),
    ("flaps-311", Version::V311, "m/#", 1, Plan::Flap),
    ("flaps-5", Version::V5, "m/#", 2, Plan::Flap),
    ("away-311", Version::V311, "m/0/#", 2, Plan::Away),
    ("away-5", Version::V5, "m/#", 2, Plan::Away),
    ("changes-5", Version::V5, "m/1/#", 1, Plan::Change),
    ("changes-311", Version::V311, "m/+/1", 2, Plan::Change),
    ("clears-311", Version::V311, "m/2/#", 2, Plan::Clear),
    ("clears-5", Version::V5, "m/1/#", 2, Plan::Clear),
];

/// The members of a shared group.
const MEMBERS: &[(&str, Version, Plan)] = &[
    ("member-1", Version::V5, Plan::Stay),
    ("member-2", Version::V311, Plan::Flap),
    ("member-3", Version::V5, Plan::Flap),
];

/// Versions of the publishers, and whether their sessions stay.
const PUBLISHERS: &[(Version, bool)] = &[
    (Version::V311, true),
    (Version::V5, true),
    (Version::V5, true),
    (Version::V311, false),
];

impl History {
    /// Everybody waits for a broker.
    pub(crate) fn begin(name: &str, seed: u64) -> Self {
        let stage = Arc::new(Stage::new(PUBLISHERS.len()));
        let mut history = Self {
            stage: Arc::clone(&stage),
            threads: Vec::new(),
            name: name.to_owned(),
            patience: PATIENCE,
        };
        for (at, (name, version, filter, qos, plan)) in SUBSCRIBERS.iter().enumerate() {
            let mut subscriber = Subscriber::new(name, *version, filter, *qos, *plan, seed ^ (100 + at as u64));
            subscriber.audience = Some(stage.ledger().audience(name, filter, *qos, false));
            history.spawn(name, move |stage| subscriber.run(stage));
        }
        let group = stage.ledger().audience("the group", "m/#", 2, true);
        for (at, (name, version, plan)) in MEMBERS.iter().enumerate() {
            let mut member = Subscriber::new(name, *version, "$share/g/m/#", 2, *plan, seed ^ (200 + at as u64));
            member.audience = Some(group);
            history.spawn(name, move |stage| member.run(stage));
        }
        let witness = Subscriber::new("witness", Version::V5, "w/#", 2, Plan::Stay, seed ^ 300);
        history.spawn("witness", move |stage| witness.run(stage));
        for (number, (version, is_lasting)) in PUBLISHERS.iter().enumerate() {
            let publisher = Publisher::new(number, *version, *is_lasting, seed ^ (400 + number as u64));
            history.spawn("publisher", move |stage| publisher.run(stage));
        }
        history.spawn("mortals", move |stage| mortal::run(stage, seed ^ 500));
        history
    }

    /// With a shorter time, at the end, after which the rest counts as lost.
    pub(crate) fn patient(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    fn spawn(&mut self, name: &str, run: impl FnOnce(&Stage) + Send + 'static) {
        let stage = Arc::clone(&self.stage);
        let thread = std::thread::Builder::new().name(name.to_owned());
        self.threads.push(thread.spawn(move || run(&stage)).unwrap());
    }

    /// A new life of the broker: what is retained is looked at before anybody can change it, then all clients are let in.
    pub(crate) fn serve(&self, program: &Program) {
        let address = program.address();
        self.stage.ledger().life += 1;
        if let Ok(found) = retained(address) {
            self.stage.ledger().check_retained(&found);
        }
        self.stage.serve(Some(address));
    }

    /// The broker is about to be no more, or is so already.
    pub(crate) fn interrupt(&self) {
        self.stage.ledger().is_stopped = false;
        self.stage.serve(None);
    }

    /// The broker ends in order.
    pub(crate) fn stop(&self, program: Program) {
        self.stage.ledger().is_stopped = true;
        self.stage.serve(None);
        let (code, log) = program.terminate();
        if code != Some(0) {
            let fault = format!("a clean stop ends with {code:?}:\n{}", log.join("\n"));
            self.stage.ledger().fault(fault);
        }
    }

    /// Lets everything come that is still to come, from a broker that serves and is not killed any more. Then, after one
    /// clean stop and another start, nothing more may come. The figures, and what is wrong, one line each.
    pub(crate) fn end(self, program: Program, start: &Start) -> (String, Vec<String>) {
        self.drain();
        self.stop(program);
        let program = start.start();
        self.serve(&program);
        self.close()
    }

    /// Lets everything come that is still to come, and sends everybody away. The figures, and what is wrong, one line each.
    pub(crate) fn close(mut self) -> (String, Vec<String>) {
        self.drain();
        self.stage.enter(Phase::Over);
        for thread in std::mem::take(&mut self.threads) {
            let name = thread.thread().name().unwrap_or_default().to_owned();
            if thread.join().is_err() {
                self.stage.ledger().fault(format!("the client {name} failed"));
            }
        }
        let summary = self.summary();
        let faults = self.stage.ledger().faults();
        (summary, faults)
    }

    /// Waits until nothing is missing, or until nothing has come for a while.
    fn drain(&self) {
        self.stage.enter(Phase::Drain);
        let mut last = (0, 0, 0);
        let mut since = Instant::now();
        loop {
            let mut ledger = self.stage.ledger();
            let missing = ledger.missing_count() + ledger.wills_missing();
            let now = (ledger.acknowledged(), ledger.delivered, missing);
            drop(ledger);
            if missing == 0 && self.stage.all_idle() && self.stage.settled() == SUBSCRIBERS.len() + MEMBERS.len() + 1 {
                return;
            }
            if now != last {
                (last, since) = (now, Instant::now());
            }
            if since.elapsed() > self.patience {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// One line of figures.
    fn summary(&self) -> String {
        let ledger = self.stage.ledger();
        let (published, void) = ledger.wills_judged();
        format!(
            "{}: {} starts, {} messages acknowledged, {} delivered, {} duplicates at QoS 1, {} refused, {published} wills due, \
             {void} void",
            self.name,
            ledger.life,
            ledger.acknowledged(),
            ledger.delivered,
            ledger.duplicates,
            ledger.refused,
        )
    }
}

impl Drop for History {
    fn drop(&mut self) {
        self.stage.enter(Phase::Over);
    }
}

/// What is retained below `r/`, by topic.
fn retained(address: SocketAddr) -> Result<BTreeMap<String, Vec<u8>>, Gone> {
    let connect = Connect {
        client_id: "reader",
        ..Connect::default()
    };
    let (mut link, _) = Link::open(address, Version::V311, &connect)?;
    link.send(&wire::subscribe(Version::V311, 1, &Default::default(), &[("r/#", 0)]))?;
    let mut found = BTreeMap::new();
    // Twice: the first answer may overtake what is still to come.
    for _ in 0..2 {
        for packet in link.until_pong()? {
            if let Packet::Publish(message) = packet {
                found.insert(message.topic, message.payload);
            }
        }
    }
    Ok(found)
}

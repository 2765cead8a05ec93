//! Clients with wills: some die with the broker and come back, some do not, some died before it or said goodbye.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use sundew::protocol::property::{PropertiesBuf, PropertyId};
use sundew::protocol::version::Version;

use crate::ledger::Fate;
use crate::link::Link;
use crate::publisher::connect;
use crate::random::Random;
use crate::stage::{Phase, Stage};
use crate::wire::{self, Connect, Will};

/// `storage.will_grace` of these histories.
pub(crate) const GRACE: Duration = Duration::from_secs(3);
/// What the broker does not acknowledge by any packet is taken for stored so long after.
const SETTLED: Duration = Duration::from_millis(300);

/// How a client with a will leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leaving {
    /// Not before the broker.
    Not,
    /// Without a word.
    Silently,
    /// With a DISCONNECT.
    Politely,
}

/// One client with a will.
struct Mortal {
    client_id: String,
    version: Version,
    is_lasting: bool,
    has_delay: bool,
    leaving: Leaving,
    will: usize,
    link: Option<Link>,
    /// Since its last packet to or from the broker.
    since: Instant,
}

/// Sends clients with wills into every life of the broker, until all is over.
pub(crate) fn run(stage: &Stage, seed: u64) {
    let mut random = Random::new(seed);
    let mut orphans = Vec::new();
    let mut life = 0;
    while let (Some(address), Phase::Load) = (stage.broker(), stage.phase()) {
        life += 1;
        let mut living = come_back(stage, address, &mut orphans, &mut random);
        if stage.ledger().has_witness {
            let born = (0..8).flat_map(|kind| Mortal::send(stage, address, kind, life));
            living.extend(born);
        }
        for mortal in &mut living {
            mortal.leave();
        }
        while stage.phase() == Phase::Load && living.iter_mut().any(Mortal::lives) {
            stage.rest(Duration::from_millis(5));
        }
        let is_load = stage.phase() == Phase::Load;
        for mut mortal in living {
            if !is_load {
                mortal.leave_politely();
            }
            mortal.bury(stage, !is_load, &mut orphans);
        }
        stage.rest(Duration::from_millis(10));
    }
    for orphan in orphans.iter().filter(|orphan| !orphan.is_returning()) {
        stage.ledger().will_is(orphan.will, Fate::Published);
    }
}

/// Of those that lost their broker, some come back; the wills of the others are due.
fn come_back(stage: &Stage, address: SocketAddr, orphans: &mut Vec<Mortal>, random: &mut Random) -> Vec<Mortal> {
    let began = Instant::now();
    let mut back = Vec::new();
    let is_stopped = stage.ledger().is_stopped;
    for mut orphan in std::mem::take(orphans) {
        if is_stopped && orphan.has_delay {
            continue; // whether it comes back in time is open
        }
        if is_stopped {
            stage.ledger().will_is(orphan.will, Fate::Published);
            continue;
        }
        if random.percent(50) && !orphan.is_returning() {
            stage.ledger().will_is(orphan.will, Fate::Published);
            continue;
        }
        orphan.leaving = Leaving::Politely;
        let connect = connect(&orphan.client_id, orphan.version, orphan.is_lasting);
        let Ok((link, session_present)) = Link::open(address, orphan.version, &connect) else {
            orphans.push(orphan);
            continue;
        };
        if orphan.is_lasting && !session_present {
            stage
                .ledger()
                .fault(format!("the session of {} is lost", orphan.client_id));
        }
        (orphan.link, orphan.since) = (Some(link), Instant::now());
        // Later it is open who was first: its client or the end of the grace.
        if began.elapsed() < GRACE / 2 {
            back.push(orphan);
        }
    }
    back
}

impl Mortal {
    /// A new client, of one of eight kinds; none if the broker was gone before its CONNACK.
    fn send(stage: &Stage, address: SocketAddr, kind: usize, life: usize) -> Option<Self> {
        let client_id = format!("mortal-{life}-{kind}");
        let version = if matches!(kind, 1 | 2 | 5 | 6) {
            Version::V5
        } else {
            Version::V311
        };
        let delay = if matches!(kind, 2 | 5) { 1 } else { 0 };
        let will = stage.ledger().will(&client_id);
        let payload = format!("{will} is gone");
        let mut last_will = Will {
            topic: "w/x",
            payload: payload.as_bytes(),
            qos: 2,
            ..Will::default()
        };
        if delay > 0 {
            last_will.properties.push_u32(PropertyId::WillDelayInterval, delay);
        }
        let is_lasting = kind != 3;
        let connect = Connect {
            will: Some(last_will),
            ..connect(&client_id, version, is_lasting)
        };
        let (link, _) = Link::open(address, version, &connect).ok()?;
        Some(Self {
            version,
            is_lasting,
            has_delay: delay > 0,
            leaving: match kind {
                0..4 => Leaving::Not,
                4 | 5 => Leaving::Silently,
                _ => Leaving::Politely,
            },
            will,
            link: Some(link),
            since: Instant::now(),
            client_id,
        })
    }

    /// Whether it was about to come back when the broker died again.
    fn is_returning(&self) -> bool {
        self.leaving == Leaving::Politely
    }

    fn leave(&mut self) {
        match self.leaving {
            Leaving::Not => {}
            Leaving::Silently => self.link = None,
            Leaving::Politely => self.leave_politely(),
        }
    }

    /// Says goodbye and waits until the broker hangs up; stays an orphan if it does not.
    fn leave_politely(&mut self) {
        let Some(mut link) = self.link.take() else {
            return;
        };
        if link
            .send(&wire::disconnect(self.version, 0, &PropertiesBuf::new()))
            .is_ok()
        {
            while link.look().is_ok() {}
        }
        (self.since, self.leaving) = (Instant::now(), Leaving::Politely);
    }

    fn lives(&mut self) -> bool {
        let is_there = self.link.as_mut().is_some_and(|link| link.look().is_ok());
        if !is_there && self.link.take().is_some() {
            self.leaving = Leaving::Not;
        }
        is_there
    }

    /// The broker is gone, or all is over: what is known of its will now?
    fn bury(self, stage: &Stage, is_over: bool, orphans: &mut Vec<Self>) {
        let is_settled = is_over || self.since.elapsed() > SETTLED;
        match self.leaving {
            Leaving::Not if self.is_lasting || is_settled => orphans.push(self),
            Leaving::Silently if self.is_lasting || is_settled => stage.ledger().will_is(self.will, Fate::Published),
            Leaving::Politely if is_settled => stage.ledger().will_is(self.will, Fate::Void),
            _ => {}
        }
    }
}

//! The broker stops in the middle of whatever it does and begins again; and what becomes of wills by that.

use sundew::protocol::time::Time;

use crate::client::State;
use crate::ledger::MessageId;
use crate::store::Stop;
use crate::world::World;

/// Wills that the broker owes, for certain or not.
#[derive(Debug, Default)]
pub(crate) struct Wills {
    /// Published, but perhaps not kept yet: a stop may take them back.
    doubtful: Vec<MessageId>,
    /// Client, its will, and when it is to be published if the client is not back by then.
    due: Vec<(usize, MessageId, Time)>,
}

impl Wills {
    /// A client comes back.
    pub(crate) fn is_back(&mut self, client: usize) {
        self.due.retain(|(owner, ..)| *owner != client);
    }
}

impl World {
    /// A will is due when a connection was lost [MQTT-3.1.2-8].
    pub(crate) fn note_lost(&mut self) {
        if self.host.is_all_kept() {
            self.wills.doubtful.clear();
        }
        for link in std::mem::take(&mut self.host.lost) {
            let (owner, will) = self.owners[link];
            self.ledger.note(|| format!("link {link} of client {owner} is lost"));
            if let Some(will) = will.filter(|_| self.is_will_at_once(owner)) {
                self.publish_will(will);
            }
        }
    }

    fn is_will_at_once(&self, owner: usize) -> bool {
        let character = &self.clients[owner].character;
        character.will_delay_secs.is_none() || !character.version.has_properties()
    }

    fn publish_will(&mut self, will: MessageId) {
        self.ledger.messages[will].accepted = Some(self.ledger.step);
        self.wills.doubtful.push(will);
    }

    pub(crate) fn has_due_wills(&self) -> bool {
        self.wills.due.iter().any(|(.., due)| *due <= self.now)
    }

    /// Every worker has looked at its clock: what was due is published.
    pub(crate) fn note_published_wills(&mut self) {
        let now = self.now;
        let due: Vec<_> = self.wills.due.extract_if(.., |(.., due)| *due <= now).collect();
        for (owner, will, _) in due {
            self.ledger
                .note(|| format!("the will of client {owner}, {will}, is due"));
            self.publish_will(will);
        }
    }

    /// The broker stops in order; false when its store could not be closed in time.
    fn close(&mut self) -> bool {
        self.host.store.begin_close();
        for _ in 0..400 {
            for worker in 0..self.host.workers.len() {
                self.host.read_mail(worker, self.now);
                self.host.submit(worker, self.now);
            }
            self.host.store.step(self.now);
            if self.host.store.is_closed() {
                return true;
            }
        }
        false
    }

    /// Power is cut, or the process is killed; another broker begins, perhaps with another number of workers.
    pub(crate) fn crash(&mut self) {
        let is_orderly = self.random.percent(20) && self.close();
        let is_kill = !is_orderly && (self.random.percent(40) || !self.host.store.survives_power_cuts());
        let stop = Stop {
            is_kill,
            is_orderly,
            is_damaged: self.random.percent(self.damages),
            now: self.now,
            wall_jump: self.random.pick(&[0, 0, 10, 3_000, -100_000]),
            workers: self.random.between(1, 4),
        };
        let how = match (is_orderly, is_kill) {
            (true, _) => "stopped in order",
            (false, true) => "killed",
            (false, false) => "power cut",
        };
        let store = &self.host.store;
        self.ledger.note(|| {
            format!(
                "--- {how}, damaged: {}; the store: {}",
                stop.is_damaged,
                store.describe()
            )
        });
        self.ledger.crashes.push(self.ledger.step);
        self.ledger.is_damaged |= stop.is_damaged;
        if stop.is_damaged {
            self.ledger.damages.push(self.ledger.step);
        }
        // Where nothing says what was on the device, damage looks like the torn tail that a loss of power leaves.
        self.ledger.may_forget |= stop.is_damaged && !self.host.store.survives_power_cuts();
        let events = &mut self.ledger.events;
        events.kills += u64::from(is_kill);
        events.power_cuts += u64::from(!is_kill && !is_orderly);
        events.orderly_stops += u64::from(is_orderly);
        events.damaged_files += u64::from(stop.is_damaged);
        let counted = self.host.broker.metrics.sum();
        self.ledger.losses_allowed += counted.dropped_queue_full_qos1_2;
        self.ledger.has_refused |= counted.publish_refused > 0;
        for will in std::mem::take(&mut self.wills.doubtful) {
            self.ledger.messages[will].accepted = None;
        }
        self.expect_wills();
        for link in &mut self.links {
            if !link.is_server_gone {
                link.is_server_gone = true;
                link.up.clear();
                let arriving = self.random.below(link.down.len() + 1);
                if self.random.percent(50) {
                    link.down.truncate(arriving);
                }
            }
        }
        let grace_ms = self.host.broker.options.will_grace_ms;
        self.now = self.host.restart(stop, self.fault);
        for (.., due) in &mut self.wills.due {
            *due = self.now.plus_millis(grace_ms);
        }
    }

    /// Wills of those who were connected, and know that their will was kept.
    fn expect_wills(&mut self) {
        self.wills.due.clear();
        for link in self.host.open_links() {
            let (owner, will) = self.owners[link];
            let client = &self.clients[owner];
            let is_sure = client.is_will_kept && client.link == Some(link) && client.state == State::Connected;
            if let Some(will) = will.filter(|_| is_sure && !client.is_hung_up && self.is_will_at_once(owner)) {
                self.wills.due.push((owner, will, Time::NEVER));
            }
        }
    }
}

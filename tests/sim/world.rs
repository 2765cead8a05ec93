//! Everything together: what a seed decides, and one step after the other.

use std::collections::BTreeMap;
use std::sync::Arc;

use sundew::broker::BrokerOptions;
use sundew::protocol::packet::{RetainHandling, SubscriptionOptions};
use sundew::protocol::qos::QoS;
use sundew::protocol::time::Time;
use sundew::protocol::version::Version;
use sundew::storage::disk::SyncMode;
use sundew::storage::image::Restored;

use crate::client::{Character, Client, Greeting, State, plain};
use crate::crash::Wills;
use crate::engine::EngineStore;
use crate::fault::Fault;
use crate::host::{Host, Setup};
use crate::late::{Habits, Late, MOUNTS, own_of_any};
use crate::ledger::{Breach, Invariant, Ledger, Message, MessageId};
use crate::network::{Link, LinkId};
use crate::random::Random;
use crate::store::{LogStore, SimStore, StoreHabits};

const STEPS: u64 = 1000;
/// Rounds of 100 ms in which nothing happens after which nothing will. One that is refused for a failing store ends only after two seconds.
const IDLE_ROUNDS: usize = 24;
/// When a run begins.
const START: Time = Time(1000);
const FILTERS: [&str; 9] = ["t/0", "t/1", "t/+", "t/#", "#", "+/1", "r/+", "w/#", "s/0"];
const QOS: [QoS; 3] = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];

pub(crate) struct World {
    pub random: Random,
    pub now: Time,
    pub host: Host,
    pub clients: Vec<Client>,
    pub links: Vec<Link>,
    /// Whose a link is, and the will that was said on it.
    pub owners: Vec<(usize, Option<MessageId>)>,
    pub ledger: Ledger,
    pub fault: Option<Fault>,
    /// How many of 1000 steps stop the broker.
    crashes: usize,
    /// How many of 100 stops damage a file.
    pub damages: usize,
    pub wills: Wills,
}

/// Runs a seed to its end.
pub(crate) fn run(seed: u64, fault: Option<Fault>, trace: bool) -> (Result<(), Breach>, Ledger) {
    let mut world = World::new(seed, fault);
    world.ledger.trace = trace.then(Vec::new);
    for step in 1..=STEPS {
        world.ledger.step = step;
        world.step();
        if world.ledger.breach.is_some() {
            break;
        }
    }
    if world.ledger.breach.is_none() {
        world.bustle();
    }
    if world.ledger.breach.is_none() {
        world.end();
    }
    (world.ledger.breach.take().map_or(Ok(()), Err), world.ledger)
}

/// Small queues are for worlds of MQTT 5 alone: older clients cannot be told of a full queue but by the end of the connection,
/// and one that publishes to itself would meet that for ever.
const SMALL_QUEUES_PERCENT: usize = 15;

fn options(random: &mut Random) -> BrokerOptions {
    let mut options = BrokerOptions {
        sys_interval_secs: 0,
        ..BrokerOptions::default()
    };
    options.delivery.in_flight_max = random.pick(&[1, 2, 5, 20, 1024]);
    options.delivery.output_bytes_max = random.pick(&[50, 500, 5_000, 1 << 20]);
    if random.percent(SMALL_QUEUES_PERCENT) {
        options.delivery.outbox.messages_max = random.between(3, 20);
    }
    options.delivery.memory_bytes_max = random.pick(&[0, 400, 2_000, 1 << 20]);
    options.delivery.memory_total_max = random.pick(&[1_000, 1 << 20, 1 << 20]);
    options.delivery.outbox.queue_qos0_offline = random.percent(20);
    options.cache.topics_max = random.pick(&[0, 4, 1024]);
    options.receive_maximum = random.pick(&[2, 5, 20, 1024]);
    options.will_grace_ms = random.pick(&[0, 500, 60_000]);
    options.redistribute_on_disconnect = random.percent(20);
    options
}

fn habits(random: &mut Random) -> Habits {
    Habits {
        authenticator_late: random.pick(&[0, 0, 50, 100]),
        authorizer_late: random.pick(&[0, 0, 30, 100]),
        refuses: random.pick(&[0, 0, 10]),
        asks_again: random.percent(40),
    }
}

fn store_habits(random: &mut Random) -> StoreHabits {
    StoreHabits {
        keeps: random.percent(85),
        late: random.pick(&[0, 30, 80, 100]),
        fails: random.pick(&[0, 0, 10, 30]),
        snapshots: random.pick(&[0, 5, 50]),
        is_on_disk: random.percent(60),
        sync: random.pick(&[SyncMode::Always, SyncMode::Always, SyncMode::Interval, SyncMode::Os]),
        is_quick: random.percent(50),
        memory_bytes: random.pick(&[0, 1000, 1 << 30]),
    }
}

/// Every third client is of no tenant, where there are any: three have the same client identifier.
fn character(number: usize, has_tenants: bool, has_small_queues: bool, random: &mut Random) -> Character {
    let is_persistent = random.percent(60);
    let version = match random.below(10) {
        _ if has_small_queues => Version::V5,
        0 if !is_persistent => Version::V31, // which is not told whether its session was kept
        0..=4 => Version::V311,
        _ => Version::V5,
    };
    let is_expiring = is_persistent && version == Version::V5 && random.percent(20);
    let mounts = ["", MOUNTS[0], MOUNTS[1]];
    Character {
        number,
        name: if has_tenants { number / mounts.len() } else { number },
        mount: if has_tenants { mounts[number % mounts.len()] } else { "" },
        version,
        is_persistent,
        expiry_secs: is_expiring.then(|| random.between(1, 5) as u32),
        keep_alive: random.pick(&[0, 0, 0, 5, 60]),
        group: random.pick(&[None, None, None, Some("$share/g/s/+"), Some("$share/h/s/0")]),
        ids_max: random.pick(&[12, 40, 65_535]),
        will_delay_secs: random.pick(&[None, None, Some(2)]),
    }
}

impl World {
    fn new(seed: u64, fault: Option<Fault>) -> Self {
        let mut random = Random::new(seed);
        let workers = random.between(1, 4);
        let late = Late::new(random.next(), habits(&mut random));
        let habits = store_habits(&mut random);
        let options = options(&mut random);
        let ledger = Ledger {
            has_small_queues: options.delivery.outbox.messages_max < 100,
            ..Ledger::default()
        };
        let seed = random.next();
        let store: Arc<dyn SimStore> = if habits.is_on_disk {
            Arc::new(EngineStore::new(seed, workers, habits, fault, START))
        } else {
            Arc::new(LogStore::new(seed, workers, habits, fault))
        };
        let setup = Setup {
            options,
            late,
            store,
            workers,
            seed: random.next(),
            is_prompt: random.percent(50),
        };
        let host = Host::new(setup, Restored::default(), START, fault);
        let crashes = if habits.keeps { random.pick(&[0, 2, 5, 10]) } else { 0 };
        let damages = if habits.is_on_disk {
            random.pick(&[0, 0, 0, 50])
        } else {
            0
        };
        let has_tenants = random.percent(40);
        let clients = (0..random.between(2, 7))
            .map(|number| character(number, has_tenants, ledger.has_small_queues, &mut random))
            .map(|character| Client::new(character, fault))
            .collect();
        Self {
            random,
            now: START,
            host,
            clients,
            links: Vec::new(),
            owners: Vec::new(),
            ledger,
            fault,
            crashes,
            damages,
            wills: Wills::default(),
        }
    }

    fn step(&mut self) {
        if self.random.below(1000) < self.crashes {
            self.crash();
        }
        let roll = self.random.below(100);
        let worker = self.random.below(self.host.workers.len());
        let client = self.random.below(self.clients.len());
        match roll {
            0..28 => {
                let runnable: Vec<LinkId> = self
                    .host
                    .drivers
                    .keys()
                    .copied()
                    .filter(|id| self.host.is_runnable(*id, &self.links[*id]))
                    .collect();
                if !runnable.is_empty() {
                    let id = self.random.pick(&runnable);
                    self.turn(id);
                }
            }
            28..50 => self.read(client),
            50..62 => self.flush(client),
            62..69 => self.host.read_mail(worker, self.now),
            69..74 => self.host.answer(self.now, &mut self.random),
            74..77 => self.host.arrive(worker, self.now),
            77 => self.host.submit(worker, self.now),
            78 => self.host.walk(worker, self.now),
            79..82 => self.pass_time(),
            82 => self.close_abandoned(),
            _ => self.act(client),
        }
        self.note_lost();
    }

    pub(crate) fn turn(&mut self, id: LinkId) {
        self.host
            .turn(id, &mut self.links[id], self.now, &mut self.random, &mut self.ledger);
    }

    fn pass_time(&mut self) {
        let millis = if self.random.percent(5) { 3000 } else { 50 };
        self.now = self.now.plus_millis(self.random.between(1, millis) as u64);
        let is_due = self.has_due_wills();
        for worker in 0..self.host.workers.len() {
            if is_due || self.random.percent(70) {
                self.host.expire(worker, self.now);
            }
        }
        self.note_published_wills();
        self.host.wake_closing();
    }

    fn close_abandoned(&mut self) {
        let open: Vec<LinkId> = (0..self.links.len())
            .filter(|id| self.links[*id].is_abandoned && !self.links[*id].is_client_gone)
            .collect();
        if !open.is_empty() {
            let id = self.random.pick(&open);
            let arriving = self.random.below(self.links[id].up.len() + 1);
            self.links[id].lose(arriving);
        }
    }

    pub(crate) fn read(&mut self, client: usize) {
        self.ledger.has_refused |= self.host.has_refused();
        let client = &mut self.clients[client];
        let Some(id) = client.link else { return };
        let link = &mut self.links[id];
        let count = self.random.between(0, link.down.len());
        client.read(link, count, &mut self.ledger);
        let is_over = link.is_server_gone && link.down.is_empty();
        let has_said_all = client.is_hung_up && client.unsent.is_empty();
        if is_over || has_said_all {
            link.is_client_gone = true;
            client.leave(&mut self.ledger);
        }
    }

    pub(crate) fn flush(&mut self, client: usize) {
        let client = &mut self.clients[client];
        if let Some(id) = client.link {
            let count = if self.random.percent(50) {
                self.random.between(1, 20)
            } else {
                usize::MAX
            };
            client.flush(&mut self.links[id], count);
        }
    }

    /// A client does what it likes.
    fn act(&mut self, client: usize) {
        match self.clients[client].state {
            State::Offline => {
                if self.random.percent(40) {
                    let is_reset = self.random.percent(4);
                    self.connect(client, is_reset);
                }
            }
            State::Connecting => {
                if self.random.percent(4) {
                    self.lose(client);
                }
            }
            State::Connected if self.clients[client].is_hung_up => {}
            State::Connected => self.act_connected(client),
        }
    }

    fn act_connected(&mut self, client: usize) {
        match self.random.below(100) {
            0..55 => self.publish(client),
            55..67 => self.subscribe(client),
            67..71 => {
                let filters = self.clients[client].filters(&self.ledger);
                if !filters.is_empty() && self.clients[client].may_ask() {
                    let at = self.random.below(filters.len());
                    self.clients[client].unsubscribe(&filters[at], &mut self.ledger);
                }
            }
            71..88 => self.clients[client].pay(),
            88..93 if self.clients[client].may_ask() => self.clients[client].ping(),
            93..95 => {
                let ends_session = self.clients[client].character.is_persistent && self.random.percent(20);
                self.clients[client].disconnect(ends_session, &mut self.ledger);
            }
            95..98 => self.lose(client),
            98 => {
                if let Some(id) = self.clients[client].link {
                    self.links[id].is_abandoned = true;
                }
                self.connect(client, false);
            }
            _ => {}
        }
    }

    /// The connection breaks, at any byte.
    fn lose(&mut self, client: usize) {
        let client = &mut self.clients[client];
        if let Some(id) = client.link {
            let arriving = self.random.below(self.links[id].up.len() + 1);
            self.links[id].lose(arriving);
            client.leave(&mut self.ledger);
        }
    }

    /// Opens a connection on some worker. Where an attempt with clean start may still be under way its end is waited for: nobody
    /// could say otherwise which session is whose.
    pub(crate) fn connect(&mut self, number: usize, is_reset: bool) {
        let host = &self.host;
        let is_mine_alive = || {
            self.owners
                .iter()
                .enumerate()
                .any(|(id, (owner, _))| *owner == number && host.knows(id))
        };
        let client = &self.clients[number];
        // A session that expires may have been begun anew by an attempt that went unanswered: nobody could tell.
        let is_doubtful = client.has_ghost && client.character.expiry_secs.is_some();
        let is_reset = is_reset || client.must_reset || is_doubtful;
        if client.character.is_persistent && (client.is_unsure || is_reset) && is_mine_alive() {
            return;
        }
        let character = client.character.clone();
        let will = self.random.percent(30).then(|| self.will(number));
        // Clean session of 3.1.1 means both: a new session, and one that ends with the connection.
        let is_kept = character.is_persistent && (character.version.has_properties() || !is_reset);
        let greeting = Greeting {
            clean_start: !character.is_persistent || is_reset,
            receive_maximum: self.random.pick(&[1, 2, 5, 20, 65_535]),
            topic_aliases: if self.random.percent(30) { 10 } else { 0 },
            will,
            expiry_secs: if is_kept {
                character.expiry_secs.unwrap_or(u32::MAX)
            } else {
                0
            },
        };
        self.wills.is_back(number);
        let id = self.links.len();
        self.links.push(Link::new(self.random.pick(&[1, 7, 40, 300, 5000])));
        self.owners.push((number, will));
        let worker = self.random.below(self.host.workers.len());
        self.host.accept(id, worker);
        self.clients[number].connect(id, greeting, &mut self.ledger);
    }

    fn will(&mut self, number: usize) -> MessageId {
        let topic = format!("w/{}", self.clients[number].character.name);
        let message = self.message(number, topic);
        self.ledger.publish(Message {
            is_will: true,
            sends: 1,
            ..message
        })
    }

    fn message(&mut self, publisher: usize, topic: String) -> Message {
        let character = &self.clients[publisher].character;
        // Who is of no tenant knows the topics of all.
        let is_of_tenants =
            character.mount.is_empty() && self.clients.iter().any(|one| !one.character.mount.is_empty());
        let topic = if is_of_tenants && topic.starts_with("t/") && self.random.percent(30) {
            format!("{}{topic}", self.random.pick(&MOUNTS))
        } else {
            character.full(&topic)
        };
        let padding = match self.random.below(20) {
            0 => 9_000,
            1..4 => self.random.between(100, 300),
            _ => self.random.below(30),
        };
        Message {
            publisher,
            topic,
            qos: self.random.pick(&QOS),
            retain: false,
            is_clear: false,
            is_will: false,
            sends: 0,
            first_sent: self.ledger.step,
            accepted: None,
            padding,
        }
    }

    fn publish(&mut self, number: usize) {
        let topic = match self.random.below(20) {
            0..3 => format!("r/{}", self.clients[number].character.name),
            3..7 => format!("s/{}", self.random.below(2)),
            7 => "d/0".into(),
            _ => format!("t/{}", self.random.below(4)),
        };
        let mut message = self.message(number, topic);
        if own_of_any(&message.topic).starts_with("r/") {
            // One publisher and one QoS for each, so that it is clear which one is last.
            message.retain = true;
            message.qos = QOS[1 + number % 2];
            message.is_clear = self.random.percent(15);
        }
        if self.clients[number].may_publish(message.qos) {
            let id = self.ledger.publish(message);
            self.clients[number].publish(id, &mut self.ledger);
        }
    }

    fn subscribe(&mut self, number: usize) {
        if !self.clients[number].may_ask() {
            return;
        }
        let character = self.clients[number].character.clone();
        let mut filters: BTreeMap<String, SubscriptionOptions> = BTreeMap::new();
        if let Some(group) = character.group {
            filters.insert(character.full(group), plain(QOS[1 + self.random.below(2)]));
        } else {
            for _ in 0..self.random.between(1, 3) {
                let mut options = plain(self.random.pick(&QOS));
                if character.version.has_properties() {
                    options.no_local = self.random.percent(15);
                    options.retain_handling = self.random.pick(&[
                        RetainHandling::Send,
                        RetainHandling::SendIfNew,
                        RetainHandling::DoNotSend,
                    ]);
                }
                let filter = if self.random.percent(3) {
                    "d/#"
                } else {
                    self.random.pick(&FILTERS)
                };
                filters.insert(character.full(filter), options);
            }
        }
        let filters: Vec<_> = filters.into_iter().collect();
        self.clients[number].subscribe(&filters, &mut self.ledger);
    }

    /// Everybody is quick, and the broker may be stopped in the middle of it.
    fn bustle(&mut self) {
        for _ in 0..self.random.pick(&[0, 20, 60]) {
            self.ledger.step += 1;
            for client in 0..self.clients.len() {
                if self.random.percent(50) {
                    self.act(client);
                }
            }
            let reconnects = self.random.percent(50);
            self.settle_once(reconnects);
            self.pass_time();
            if self.random.below(100) < self.crashes {
                self.crash();
            }
            if self.ledger.breach.is_some() {
                return;
            }
        }
    }

    /// Lets everything come to rest; with `reconnects` everybody is connected then.
    pub(crate) fn settle(&mut self, reconnects: bool) {
        let mut idle = 0;
        for client in self.clients.iter_mut().filter(|client| client.may_ask()) {
            client.ping(); // that takes longer than some keep alive
        }
        for _ in 0..20_000 {
            self.ledger.step += 1;
            if self.ledger.breach.is_some() || idle > IDLE_ROUNDS && self.host.store.is_sound() {
                return;
            }
            let has_moved = self.settle_once(reconnects);
            idle = if has_moved { 0 } else { idle + 1 };
            // A store that cannot write heals in time, however busy its clients are.
            if !has_moved || !self.host.store.is_sound() {
                self.now = self.now.plus_millis(100);
                for worker in 0..self.host.workers.len() {
                    self.host.expire(worker, self.now);
                }
                self.host.wake_closing();
            }
        }
        self.ledger.fail(Invariant::NoLostAcknowledgement, || {
            format!("it does not come to rest: {}", self.host.store.describe())
        });
    }

    /// One round in which everybody does what there is to do; false when there was nothing.
    fn settle_once(&mut self, reconnects: bool) -> bool {
        let mut has_moved = false;
        for id in 0..self.links.len() {
            self.links[id].capacity = 100_000;
            if self.links[id].is_abandoned && !self.links[id].is_client_gone {
                self.links[id].is_client_gone = true;
                has_moved = true;
            }
            if self.host.is_runnable(id, &self.links[id]) {
                self.turn(id);
                has_moved = true;
            }
        }
        self.note_lost();
        for worker in 0..self.host.workers.len() {
            let id = self.host.workers[worker].id();
            has_moved |= self.host.has_arrivals(worker) || self.host.broker.mailboxes.waiting(id) > 0;
            has_moved |= self.host.workers[worker].has_walks();
            self.host.arrive(worker, self.now);
            self.host.read_mail(worker, self.now);
            self.host.walk(worker, self.now);
            self.host.submit(worker, self.now);
        }
        has_moved |= self.host.late.waiting() > 0 || self.host.store.is_busy();
        self.host.answer(self.now, &mut self.random);
        for client in 0..self.clients.len() {
            let before = (self.clients[client].state, self.clients[client].unsent.len());
            if self.clients[client].state == State::Offline && reconnects {
                // One that waits until its old link is gone has not moved: that link may be of a paused publisher, and time has to pass.
                let links = self.links.len();
                self.connect(client, false);
                has_moved |= self.links.len() > links;
            }
            while self.clients[client].owes() {
                self.clients[client].pay();
            }
            self.flush(client);
            let waiting = self.clients[client].link.map_or(0, |id| self.links[id].down.len());
            self.read(client);
            has_moved |= waiting > 0 || before != (self.clients[client].state, self.clients[client].unsent.len());
        }
        has_moved
    }

    pub(crate) fn is_sabotaged_by(&self, fault: Fault) -> bool {
        self.fault == Some(fault)
    }

    pub(crate) fn add_client(&mut self, character: Character) -> usize {
        self.clients.push(Client::new(
            Character {
                number: self.clients.len(),
                ..character
            },
            None,
        ));
        self.clients.len() - 1
    }
}

//! A queue whose contents come and go is, for its client, a queue.

use std::collections::VecDeque;

use super::*;
use crate::delivery::outbox::Loaded;
use crate::protocol::ids::MessageNumber;

fn numbered(number: u64, bytes: usize, expires_at: Option<Time>) -> Delivery {
    let mut delivery = delivery(QoS::AtLeastOnce, &vec![b'x'; bytes]);
    let message = Arc::get_mut(&mut delivery.message).unwrap();
    message.number = MessageNumber::new(number);
    message.expires_at = expires_at;
    delivery
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// The queue, and beside it what it should be: numbers in order.
struct Model {
    outbox: Outbox,
    expected: VecDeque<u64>,
    /// What the store has read, some of it never to be read again.
    asked: Option<Loaded>,
    due_up_to: Option<u64>,
    last: u64,
    budget: usize,
    options: OutboxOptions,
}

impl Model {
    fn new(random: &mut Random) -> Self {
        let overflow = if random.below(2) == 0 {
            Overflow::Refuse
        } else {
            Overflow::DropOldest
        };
        Self {
            outbox: Outbox::default(),
            expected: VecDeque::new(),
            asked: None,
            due_up_to: None,
            last: 0,
            budget: random.below(4000) as usize,
            options: options(60, overflow),
        }
    }

    fn step(&mut self, random: &mut Random) {
        match random.below(12) {
            0..=4 => self.put(random),
            5..=6 => match self.outbox.pop_acknowledged() {
                Some(delivery) => {
                    let number = delivery.message.number.unwrap().0.get();
                    assert_eq!(
                        Some(number),
                        self.expected.pop_front(),
                        "in order, and none is left out"
                    );
                    let length = delivery.message.payload().len();
                    assert_eq!(length as u64, number % 300, "with its own content");
                }
                None => assert!(self.expected.is_empty() || self.outbox.is_front_stored()),
            },
            7 => {
                self.due_up_to = Some(self.outbox.take_mark());
            }
            8 => {
                if let Some(end) = self.due_up_to.take() {
                    self.outbox.page_out(end, self.budget, random.below(8) == 0);
                }
            }
            9 => self.ask(random),
            10 => self.answer(),
            _ => {
                let mut lost = Vec::new();
                self.outbox.drop_expired(Time(self.last * 10), &mut lost);
                for (number, _) in lost {
                    assert_eq!(Some(number.0.get()), self.expected.pop_front());
                }
            }
        }
        self.check();
    }

    fn put(&mut self, random: &mut Random) {
        self.last += 1;
        let expires_at = (random.below(4) == 0).then(|| Time(self.last * 10 + random.below(200)));
        let delivery = numbered(self.last, (self.last % 300) as usize, expires_at);
        let mut lost = Vec::new();
        match self.outbox.offer(delivery, &self.options, &mut lost) {
            Offered::Queued | Offered::QueuedAfterDropping(_) => self.expected.push_back(self.last),
            Offered::Refused => assert_eq!(self.options.overflow, Overflow::Refuse),
            other => panic!("{other:?}"),
        }
        for (number, _) in lost {
            assert_eq!(Some(number.0.get()), self.expected.pop_front(), "the oldest goes");
        }
        if self.outbox.is_over_memory(self.budget) {
            self.outbox.mark_due();
        }
    }

    fn ask(&mut self, random: &mut Random) {
        let (messages, bytes) = (1 + random.below(8) as usize, random.below(2000) as usize);
        let Some(run) = self.outbox.next_run(messages, bytes) else {
            return;
        };
        assert!(self.asked.is_none(), "one run at a time");
        assert!(run.len() <= messages);
        let read = |number: MessageNumber| {
            let value = number.0.get();
            let message = numbered(value, (value % 300) as usize, None).message;
            (number, (value % 50 != 7).then_some(message))
        };
        self.asked = Some(run.into_iter().map(read).collect());
    }

    fn answer(&mut self) {
        let Some(loaded) = self.asked.take() else { return };
        for lost in self.outbox.fill(&loaded) {
            assert_eq!(lost.message.0.get() % 50, 7);
            self.expected.retain(|number| *number != lost.message.0.get());
        }
    }

    fn check(&self) {
        let waiting: Vec<u64> = self
            .outbox
            .waiting_from(0)
            .map(|(_, entry)| entry.key().unwrap().0.0.get())
            .collect();
        assert_eq!(waiting, Vec::from(self.expected.clone()));
        let load = self.outbox.load();
        let entries = || self.outbox.waiting_from(0).map(|(_, entry)| entry);
        assert_eq!(load.messages, self.expected.len());
        assert_eq!(load.stored, entries().filter(|entry| entry.is_stored()).count());
        assert_eq!(load.bytes, entries().map(Entry::cost_bytes).sum::<usize>());
        assert_eq!(load.memory_bytes, entries().map(Entry::memory_bytes).sum::<usize>());
    }

    /// Whatever state it is in, it can be emptied.
    fn drain(&mut self, random: &mut Random) {
        while !self.expected.is_empty() {
            let before = self.expected.len();
            self.answer();
            self.ask(random);
            self.answer();
            while let Some(delivery) = self.outbox.pop_acknowledged() {
                let number = delivery.message.number.unwrap().0.get();
                assert_eq!(Some(number), self.expected.pop_front());
            }
            assert!(self.expected.len() < before, "it goes on");
        }
        assert!(self.outbox.is_empty());
        assert_eq!(self.outbox.load(), crate::delivery::outbox::Load::default());
    }
}

#[test]
fn order_and_contents_are_kept_whatever_is_in_memory() {
    let mut has_stored = 0;
    for seed in 0..400 {
        let mut random = Random(seed);
        let mut model = Model::new(&mut random);
        for _ in 0..400 {
            model.step(&mut random);
            has_stored += usize::from(model.outbox.has_stored());
        }
        model.drain(&mut random);
    }
    assert!(has_stored > 10_000, "{has_stored}: the test looks at what it says");
}

#[test]
fn what_is_within_the_budget_stays_in_memory() {
    let mut outbox = Outbox::default();
    let cost = numbered(1, 100, None).cost_bytes();
    for number in 1..=10 {
        outbox.offer(numbered(number, 100, None), &OutboxOptions::default(), &mut Vec::new());
        if outbox.is_over_memory(4 * cost) {
            outbox.mark_due();
        }
    }
    let end = outbox.take_mark();
    outbox.page_out(end, 4 * cost, false);
    let load = outbox.load();
    assert_eq!((load.messages, load.stored), (10, 6), "the first four fit");
    assert_eq!((load.bytes, load.memory_bytes), (10 * cost, 4 * cost));
    assert!(!outbox.is_front_stored(), "those whose turn comes first");
}

#[test]
fn what_a_shared_subscription_gave_moves_without_its_content_only_when_the_session_ends() {
    let name = Arc::new(crate::router::shared::GroupName {
        group: "g".into(),
        filter: "t".into(),
    });
    let mut outbox = Outbox::default();
    for number in 1..=3 {
        let mut delivery = numbered(number, 10, None);
        delivery.group = (number != 2).then(|| Arc::clone(&name));
        outbox.restore_delivery(delivery, 0, false);
    }
    assert!(outbox.take_for_redistribution(false).is_empty());
    let taken = outbox.take_for_redistribution(true);
    let keys: Vec<_> = taken.iter().map(|entry| entry.key().unwrap().0.0.get()).collect();
    assert_eq!((keys, outbox.load().stored), (vec![1, 3], 1));
    assert!(taken.iter().all(|entry| match entry {
        Entry::Stored(stored) => stored.group() == Some(&name),
        Entry::Memory(_) => false,
    }));
}

use super::*;
use crate::protocol::packet::{RetainHandling, SubscriptionOptions};
use crate::protocol::property::Properties;
use crate::protocol::qos::QoS;
use crate::protocol::topic::TopicName;
use crate::storage::record::{Deliveries, UnreleasedRecord, records};

mod history;

fn session(number: u64) -> SessionNumber {
    SessionNumber::new(number).unwrap()
}

fn number(number: u64) -> MessageNumber {
    MessageNumber::new(number).unwrap()
}

fn id(value: u16) -> PacketId {
    PacketId::new(value).unwrap()
}

fn exists(number: u64) -> Record<'static> {
    Record::Session(SessionRecord {
        session: session(number),
        tenant: "",
        client_id: ["", "ann", "bob", "cid"][number as usize],
        expiry_secs: 60,
        expires_at: Time::NEVER,
    })
}

fn to(number: u64, progress: Progress) -> DeliveryRecord<'static> {
    DeliveryRecord {
        session: session(number),
        copy: 0,
        progress,
        qos: QoS::ExactlyOnce,
        retain: false,
        identifiers: smallvec::SmallVec::new(),
        group: None,
    }
}

/// Applies records after a trip through bytes, as a store does.
#[derive(Default)]
struct Log(Vec<u8>);

impl Log {
    fn add(&mut self, record: &Record<'_>) -> &mut Self {
        record.encode(&mut self.0);
        self
    }

    /// A message on topic `t/<n>`, payload `n`, to some sessions.
    fn message(&mut self, n: u64, sessions: &[u64]) -> &mut Self {
        self.whole(n, Time::NEVER, None, "x", sessions)
    }

    fn whole(
        &mut self,
        n: u64,
        expires_at: Time,
        retained: Option<u64>,
        payload: &str,
        to_sessions: &[u64],
    ) -> &mut Self {
        let mut deliveries = Vec::new();
        to_sessions
            .iter()
            .for_each(|to_session| to(*to_session, Progress::Queued).encode(&mut deliveries));
        self.add(&Record::Message(MessageRecord {
            number: number(n),
            expires_at,
            retained,
            received: None,
            content: content(&format!("t/{}", n % 10), payload),
            deliveries: Deliveries(&deliveries),
        }))
    }

    fn stands(&mut self, n: u64, to_session: u64, progress: Progress) -> &mut Self {
        self.add(&Record::Delivery(number(n), to(to_session, progress)))
    }

    fn ended(&mut self, n: u64, to_session: u64) -> &mut Self {
        self.add(&Record::DeliveryEnded(number(n), session(to_session), 0))
    }

    fn image(&self) -> Image {
        self.image_with(usize::MAX)
    }

    fn image_with(&self, memory_bytes_max: usize) -> Image {
        let mut image = Image::new(ImageOptions { memory_bytes_max });
        records(&self.0).for_each(|record| image.apply(record));
        image
    }

    fn restored(&self) -> Restored {
        self.image().finish(Time(1000))
    }
}

fn content<'a>(topic: &'a str, payload: &'a str) -> Content<'a> {
    Content {
        topic: TopicName::parse(topic).unwrap(),
        properties: Properties::EMPTY,
        payload: payload.as_bytes(),
        qos: QoS::ExactlyOnce,
        retain: false,
        source: None,
    }
}

fn numbers(deliveries: &[RestoredDelivery]) -> Vec<u64> {
    deliveries.iter().map(|delivery| delivery.message.0.get()).collect()
}

#[test]
fn a_session_comes_back_with_all_that_is_its_own() {
    let options = SubscriptionOptions {
        qos: QoS::AtLeastOnce,
        no_local: true,
        retain_as_published: false,
        retain_handling: RetainHandling::SendIfNew,
    };
    let mut log = Log::default();
    log.add(&exists(1));
    for filter in ["b/#", "a", "gone"] {
        log.add(&Record::Subscription(SubscriptionRecord {
            session: session(1),
            filter,
            options,
            identifier: Some(7),
            wants_retained: filter == "a",
        }));
    }
    log.add(&Record::SubscriptionEnded(session(1), "gone"))
        .add(&Record::Will(WillRecord {
            session: session(1),
            due: Time::NEVER,
            delay_secs: 5,
            expiry_secs: Some(9),
            content: content("will", "bye"),
        }));
    for (n, is_released) in [(4, false), (2, false), (3, true)] {
        log.add(&Record::Received(session(1), id(n)));
        if is_released {
            log.add(&Record::ReceivedEnded(session(1), id(n)));
        }
    }
    let restored = log.restored();
    let [one] = &restored.sessions[..] else {
        panic!("one session: {restored:?}");
    };
    assert_eq!(
        (&*one.client_id, one.expiry_secs, one.expires_at),
        ("ann", 60, Time::NEVER)
    );
    assert_eq!(
        one.subscriptions,
        [("a", true), ("b/#", false)].map(|(filter, wants_retained)| RestoredSubscription {
            filter: filter.into(),
            options,
            identifier: Some(7),
            wants_retained,
        })
    );
    assert_eq!(one.received, [id(2), id(4)]);
    let will = one.will.as_ref().unwrap();
    assert_eq!((will.due, will.delay_secs, will.expiry_secs), (Time::NEVER, 5, Some(9)));
    assert_eq!(will.message.payload(), b"bye");
    let report = &restored.report;
    assert_eq!(
        (report.sessions, report.subscriptions, report.wills, report.received),
        (1, 2, 1, 2)
    );
    assert!(report.lost.is_empty() && restored.last_session == 1);
}

#[test]
fn what_is_not_released_comes_back_with_its_message_and_the_last_word_counts() {
    let mut log = Log::default();
    log.add(&exists(1));
    let unreleased = |n, payload| {
        Record::Unreleased(UnreleasedRecord {
            session: session(1),
            id: id(n),
            expires_at: Time(99),
            content: content("a", payload),
        })
    };
    log.add(&unreleased(1, "old"))
        .add(&unreleased(1, "new"))
        .add(&unreleased(2, "released"))
        .add(&Record::ReceivedEnded(session(1), id(2)))
        .add(&unreleased(3, "routed"))
        .add(&Record::Received(session(1), id(3)));
    let restored = log.restored();
    let one = &restored.sessions[0];
    assert_eq!(one.received, [id(3)]);
    let [(number, message)] = &one.unreleased[..] else {
        panic!("one message: {restored:?}");
    };
    assert_eq!((*number, message.payload()), (id(1), &b"new"[..]));
    assert_eq!(message.expires_at, Some(Time(99)));
    assert_eq!(restored.report.received, 2);
}

#[test]
fn deliveries_come_back_in_the_order_of_sending_and_of_waiting() {
    let mut log = Log::default();
    log.add(&exists(1)).add(&exists(2));
    for n in 1..=6 {
        log.message(n, &[1, 2]);
    }
    log.stands(2, 1, Progress::Sent(id(1)))
        .stands(1, 1, Progress::Sent(id(2)))
        .stands(3, 1, Progress::Sent(id(3)))
        .stands(2, 1, Progress::Released(id(1)))
        .ended(3, 1)
        .ended(5, 1);
    let restored = log.restored();
    let [one, two] = &restored.sessions[..] else {
        panic!("two sessions: {restored:?}");
    };
    assert_eq!(numbers(&one.in_flight), [2, 1]);
    assert_eq!(one.in_flight[0].progress, Progress::Released(id(1)));
    assert_eq!(numbers(&one.queued), [4, 6]);
    assert_eq!(numbers(&two.queued), [1, 2, 3, 4, 5, 6]);
    let shared = one.queued[0].content.as_ref().unwrap();
    assert!(Arc::ptr_eq(shared, two.queued[3].content.as_ref().unwrap()));
    assert_eq!(
        (shared.number, shared.publisher),
        (Some(number(4)), Some(SessionKey::FORMER))
    );
    assert_eq!(restored.last_message, 6);
    assert_eq!((restored.report.queued, restored.report.in_flight), (8, 2));
}

#[test]
fn contents_go_when_nobody_needs_them_any_more() {
    let mut log = Log::default();
    log.add(&exists(1)).add(&exists(2)).message(1, &[1, 2]).message(2, &[2]);
    log.ended(1, 1);
    assert!(log.image().messages.is_known(number(1)));
    log.ended(1, 2).add(&Record::SessionEnded(session(2)));
    let image = log.image();
    assert!(!image.messages.is_known(number(1)) && !image.messages.is_known(number(2)));
    log.message(3, &[2]).stands(1, 1, Progress::Sent(id(1)));
    let restored = log.restored();
    assert_eq!(restored.sessions.len(), 1);
    assert!(restored.sessions[0].in_flight.is_empty(), "nothing is known of it");
    assert!(restored.report.lost.is_empty() && restored.report.lost.sessions.count == 0);
}

#[test]
fn of_a_topic_the_highest_order_counts_in_whatever_order_they_come() {
    for orders in [[1, 2, 3], [3, 1, 2], [2, 3, 1], [3, 2, 1]] {
        let mut log = Log::default();
        for order in orders {
            log.whole(order * 10, Time::NEVER, Some(order), &order.to_string(), &[]);
            log.whole(
                order * 10 + 1,
                Time::NEVER,
                Some(order),
                ["", "", "2", ""][order as usize],
                &[],
            );
        }
        let restored = log.restored();
        assert_eq!(
            restored.retained.len(),
            1,
            "the other topic was cleared after it was set"
        );
        assert_eq!(restored.retained[0].payload(), b"3");
        assert_eq!((restored.last_retained_order, restored.report.retained), (3, 1));
    }
}

#[test]
fn a_message_that_is_retained_and_queued_is_there_once() {
    let mut log = Log::default();
    log.add(&exists(1)).whole(1, Time::NEVER, Some(1), "x", &[1]);
    // As a snapshot tells it: the retained message and the session's each for itself, in either order.
    log.whole(2, Time::NEVER, Some(2), "y", &[]).message(2, &[1]);
    log.message(3, &[1]).whole(3, Time::NEVER, Some(3), "y", &[]);
    let mut restored = log.restored();
    restored.retained.sort_by_key(|message| message.number);
    for (retained, queued) in restored.retained.iter().zip(&restored.sessions[0].queued) {
        assert!(Arc::ptr_eq(retained, queued.content.as_ref().unwrap()));
    }
    assert_eq!(restored.retained.len(), 3);
}

#[test]
fn above_the_budget_only_the_number_is_kept() {
    let mut log = Log::default();
    log.add(&exists(1));
    (1..=4).for_each(|n| {
        log.message(n, &[1]);
    });
    let one = log.restored().sessions[0].queued[0].bytes;
    log.ended(1, 1).message(5, &[1]);
    let restored = log.image_with(2 * one).finish(Time(0));
    let queued = &restored.sessions[0].queued;
    assert_eq!(numbers(queued), [2, 3, 4, 5]);
    let in_memory: Vec<_> = queued.iter().map(|delivery| delivery.content.is_some()).collect();
    assert_eq!(in_memory, [true, false, false, true], "what ended has made room");
    assert!(queued.iter().all(|delivery| delivery.bytes == one));
    assert_eq!(restored.report.stored_only, 2);
}

#[test]
fn contents_that_a_snapshot_copies_wait_for_their_deliveries() {
    let mut log = Log::default();
    log.add(&exists(1)).message(1, &[]).message(2, &[]);
    log.stands(2, 1, Progress::Queued).stands(1, 1, Progress::Queued);
    log.stands(9, 1, Progress::Released(id(9)));
    let restored = log.restored();
    assert_eq!(numbers(&restored.sessions[0].queued), [2, 1]);
    assert_eq!(
        numbers(&restored.sessions[0].in_flight),
        [9],
        "what was released needs no content"
    );
}

#[test]
fn what_has_expired_is_left_out_but_for_what_is_in_flight_and_wills() {
    let now = Time(1000);
    let mut log = Log::default();
    let ends = |number, expiry_secs, expires_at| SessionRecord {
        session: session(number),
        tenant: "",
        client_id: "c",
        expiry_secs,
        expires_at,
    };
    let will = |number, due| {
        Record::Will(WillRecord {
            session: session(number),
            due,
            delay_secs: 0,
            expiry_secs: None,
            content: content("will", "bye"),
        })
    };
    log.add(&exists(1))
        .whole(1, now, Some(1), "x", &[1])
        .whole(2, now, None, "x", &[1])
        .whole(3, Time(1001), Some(2), "x", &[1])
        .stands(2, 1, Progress::Sent(id(1)));
    log.add(&Record::Session(ends(2, 60, now))).message(4, &[2]);
    log.add(&Record::Session(ends(3, 60, now)))
        .message(5, &[3])
        .add(&will(3, Time(9999)));
    log.add(&Record::Session(ends(4, 0, Time::NEVER)))
        .add(&will(4, Time::NEVER));
    log.add(&Record::Session(ends(5, 0, Time::NEVER)));
    let restored = log.restored();
    let [one, three, four] = &restored.sessions[..] else {
        panic!("three are left: {restored:?}");
    };
    assert_eq!((numbers(&one.queued), numbers(&one.in_flight)), (vec![3], vec![2]));
    assert_eq!(restored.retained.len(), 1);
    assert_eq!(
        (three.number, three.expiry_secs, three.queued.len()),
        (session(3), 0, 0)
    );
    assert_eq!(
        three.will.as_ref().unwrap().due,
        now,
        "at the latest when its session ended"
    );
    assert_eq!(
        (four.number, four.will.as_ref().unwrap().due),
        (session(4), Time::NEVER)
    );
    let report = &restored.report;
    assert_eq!((report.sessions, report.wills), (1, 2));
    assert_eq!((report.expired_sessions, report.expired_messages), (2, 2));
}

#[test]
fn after_a_gap_what_names_the_unknown_is_lost_and_named() {
    let mut log = Log::default();
    log.add(&exists(1)).message(1, &[3]).stands(8, 1, Progress::Sent(id(1)));
    let mut image = log.image();
    image.gap();
    let mut behind = Log::default();
    behind.message(2, &[2, 1]).stands(8, 1, Progress::Sent(id(1)));
    behind.add(&Record::Received(session(3), id(1)));
    records(&behind.0).for_each(|record| image.apply(record));
    image.apply(&[99, 1]);
    let lost = image.finish(Time(0)).report.lost;
    assert_eq!(lost.deliveries, 2);
    assert_eq!(lost.sessions.named, ["ann".into(), "#2".into(), "#3".into()]);
    assert_eq!(lost.topics.named, ["t/2".into()]);
    assert_eq!((lost.gaps, lost.unreadable.count), (2, 1));
    assert!(lost.unreadable.named[0].contains("newer version"));
}

#[test]
fn an_identifier_that_was_used_again_in_a_gap_is_in_flight_once() {
    let mut log = Log::default();
    log.add(&exists(1)).message(1, &[1]).message(2, &[1]).message(3, &[1]);
    log.stands(1, 1, Progress::Sent(id(1)))
        .stands(2, 1, Progress::Sent(id(2)));
    log.stands(3, 1, Progress::Sent(id(1)));
    let mut image = log.image();
    image.gap();
    assert_eq!(numbers(&image.finish(Time(0)).sessions[0].in_flight), [2, 3]);
}

#[test]
fn a_client_whose_old_session_ended_in_a_gap_has_the_new_one() {
    let mut log = Log::default();
    log.add(&exists(1)).add(&exists(2));
    log.add(&Record::Session(SessionRecord {
        session: session(4),
        tenant: "",
        client_id: "ann",
        expiry_secs: 60,
        expires_at: Time::NEVER,
    }));
    let mut image = log.image();
    image.gap();
    let restored = image.finish(Time(0));
    let found: Vec<_> = restored.sessions.iter().map(|session| session.number.0.get()).collect();
    assert_eq!(found, [2, 4]);
}

#[test]
fn a_state_that_is_told_again_is_the_same_state() {
    let mut log = Log::default();
    log.add(&exists(1))
        .add(&exists(2))
        .add(&Record::Received(session(2), id(9)));
    log.add(&Record::Will(WillRecord {
        session: session(1),
        due: Time::NEVER,
        delay_secs: 5,
        expiry_secs: Some(9),
        content: content("will", "bye"),
    }));
    log.add(&Record::Subscription(SubscriptionRecord {
        session: session(2),
        filter: "$share/g/a/#",
        options: SubscriptionOptions::default(),
        identifier: Some(3),
        wants_retained: false,
    }));
    for n in 1..=2000 {
        log.whole(
            n,
            Time(5000 + n),
            (n % 7 == 0).then_some(n),
            &"x".repeat(n as usize % 100),
            &[1, 2],
        );
    }
    log.stands(8, 1, Progress::Sent(id(1)))
        .stands(7, 1, Progress::Sent(id(2)))
        .stands(8, 1, Progress::Released(id(1)))
        .ended(1500, 2);
    for memory_bytes_max in [usize::MAX, 0] {
        let once = log.image_with(memory_bytes_max).finish(Time(0));
        let mut again = Image::new(ImageOptions { memory_bytes_max });
        let mut parts = 0;
        once.encode(&mut |part| {
            parts += 1;
            // What the store copies from where it has it.
            for number in part.stored_messages {
                let found =
                    records(&log.0).find(|record| crate::storage::record::message_number(record) == Some(number));
                let Some(Ok(Record::Message(message))) = found.map(Record::decode) else {
                    panic!("{number:?} is not stored");
                };
                again.apply_decoded(&Record::Message(MessageRecord {
                    retained: None,
                    deliveries: Deliveries::default(),
                    ..message
                }));
            }
            records(&part.bytes).for_each(|record| again.apply(record));
        });
        assert!(parts > 1 || memory_bytes_max == 0, "in parts");
        let again = again.finish(Time(0));
        let lines = |restored: &Restored| {
            let mut retained: Vec<_> = restored.retained.iter().map(|message| format!("{message:?}")).collect();
            retained.sort();
            (format!("{:?}", restored.sessions), retained)
        };
        assert!(lines(&again) == lines(&once), "with {memory_bytes_max} bytes");
    }
}

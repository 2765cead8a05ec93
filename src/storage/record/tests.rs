use proptest::prelude::*;

use smallvec::SmallVec;

use super::*;
use crate::protocol::property::{PropertiesBuf, PropertyId};
use crate::protocol::source::Source;
use crate::protocol::topic::TopicName;

fn session(number: u64) -> SessionNumber {
    SessionNumber::new(number).unwrap()
}

fn message(number: u64) -> MessageNumber {
    MessageNumber::new(number).unwrap()
}

fn id(value: u16) -> PacketId {
    PacketId::new(value).unwrap()
}

fn round_trip(record: &Record<'_>) {
    let mut bytes = Vec::new();
    Record::SessionEnded(session(9)).encode(&mut bytes);
    record.encode(&mut bytes);
    let framed: Vec<_> = records(&bytes).collect();
    assert_eq!(framed.len(), 2);
    assert_eq!(Record::decode(framed[1]).as_ref(), Ok(record));
    for cut in 0..framed[1].len() {
        // Whatever is cut off, it is an error or another record, never a panic; a list of deliveries may end early.
        if let Ok(Record::Message(message)) = Record::decode(&framed[1][..cut]) {
            message.deliveries.iter().for_each(drop);
        }
    }
}

fn content(properties: &PropertiesBuf) -> Content<'_> {
    Content {
        topic: TopicName::parse("a/b").unwrap(),
        properties: properties.view(),
        payload: b"hello",
        qos: QoS::ExactlyOnce,
        retain: true,
        source: None,
    }
}

fn sources() -> [Option<Source<'static>>; 3] {
    let source = Source {
        user_name: Some(""),
        is_listed: true,
        has_grants: false,
        client_id: "ü",
        listener: "tcp:1883",
        ip: Some([10, 1, 2, 3].into()),
    };
    let other = Source {
        user_name: None,
        is_listed: false,
        has_grants: true,
        ip: Some([0xFD00, 0, 0, 0, 0, 0, 0, 1].into()),
        ..source
    };
    [Some(source), Some(other), Some(Source { ip: None, ..other })]
}

#[test]
fn who_published_it_reads_as_it_was_written() {
    let properties = PropertiesBuf::new();
    for source in sources() {
        round_trip(&Record::Message(MessageRecord {
            number: message(1),
            expires_at: Time::NEVER,
            retained: Some(1),
            received: None,
            content: Content {
                source,
                ..content(&properties)
            },
            deliveries: Deliveries::default(),
        }));
    }
}

fn deliveries() -> [DeliveryRecord<'static>; 2] {
    [
        DeliveryRecord {
            session: session(1),
            copy: 0,
            progress: Progress::Queued,
            qos: QoS::AtLeastOnce,
            retain: false,
            identifiers: SmallVec::new(),
            group: None,
        },
        DeliveryRecord {
            session: session(u64::MAX),
            copy: 0x8123,
            progress: Progress::Sent(id(65_535)),
            qos: QoS::ExactlyOnce,
            retain: true,
            identifiers: SmallVec::from_slice(&[1, 268_435_455]),
            group: Some(("g", "a/#")),
        },
    ]
}

#[test]
fn every_kind_reads_as_it_was_written() {
    let mut properties = PropertiesBuf::new();
    properties.push_text(PropertyId::ContentType, "text/plain");
    let deliveries = deliveries();
    let mut encoded = Vec::new();
    deliveries.iter().for_each(|delivery| delivery.encode(&mut encoded));
    let options = SubscriptionOptions {
        qos: QoS::AtLeastOnce,
        no_local: true,
        retain_as_published: true,
        retain_handling: RetainHandling::DoNotSend,
    };
    let whole = MessageRecord {
        number: message(300),
        expires_at: Time::NEVER,
        retained: Some(0),
        received: Some((session(4), id(7))),
        content: content(&properties),
        deliveries: Deliveries(&encoded),
    };
    assert_eq!(
        whole.deliveries.iter().collect::<Result<Vec<_>, _>>(),
        Ok(deliveries.to_vec())
    );
    for record in [
        Record::Session(SessionRecord {
            session: session(1),
            tenant: "",
            client_id: "sensor-ü",
            expiry_secs: u32::MAX,
            expires_at: Time(0),
        }),
        Record::SessionEnded(session(128)),
        Record::Subscription(SubscriptionRecord {
            session: session(1),
            filter: "$share/g/a/#",
            options,
            identifier: Some(3),
            wants_retained: true,
        }),
        Record::SubscriptionEnded(session(1), "a/+"),
        Record::Will(WillRecord {
            session: session(1),
            due: Time(5),
            delay_secs: 0,
            expiry_secs: Some(u32::MAX),
            content: content(&properties),
        }),
        Record::WillEnded(session(1)),
        Record::Message(whole),
        Record::Message(MessageRecord {
            expires_at: Time(9),
            retained: None,
            received: None,
            deliveries: Deliveries::default(),
            ..whole
        }),
        Record::Delivery(message(1), deliveries[1].clone()),
        Record::DeliveryEnded(message(1), session(2), 1),
        Record::Received(session(1), id(1)),
        Record::ReceivedEnded(session(1), id(1)),
        Record::RetainedFrom(u64::MAX),
    ] {
        round_trip(&record);
    }
}

#[test]
fn a_delivery_of_which_little_is_to_be_told_is_written_alike_either_way() {
    for progress in [Progress::Queued, Progress::Sent(id(300)), Progress::Released(id(7))] {
        let head = DeliveryHead {
            session: session(70_000),
            progress,
            qos: QoS::ExactlyOnce,
            retain: true,
        };
        let whole = DeliveryRecord {
            session: head.session,
            copy: 0,
            progress,
            qos: head.qos,
            retain: true,
            identifiers: SmallVec::new(),
            group: None,
        };
        let (mut short, mut long) = (Vec::new(), Vec::new());
        head.encode(&mut short);
        whole.encode(&mut long);
        assert_eq!(short, long);
    }
}

#[test]
fn a_message_that_is_not_released_reads_as_it_was_written() {
    let properties = PropertiesBuf::new();
    round_trip(&Record::Unreleased(UnreleasedRecord {
        session: session(1),
        id: id(u16::MAX),
        expires_at: Time(9),
        content: content(&properties),
    }));
}

#[test]
fn the_number_of_a_message_is_found_without_reading_it() {
    let properties = PropertiesBuf::new();
    let mut bytes = Vec::new();
    Record::WillEnded(session(1)).encode(&mut bytes);
    Record::Message(MessageRecord {
        number: message(1 << 40),
        expires_at: Time::NEVER,
        retained: None,
        received: None,
        content: content(&properties),
        deliveries: Deliveries::default(),
    })
    .encode(&mut bytes);
    let found: Vec<_> = records(&bytes).map(message_number).collect();
    assert_eq!(found, [None, Some(message(1 << 40))]);
}

#[test]
fn a_kind_of_a_newer_version_is_told_and_not_taken_for_damage() {
    assert_eq!(Record::decode(&[99, 1, 2]), Err(RecordError::Kind(99)));
    assert_eq!(Record::decode(&[]), Err(RecordError::Short));
    assert_eq!(
        Record::decode(&[KIND_SESSION_ENDED, 0]),
        Err(RecordError::Field("session"))
    );
    assert_eq!(Record::decode(&[KIND_WILL_ENDED, 1, 1]), Err(RecordError::Field("end")));
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), kind in 0u8..15) {
        let mut record = bytes.clone();
        record.insert(0, kind);
        if let Ok(Record::Message(message)) = Record::decode(&record) {
            message.deliveries.iter().for_each(drop);
            message.content.properties.iter().for_each(drop);
        }
        for record in records(&bytes) {
            let _ = Record::decode(record);
        }
    }
}

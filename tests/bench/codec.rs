//! Reading and writing of small packets, ours and mqttbytes' side by side. `cargo bench --bench codec`.
//!
//! Reading goes over a buffer full of packets, as a socket gives them; one element is one packet.

use std::hint::black_box;

use bytes::BytesMut;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use sundew::codec::{DecodeOptions, PublishFrame, Role, decode, patch_packet_id, write_ack};
use sundew::protocol::ids::PacketId;
use sundew::protocol::packet::PacketType;
use sundew::protocol::property::{PropertiesBuf, PropertyId};
use sundew::protocol::qos::QoS;
use sundew::protocol::reason::ReasonCode;
use sundew::protocol::version::Version;

const TOPIC: &str = "sensors/building-7/room-12/tempe"; // 32 bytes
const PACKETS: usize = 512;

struct Case {
    name: &'static str,
    version: Version,
    qos: QoS,
    payload: usize,
    properties: PropertiesBuf,
}

fn cases() -> Vec<Case> {
    let mut five = PropertiesBuf::new();
    five.push_byte(PropertyId::PayloadFormatIndicator, 1)
        .push_text(PropertyId::ContentType, "application/json")
        .push_text(PropertyId::ResponseTopic, "answers/client-1")
        .push_binary(PropertyId::CorrelationData, b"12345678")
        .push_user_property("unit", "celsius");
    let case = |name, version, qos, payload, properties| Case {
        name,
        version,
        qos,
        payload,
        properties,
    };
    vec![
        case(
            "3.1.1 QoS 0, 16 bytes",
            Version::V311,
            QoS::AtMostOnce,
            16,
            PropertiesBuf::new(),
        ),
        case(
            "3.1.1 QoS 1, 256 bytes",
            Version::V311,
            QoS::AtLeastOnce,
            256,
            PropertiesBuf::new(),
        ),
        case(
            "5.0 QoS 1, 256 bytes",
            Version::V5,
            QoS::AtLeastOnce,
            256,
            PropertiesBuf::new(),
        ),
        case(
            "5.0 QoS 1, 16 bytes, 5 properties",
            Version::V5,
            QoS::AtLeastOnce,
            16,
            five,
        ),
    ]
}

fn frame<'a>(case: &'a Case, payload: &'a [u8]) -> PublishFrame<'a> {
    PublishFrame {
        topic: TOPIC,
        qos: case.qos,
        retain: false,
        dup: false,
        packet_id: Some(PacketId::FIRST),
        topic_alias: None,
        message_expiry: None,
        subscription_identifiers: &[],
        properties: case.properties.view(),
        payload,
    }
}

fn read_publish(c: &mut Criterion) {
    let mut group = c.benchmark_group("read PUBLISH");
    group.throughput(Throughput::Elements(PACKETS as u64));
    for case in cases() {
        let payload = vec![b'x'; case.payload];
        let mut buffer = Vec::new();
        for _ in 0..PACKETS {
            frame(&case, &payload)
                .write(case.version, &mut buffer)
                .expect("a small packet");
        }
        group.bench_with_input(BenchmarkId::new("sundew", case.name), &buffer, |b, buffer| {
            let options = DecodeOptions::default();
            b.iter(|| {
                let mut rest = &buffer[..];
                while let Ok(Some((packet, consumed))) = decode(rest, Some(case.version), Role::Server, &options) {
                    black_box(&packet);
                    rest = &rest[consumed..];
                }
                assert!(rest.is_empty());
            });
        });
        group.bench_with_input(BenchmarkId::new("mqttbytes", case.name), &buffer, |b, buffer| {
            b.iter(|| {
                let mut stream = BytesMut::from(&buffer[..]);
                for _ in 0..PACKETS {
                    if case.version.has_properties() {
                        black_box(mqttbytes::v5::read(&mut stream, usize::MAX).expect("a packet"));
                    } else {
                        black_box(mqttbytes::v4::read(&mut stream, usize::MAX).expect("a packet"));
                    }
                }
            });
        });
    }
    group.finish();
}

fn write_publish(c: &mut Criterion) {
    let mut group = c.benchmark_group("write PUBLISH");
    group.throughput(Throughput::Elements(PACKETS as u64));
    for case in cases() {
        let payload = vec![b'x'; case.payload];
        let frame = frame(&case, &payload);
        let mut out = Vec::with_capacity(1 << 20);
        group.bench_function(BenchmarkId::new("sundew", case.name), |b| {
            b.iter(|| {
                out.clear();
                for _ in 0..PACKETS {
                    black_box(&frame).write(case.version, &mut out).expect("a small packet");
                }
                black_box(out.len())
            });
        });
        group.bench_function(BenchmarkId::new("sundew, copied and patched", case.name), |b| {
            let mut template = Vec::new();
            let span = frame.write(case.version, &mut template).expect("a small packet");
            b.iter(|| {
                out.clear();
                for _ in 0..PACKETS {
                    let start = out.len();
                    out.extend_from_slice(black_box(&template));
                    if let Some(at) = span.packet_id_at {
                        patch_packet_id(&mut out[start..], at, PacketId::FIRST);
                    }
                }
                black_box(out.len())
            });
        });
        if case.version.has_properties() {
            continue; // Its packet of MQTT 5 has the properties in another form: not the same work.
        }
        let qos = if case.qos.is_acknowledged() {
            mqttbytes::QoS::AtLeastOnce
        } else {
            mqttbytes::QoS::AtMostOnce
        };
        let mut theirs = mqttbytes::v4::Publish::new(TOPIC, qos, payload.clone());
        theirs.pkid = if case.qos.is_acknowledged() { 1 } else { 0 };
        let mut out = BytesMut::with_capacity(1 << 20);
        group.bench_function(BenchmarkId::new("mqttbytes", case.name), |b| {
            b.iter(|| {
                out.clear();
                for _ in 0..PACKETS {
                    black_box(&theirs).write(&mut out).expect("a small packet");
                }
                black_box(out.len())
            });
        });
    }
    group.finish();
}

fn acknowledgements(c: &mut Criterion) {
    let mut group = c.benchmark_group("PUBACK");
    group.throughput(Throughput::Elements(PACKETS as u64));
    let mut out = Vec::with_capacity(1 << 16);
    group.bench_function("write", |b| {
        b.iter(|| {
            out.clear();
            for _ in 0..PACKETS {
                write_ack(
                    PacketType::PubAck,
                    PacketId::FIRST,
                    ReasonCode::Success,
                    black_box(Version::V5),
                    &mut out,
                );
            }
            black_box(out.len())
        });
    });
    let buffer = out.clone();
    group.bench_function("read", |b| {
        let options = DecodeOptions::default();
        b.iter(|| {
            let mut rest = &buffer[..];
            while let Ok(Some((packet, consumed))) = decode(rest, Some(Version::V5), Role::Server, &options) {
                black_box(&packet);
                rest = &rest[consumed..];
            }
        });
    });
    group.finish();
}

criterion_group!(benches, read_publish, write_publish, acknowledgements);
criterion_main!(benches);

//! Valid packets and broken bytes from a seed: the same seed gives the same ones on every machine.

use sundew::codec::{Role, encode};
use sundew::protocol::ids::PacketId;
use sundew::protocol::packet::{
    Ack, Auth, ConnAck, Connect, Disconnect, Packet, Publish, RetainHandling, SubAck, Subscribe, SubscriptionOptions,
    UnsubAck, Unsubscribe, Will,
};
use sundew::protocol::property::{Properties, PropertiesBuf, PropertyId, PropertyKind, PropertyOwner};
use sundew::protocol::qos::QoS;
use sundew::protocol::reason::ReasonCode;
use sundew::protocol::topic::{TopicFilter, TopicName};
use sundew::protocol::version::Version;

/// A small random source (xorshift64*), good enough to choose with.
pub(crate) struct Random(u64);

impl Random {
    /// Any seed but the same numbers for the same one.
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// The next number.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() >> 16) as usize % bound.max(1)
    }

    /// True once in `count` times.
    pub(crate) fn once_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    /// One of them.
    pub(crate) fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }
}

const TOPICS: &[&str] = &[
    "a",
    "a/b/c",
    "/",
    "$SYS/x",
    "sensors/room 1/température",
    "0123456789abcdef",
    "日本/東京",
];
const FILTERS: &[&str] = &[
    "a",
    "#",
    "+/+",
    "a/+/#",
    "$share/g/a/+",
    "$SYS/#",
    "sensors/+/température",
];
const TEXTS: &[&str] = &[
    "",
    "a",
    "client-1",
    "ünïcödé",
    "x\ty",
    "a much longer text that takes more than one word",
];
const BINARIES: &[&[u8]] = &[b"", b"x", b"\x00\xFF\x80", b"{\"temperature\": 21.5}", &[0xAA; 200]];

/// Makes a packet that `reader` accepts in `version` and hands it over.
pub(crate) fn with_packet(random: &mut Random, version: Version, reader: Role, f: &mut dyn FnMut(&Packet<'_>)) {
    let [mut block, mut will_block] = [PropertiesBuf::new(), PropertiesBuf::new()];
    let packet_id = PacketId::new(random.next() as u16).unwrap_or(PacketId::FIRST);
    let kinds: &[(u8, PropertyOwner)] = match reader {
        Role::Server => FOR_SERVERS,
        Role::Client => FOR_CLIENTS,
    };
    let (kind, owner) = random.pick(kinds);
    if version.has_properties() && !random.once_in(3) {
        fill(&mut block, random, owner, reader);
    }
    let packet = match (kind, version.has_properties()) {
        (1, has_properties) => {
            if has_properties {
                fill(&mut will_block, random, PropertyOwner::Will, reader);
            }
            Packet::Connect(connect(random, version, block.view(), will_block.view()))
        }
        (2, _) => {
            let reason = pick_reason(random, version, &[0x00, 0x84, 0x85, 0x86, 0x87, 0x88]);
            let session_present = reason == ReasonCode::Success && version != Version::V31 && random.once_in(2);
            let properties = block.view();
            Packet::ConnAck(ConnAck {
                session_present,
                reason,
                properties,
            })
        }
        (3, _) => Packet::Publish(publish(random, packet_id, block.view())),
        (4..=7, _) => ack(random, kind, version, packet_id, block.view()),
        (8..=11, _) => subscription(random, kind, version, packet_id, block.view()),
        (12, _) => Packet::PingReq,
        (15, true) => {
            if block.view().text(PropertyId::AuthenticationMethod).is_none() {
                block.push_text(PropertyId::AuthenticationMethod, "method");
            }
            let reason = ReasonCode::ContinueAuthentication;
            Packet::Auth(Auth {
                reason,
                properties: block.view(),
            })
        }
        (14 | 15, has_properties) if has_properties || reader == Role::Server => {
            let reason = pick_reason(random, version, &[0x00, 0x81, 0x82, 0x97]);
            Packet::Disconnect(Disconnect {
                reason,
                properties: block.view(),
            })
        }
        _ => Packet::PingResp,
    };
    f(&packet);
}

const FOR_SERVERS: &[(u8, PropertyOwner)] = &[
    (1, PropertyOwner::Connect),
    (3, PropertyOwner::Publish),
    (3, PropertyOwner::Publish),
    (4, PropertyOwner::PubAck),
    (5, PropertyOwner::PubRec),
    (6, PropertyOwner::PubRel),
    (7, PropertyOwner::PubComp),
    (8, PropertyOwner::Subscribe),
    (10, PropertyOwner::Unsubscribe),
    (12, PropertyOwner::Auth),
    (14, PropertyOwner::Disconnect),
    (15, PropertyOwner::Auth),
];

const FOR_CLIENTS: &[(u8, PropertyOwner)] = &[
    (2, PropertyOwner::ConnAck),
    (3, PropertyOwner::Publish),
    (3, PropertyOwner::Publish),
    (4, PropertyOwner::PubAck),
    (5, PropertyOwner::PubRec),
    (6, PropertyOwner::PubRel),
    (7, PropertyOwner::PubComp),
    (9, PropertyOwner::SubAck),
    (11, PropertyOwner::UnsubAck),
    (13, PropertyOwner::Auth),
    (14, PropertyOwner::Disconnect),
    (15, PropertyOwner::Auth),
];

/// The bytes of a valid packet, behind the version it is of.
pub(crate) fn frame(random: &mut Random) -> (Version, Role, Vec<u8>) {
    let version = random.pick(&Version::ALL);
    let reader = random.pick(&[Role::Server, Role::Client]);
    let mut out = Vec::new();
    with_packet(random, version, reader, &mut |packet| {
        encode(packet, version, &mut out).expect("what is generated can be written");
    });
    (version, reader, out)
}

/// Breaks bytes in one to four places, then half of the time makes the length right again, so that the fault lies deeper.
pub(crate) fn mutate(random: &mut Random, bytes: &mut Vec<u8>) {
    const TELLING: &[u8] = &[
        0, 1, 2, 3, 0x0B, 0x23, 0x26, 0x7F, 0x80, 0xC0, 0xED, 0xFF, b'#', b'+', b'/', b'$',
    ];
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len());
        let telling = random.pick(TELLING);
        match random.below(7) {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << random.below(8),
            1 if !bytes.is_empty() => bytes[at] = telling,
            2 => bytes.insert(at, telling),
            3 if !bytes.is_empty() => drop(bytes.remove(at)),
            4 => bytes.truncate(at + 1),
            5 => {
                let end = at + random.below(bytes.len() - at + 1);
                bytes.extend_from_within(at..end.min(at + 64));
            }
            _ if !bytes.is_empty() => bytes[at] = bytes[at].wrapping_add(random.pick(&[1, 0xFF])),
            _ => {}
        }
    }
    if random.once_in(2) && (2..130).contains(&bytes.len()) {
        bytes[1] = (bytes.len() - 2) as u8;
    }
}

fn fill(block: &mut PropertiesBuf, random: &mut Random, owner: PropertyOwner, reader: Role) {
    let mut has_method = false;
    for &id in PropertyId::ALL {
        let is_other_way = match (id, owner) {
            (PropertyId::SubscriptionIdentifier, PropertyOwner::Publish) => reader == Role::Server,
            (PropertyId::SessionExpiryInterval, PropertyOwner::Disconnect) => reader == Role::Client,
            (PropertyId::AuthenticationData, _) => !has_method,
            _ => false,
        };
        if !id.is_allowed_in(owner) || is_other_way || !random.once_in(3) {
            continue;
        }
        has_method |= id == PropertyId::AuthenticationMethod;
        let number = random.pick(&[1_u32, 2, 127, 128, 16_384, 65_535]);
        match id.kind() {
            PropertyKind::Byte => drop(block.push_byte(id, random.below(2) as u8)),
            PropertyKind::U16 => drop(block.push_u16(id, number as u16)),
            PropertyKind::U32 => drop(block.push_u32(id, number)),
            PropertyKind::VarInt => {
                let most = if owner == PropertyOwner::Publish { 4 } else { 1 };
                for _ in 0..=random.below(most) {
                    block.push_varint(id, number);
                }
            }
            PropertyKind::Text if id == PropertyId::ResponseTopic => drop(block.push_text(id, random.pick(TOPICS))),
            PropertyKind::Text => drop(block.push_text(id, random.pick(TEXTS))),
            PropertyKind::Binary => drop(block.push_binary(id, random.pick(BINARIES))),
            PropertyKind::Pair => {
                for _ in 0..=random.below(3) {
                    block.push_user_property(random.pick(TEXTS), random.pick(TEXTS));
                }
            }
        }
    }
}

fn connect<'a>(
    random: &mut Random,
    version: Version,
    properties: Properties<'a>,
    will_properties: Properties<'a>,
) -> Connect<'a> {
    let has_user_name = random.once_in(2);
    let will = Will {
        topic: TopicName::parse(random.pick(TOPICS)).expect("a topic name"),
        payload: random.pick(BINARIES),
        qos: random_qos(random),
        retain: random.once_in(2),
        properties: will_properties,
    };
    Connect {
        version,
        is_bridge: !version.has_properties() && random.once_in(4),
        clean_start: random.once_in(2),
        keep_alive: random.next() as u16,
        client_id: random.pick(&TEXTS[1..]),
        will: random.once_in(2).then_some(will),
        user_name: has_user_name.then(|| random.pick(TEXTS)),
        password: (has_user_name && random.once_in(2)).then(|| random.pick(BINARIES)),
        properties,
    }
}

fn publish<'a>(random: &mut Random, packet_id: PacketId, properties: Properties<'a>) -> Publish<'a> {
    let qos = random_qos(random);
    let has_alias = properties.u16(PropertyId::TopicAlias).is_some();
    let topic = TopicName::parse(random.pick(TOPICS)).expect("a topic name");
    Publish {
        dup: qos.is_acknowledged() && random.once_in(4),
        qos,
        retain: random.once_in(2),
        topic: (!has_alias || random.once_in(2)).then_some(topic),
        packet_id: qos.is_acknowledged().then_some(packet_id),
        properties,
        payload: random.pick(BINARIES),
    }
}

fn ack<'a>(
    random: &mut Random,
    kind: u8,
    version: Version,
    packet_id: PacketId,
    properties: Properties<'a>,
) -> Packet<'a> {
    let codes: &[u8] = if kind <= 5 {
        &[0x00, 0x10, 0x87, 0x97]
    } else {
        &[0x00, 0x92]
    };
    let reason = pick_reason(random, version, codes);
    let ack = Ack {
        packet_id,
        reason,
        properties,
    };
    match kind {
        4 => Packet::PubAck(ack),
        5 => Packet::PubRec(ack),
        6 => Packet::PubRel(ack),
        _ => Packet::PubComp(ack),
    }
}

/// SUBSCRIBE, SUBACK, UNSUBSCRIBE or UNSUBACK.
fn subscription<'a>(
    random: &mut Random,
    kind: u8,
    version: Version,
    packet_id: PacketId,
    properties: Properties<'a>,
) -> Packet<'a> {
    let mut count = 1 + random.below(4);
    let filter = |random: &mut Random| TopicFilter::parse(random.pick(FILTERS)).expect("a topic filter");
    match kind {
        8 => {
            let mut wanted = || {
                let filter = filter(random);
                (filter, options(random, version, filter.group().is_some()))
            };
            let filters = (0..count).map(|_| wanted()).collect();
            Packet::Subscribe(Subscribe {
                packet_id,
                properties,
                filters,
            })
        }
        9 => {
            let codes: &[u8] = &[0, 1, 2, 0x80, 0x87, 0x9E];
            let codes = if version.has_properties() { codes } else { &codes[..4] };
            let reasons = (0..count)
                .filter_map(|_| ReasonCode::from_byte(random.pick(codes)))
                .collect();
            Packet::SubAck(SubAck {
                packet_id,
                properties,
                reasons,
            })
        }
        10 => {
            let filters = (0..count).map(|_| filter(random)).collect();
            Packet::Unsubscribe(Unsubscribe {
                packet_id,
                properties,
                filters,
            })
        }
        _ => {
            count *= usize::from(version.has_properties());
            let reasons = (0..count)
                .filter_map(|_| ReasonCode::from_byte(random.pick(&[0, 0x11, 0x87])))
                .collect();
            Packet::UnsubAck(UnsubAck {
                packet_id,
                properties,
                reasons,
            })
        }
    }
}

fn options(random: &mut Random, version: Version, is_shared: bool) -> SubscriptionOptions {
    let qos = random_qos(random);
    if !version.has_properties() {
        return SubscriptionOptions {
            qos,
            ..SubscriptionOptions::default()
        };
    }
    SubscriptionOptions {
        qos,
        no_local: !is_shared && random.once_in(2),
        retain_as_published: random.once_in(2),
        retain_handling: random.pick(&[
            RetainHandling::Send,
            RetainHandling::SendIfNew,
            RetainHandling::DoNotSend,
        ]),
    }
}

fn random_qos(random: &mut Random) -> QoS {
    random.pick(&[QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce])
}

/// Before MQTT 5 only CONNACK can say a reason: the code nearest to it.
fn pick_reason(random: &mut Random, version: Version, codes: &[u8]) -> ReasonCode {
    let can_say = version.has_properties() || codes.contains(&0x84);
    ReasonCode::from_byte(random.pick(if can_say { codes } else { &codes[..1] })).unwrap_or(ReasonCode::Success)
}

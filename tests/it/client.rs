//! A client that does what a test tells it, byte by byte. It waits for packets against a deadline and never sleeps: that nothing
//! came is shown by what came after it.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::time::Duration;

use sundew::protocol::property::{PropertiesBuf, PropertyId};
use sundew::protocol::version::Version;

use crate::wire::{self, Ack, Connect, PINGREQ, PUBACK, PUBCOMP, PUBREC, PUBREL, Packet, Publish};

/// How long a packet may take before a test fails. Generous: it is waited for only by a test that fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// What a client talks over: TCP, TLS, WebSocket, a Unix socket.
pub(crate) trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

/// One connection to a broker.
pub(crate) struct Client {
    stream: Box<dyn Stream>,
    version: Version,
    received: Vec<u8>,
    /// Packets that were read while another was waited for.
    waiting: VecDeque<Packet>,
    last_packet_id: u16,
    /// The Maximum Packet Size of its CONNECT: a larger packet fails the test.
    packet_bytes_max: usize,
}

impl Client {
    /// A TCP connection on which nothing has been sent.
    pub(crate) fn open(port: u16, version: Version) -> Self {
        Self::over(crate::streams::tcp(port), version)
    }

    /// A client over a stream that reads with a time-out.
    pub(crate) fn over(stream: impl Stream + 'static, version: Version) -> Self {
        let stream = Box::new(stream);
        Self {
            stream,
            version,
            received: Vec::new(),
            waiting: VecDeque::new(),
            last_packet_id: 0,
            packet_bytes_max: usize::MAX,
        }
    }

    /// The version it speaks.
    pub(crate) fn version(&self) -> Version {
        self.version
    }

    /// Sends bytes as they are.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the broker reads");
        self.stream.flush().expect("the broker reads");
    }

    /// Sends bytes; that the broker has closed the connection meanwhile is no failure.
    pub(crate) fn send_lossy(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes).and_then(|()| self.stream.flush());
    }

    /// The next packet.
    pub(crate) fn receive(&mut self) -> Packet {
        self.receive_unless_closed()
            .expect("a packet, but the broker closed the connection")
    }

    /// The next packet, `None` when the broker has closed the connection.
    pub(crate) fn receive_unless_closed(&mut self) -> Option<Packet> {
        if let Some(packet) = self.waiting.pop_front() {
            return Some(packet);
        }
        loop {
            if let Some((packet, length)) = wire::decode(self.version, &self.received) {
                assert!(
                    length <= self.packet_bytes_max,
                    "{length} bytes, larger than this client takes: {packet:?}"
                );
                self.received.drain(..length);
                return Some(packet);
            }
            let mut chunk = [0; 16 * 1024];
            match self.stream.read(&mut chunk) {
                Ok(0) => {
                    assert!(
                        self.received.is_empty(),
                        "closed in the middle of a packet: {:02x?}",
                        self.received
                    );
                    return None;
                }
                Ok(length) => self.received.extend_from_slice(&chunk[..length]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if is_reset(&error) => return None,
                Err(error) => panic!(
                    "no packet within {PATIENCE:?}: {error}; unfinished: {:02x?}",
                    self.received
                ),
            }
        }
    }

    /// Every byte until the broker closes the connection.
    pub(crate) fn receive_to_end(&mut self) -> Vec<u8> {
        let mut bytes = std::mem::take(&mut self.received);
        match self.stream.read_to_end(&mut bytes) {
            Err(error) if !is_reset(&error) => panic!("not closed within {PATIENCE:?}: {error}"),
            _ => bytes,
        }
    }

    /// The broker closes the connection without another packet.
    pub(crate) fn expect_closed(&mut self) {
        if let Some(packet) = self.receive_unless_closed() {
            panic!("the connection closes, but there came {packet:?}");
        }
    }

    /// The broker ends the connection: with a DISCONNECT of this reason in 5.0, silently before.
    pub(crate) fn expect_disconnect(&mut self, expected: u8) -> PropertiesBuf {
        self.expect_disconnect_of(&[expected])
    }

    /// The same where the standard leaves the choice between reasons.
    pub(crate) fn expect_disconnect_of(&mut self, expected: &[u8]) -> PropertiesBuf {
        self.expect_disconnect_because("the fault", expected)
    }

    /// The same, and a failure names the fault.
    pub(crate) fn expect_disconnect_because(&mut self, fault: &str, expected: &[u8]) -> PropertiesBuf {
        let mut found = PropertiesBuf::new();
        if self.version.has_properties() {
            match self.receive_unless_closed() {
                Some(Packet::Disconnect { reason, properties }) => {
                    let said = properties.view();
                    assert!(
                        expected.contains(&reason),
                        "{fault}: DISCONNECT {reason:#x} ({said:?}), not {expected:02x?}"
                    );
                    found = properties;
                }
                Some(packet) => panic!("{fault}: DISCONNECT {expected:02x?}, but there came {packet:?}"),
                None => panic!("{fault}: DISCONNECT {expected:02x?}, but the connection was closed without"),
            }
        }
        self.expect_closed();
        found
    }

    /// Sends a CONNECT and returns the CONNACK, whatever it says: session present, reason, properties.
    pub(crate) fn try_connect(&mut self, connect: &Connect<'_>) -> (bool, u8, PropertiesBuf) {
        if let Some(bytes) = connect.properties.view().u32(PropertyId::MaximumPacketSize) {
            self.packet_bytes_max = bytes as usize;
        }
        self.send(&connect.encode(self.version));
        self.expect_connack()
    }

    /// The CONNACK.
    pub(crate) fn expect_connack(&mut self) -> (bool, u8, PropertiesBuf) {
        match self.receive() {
            Packet::ConnAck {
                session_present,
                reason,
                properties,
            } => (session_present, reason, properties),
            packet => panic!("CONNACK, but there came {packet:?}"),
        }
    }

    /// Sends a CONNECT that succeeds and returns session present.
    pub(crate) fn connect(&mut self, connect: &Connect<'_>) -> bool {
        let (session_present, reason, properties) = self.try_connect(connect);
        assert_eq!(reason, 0, "CONNACK ({:?})", properties.view());
        session_present
    }

    /// A packet identifier not used before on this connection.
    pub(crate) fn next_id(&mut self) -> u16 {
        self.last_packet_id += 1;
        self.last_packet_id
    }

    /// Subscribes and returns the granted QoS or the reason why not.
    pub(crate) fn subscribe(&mut self, filter: &str, options: u8) -> u8 {
        self.subscribe_many(&PropertiesBuf::new(), &[(filter, options)])[0]
    }

    /// Subscribes with a subscription identifier (5.0).
    pub(crate) fn subscribe_with_id(&mut self, filter: &str, options: u8, identifier: u32) -> u8 {
        let mut properties = PropertiesBuf::new();
        properties.push_varint(PropertyId::SubscriptionIdentifier, identifier);
        self.subscribe_many(&properties, &[(filter, options)])[0]
    }

    /// Subscribes to several filters at once; returns a reason for each. Messages that arrive before the SUBACK wait.
    pub(crate) fn subscribe_many(&mut self, properties: &PropertiesBuf, filters: &[(&str, u8)]) -> Vec<u8> {
        let id = self.next_id();
        self.send(&wire::subscribe(self.version, id, properties, filters));
        let reasons = self.await_past_messages(|packet| match packet {
            Packet::SubAck { packet_id, reasons, .. } if packet_id == id => Ok(reasons),
            other => Err(other),
        });
        assert_eq!(reasons.len(), filters.len(), "a reason for each filter");
        reasons
    }

    /// Unsubscribes; returns a reason for each filter in 5.0.
    pub(crate) fn unsubscribe(&mut self, filters: &[&str]) -> Vec<u8> {
        let id = self.next_id();
        self.send(&wire::unsubscribe(self.version, id, filters));
        self.await_past_messages(|packet| match packet {
            Packet::UnsubAck { packet_id, reasons, .. } if packet_id == id => Ok(reasons),
            other => Err(other),
        })
    }

    /// Publishes and sees the acknowledgements through. The packet identifier is the client's next.
    pub(crate) fn publish(&mut self, message: Publish) {
        let reason = self.try_publish(message);
        assert!(reason < 0x80, "refused with {reason:#x}");
    }

    /// Publishes and sees the acknowledgements through; returns the reason of PUBACK or PUBREC.
    pub(crate) fn try_publish(&mut self, mut message: Publish) -> u8 {
        if message.qos == 0 {
            self.send(&message.encode(self.version));
            return 0;
        }
        message.packet_id = self.next_id();
        self.send(&message.encode(self.version));
        let id = message.packet_id;
        if message.qos == 1 {
            return self.await_ack(PUBACK, id).reason;
        }
        let reason = self.await_ack(PUBREC, id).reason;
        if reason < 0x80 {
            self.send(&wire::ack(PUBREL, id));
            self.await_ack(PUBCOMP, id);
        }
        reason
    }

    /// The acknowledgement of that kind and identifier; messages that arrive before it wait.
    pub(crate) fn await_ack(&mut self, kind: u8, packet_id: u16) -> Ack {
        self.await_past_messages(|packet| match (kind, packet) {
            (PUBACK, Packet::PubAck(ack)) | (PUBREC, Packet::PubRec(ack)) if ack.packet_id == packet_id => Ok(ack),
            (PUBREL, Packet::PubRel(ack)) | (PUBCOMP, Packet::PubComp(ack)) if ack.packet_id == packet_id => Ok(ack),
            (_, other) => Err(other),
        })
    }

    /// Takes the first packet that `pick` accepts; only messages may come before it, and they stay.
    fn await_past_messages<T>(&mut self, pick: impl Fn(Packet) -> Result<T, Packet>) -> T {
        let mut before = VecDeque::new();
        loop {
            match pick(self.receive()) {
                Ok(found) => {
                    before.append(&mut self.waiting);
                    self.waiting = before;
                    return found;
                }
                Err(message @ Packet::Publish(_)) => before.push_back(message),
                Err(other) => panic!("an acknowledgement, but there came {other:?}"),
            }
        }
    }

    /// The next packet, which is a PUBLISH; nothing is acknowledged.
    pub(crate) fn expect_publish(&mut self) -> Publish {
        match self.receive() {
            Packet::Publish(publish) => publish,
            packet => panic!("PUBLISH, but there came {packet:?}"),
        }
    }

    /// The next message, with its handshake seen through.
    pub(crate) fn expect_message(&mut self) -> Publish {
        let publish = self.expect_publish();
        match publish.qos {
            0 => {}
            1 => self.send(&wire::ack(PUBACK, publish.packet_id)),
            _ => {
                self.send(&wire::ack(PUBREC, publish.packet_id));
                self.await_ack(PUBREL, publish.packet_id);
                self.send(&wire::ack(PUBCOMP, publish.packet_id));
            }
        }
        publish
    }

    /// The next message has this topic and payload.
    pub(crate) fn expect_text(&mut self, topic: &str, payload: &str) -> Publish {
        let message = self.expect_message();
        assert_eq!((message.topic.as_str(), message.text()), (topic, payload));
        message
    }

    /// A PINGREQ is answered next: nothing else was on its way on this connection.
    pub(crate) fn expect_ping_answered(&mut self) {
        self.send(&PINGREQ);
        let packet = self.receive();
        assert_eq!(packet, Packet::PingResp, "nothing but the answer to a PINGREQ");
    }

    /// Publishes on its behalf to a topic that `receiver` subscribes here and now, and expects that message to be the next one
    /// that `receiver` gets: whatever this client had published before reached it earlier or not at all.
    pub(crate) fn expect_nothing_sent_to(&mut self, receiver: &mut Self) {
        receiver.subscribe("fence", 0);
        self.publish(Publish::new("fence", "", 0));
        let message = receiver.expect_publish();
        assert_eq!(message.topic, "fence", "no message, but there came {message:?}");
        receiver.unsubscribe(&["fence"]);
    }

    /// Leaves with a DISCONNECT and waits until the broker has closed its side, too.
    pub(crate) fn disconnect(mut self) {
        self.disconnect_with(0, &PropertiesBuf::new());
    }

    /// The same with a reason and properties (5.0).
    pub(crate) fn disconnect_with(&mut self, reason: u8, properties: &PropertiesBuf) {
        self.send(&wire::disconnect(self.version, reason, properties));
        while let Some(packet) = self.receive_unless_closed() {
            assert!(
                matches!(packet, Packet::Publish(_)),
                "after DISCONNECT there came {packet:?}"
            );
        }
    }
}

fn is_reset(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(
        error.kind(),
        ConnectionReset | BrokenPipe | ConnectionAborted | UnexpectedEof
    )
}

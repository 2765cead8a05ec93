//! A kept delivery as the bytes of a packet.

use super::frames::{SHARE_FROM_BYTES, unmount, write_large, write_small};
use crate::codec::PublishFrame;
use crate::protocol::ids::PacketId;
use crate::protocol::message::Message;
use crate::protocol::property::PropertiesBuf;
use crate::protocol::time::Time;
use crate::session::connection::Connection;
use crate::session::delivery::Delivery;
use crate::session::topic_alias::Naming;

/// What a topic alias adds to a packet: the property, and a byte more in each of two lengths.
const ALIAS_BYTES_MAX: usize = 5;

/// The length of a kept delivery as a packet for a connection, bytes, without a topic alias.
pub(super) fn encoded_len(connection: &Connection, delivery: &Delivery, now: Time) -> usize {
    let id = delivery.qos.is_acknowledged().then_some(PacketId::FIRST);
    let mut scratch = PropertiesBuf::new();
    let frame = frame_of(&delivery.message, delivery, id, false, now);
    let hidden_bytes = connection.hidden_bytes(delivery.message.topic());
    unmount(frame, hidden_bytes, &mut scratch).encoded_len(connection.version)
}

/// A kept delivery as a packet.
fn frame_of<'a>(
    message: &'a Message,
    delivery: &'a Delivery,
    packet_id: Option<PacketId>,
    dup: bool,
    now: Time,
) -> PublishFrame<'a> {
    let view = message.view();
    PublishFrame {
        topic: view.topic.as_str(),
        qos: delivery.qos,
        retain: delivery.retain,
        dup: dup && delivery.qos.is_acknowledged(),
        packet_id,
        topic_alias: None,
        message_expiry: view.expires_at.map(|at| now.secs_until(at) as u32),
        subscription_identifiers: &delivery.identifiers,
        properties: view.properties,
        payload: view.payload,
    }
}

/// Appends a kept delivery to the connection's output, with a topic alias where the client allows them.
pub(super) fn write_delivery(
    connection: &mut Connection,
    delivery: &Delivery,
    id: Option<PacketId>,
    dup: bool,
    now: Time,
) {
    let mut scratch = PropertiesBuf::new();
    let frame = frame_of(&delivery.message, delivery, id, dup, now);
    let hidden_bytes = connection.hidden_bytes(delivery.message.topic());
    let mut frame = unmount(frame, hidden_bytes, &mut scratch);
    apply_alias(connection, &delivery.message, &mut frame);
    if frame.payload.len() >= SHARE_FROM_BYTES {
        write_large(
            &frame,
            connection.version,
            delivery.message.shared_payload(),
            &mut connection.output,
        );
    } else {
        write_small(&frame, connection.version, &mut connection.output);
    }
}

fn apply_alias(connection: &mut Connection, message: &Message, frame: &mut PublishFrame<'_>) {
    // A new alias makes the packet longer, once: it must still fit [MQTT-3.1.2-24].
    let has_room = connection.packet_bytes_max == u32::MAX
        || frame.encoded_len(connection.version) + ALIAS_BYTES_MAX <= connection.packet_bytes_max as usize;
    if connection.aliases_out.is_off() || !has_room {
        return;
    }
    match connection.aliases_out.name(message.topic()) {
        Naming::Name => {}
        Naming::NameAndAlias(alias) => frame.topic_alias = Some(alias),
        Naming::Alias(alias) => {
            frame.topic_alias = Some(alias);
            frame.topic = "";
        }
    }
}

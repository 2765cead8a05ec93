//! The records of a store, as values and as bytes. Form 2: as form 1, and what is retained, or a will, may say who published it.
//!
//! Each record is `length` (u32, little endian, of what follows), `kind` (u8), body. In a body, numbers are LEB128 varints, texts and
//! binaries a varint length and the bytes, moments [`Time`] + 1 as a varint with 0 for [`Time::NEVER`]. Nothing behind the last field.
//!
//! A record says how something *is*, so it may be applied twice, and a log may be applied on a state that is newer than the log's begin.

mod bytes;
mod content;
mod delivery;
mod source;
mod unreleased;

use self::bytes::{Reader, fields, put, put_binary, put_time, short_record};
pub use self::content::Content;
pub use self::delivery::{Deliveries, DeliveryHead, DeliveryRecord, Progress};
pub use self::unreleased::UnreleasedRecord;
use crate::protocol::ids::{MessageNumber, PacketId, SessionNumber};
use crate::protocol::message::Publication;
use crate::protocol::packet::{RetainHandling, SubscriptionOptions};
use crate::protocol::qos::QoS;
use crate::protocol::time::Time;

/// Something that a broker which starts again has to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record<'a> {
    /// A session exists like this. One with expiry 0 is here for its will.
    Session(SessionRecord<'a>),
    /// A session is over: with it, everything that is its own.
    SessionEnded(SessionNumber),
    /// A session has a subscription like this.
    Subscription(SubscriptionRecord<'a>),
    /// A session does not have a subscription to this filter.
    SubscriptionEnded(SessionNumber, &'a str),
    /// A session's client has left a will like this.
    Will(WillRecord<'a>),
    /// A session has no will: it was published, or removed.
    WillEnded(SessionNumber),
    /// A message was accepted.
    Message(MessageRecord<'a>),
    /// A delivery stands like this.
    Delivery(MessageNumber, DeliveryRecord<'a>),
    /// A delivery is over: acknowledged in full, dropped, or given to another session.
    DeliveryEnded(MessageNumber, SessionNumber, u16),
    /// The client's QoS 2 message with that identifier was accepted.
    Received(SessionNumber, PacketId),
    /// The client has released that identifier: with it, the message that waited for that.
    ReceivedEnded(SessionNumber, PacketId),
    /// The client's QoS 2 message with that identifier was accepted, and goes to its receivers when it is released.
    Unreleased(UnreleasedRecord<'a>),
    /// Changes of retained messages of a lower order than this count no more: the snapshot in which this stands was made after them.
    RetainedFrom(u64),
}

/// See [`Record::Session`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionRecord<'a> {
    /// Which.
    pub session: SessionNumber,
    /// Whose house the client lives in; empty where there is only one.
    pub tenant: &'a str,
    /// Its client.
    pub client_id: &'a str,
    /// Seconds that it outlives its connection.
    pub expiry_secs: u32,
    /// When it expires, if its client is away; [`Time::NEVER`] while it is connected.
    pub expires_at: Time,
}

/// See [`Record::Subscription`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubscriptionRecord<'a> {
    /// Whose.
    pub session: SessionNumber,
    /// As the client wrote it.
    pub filter: &'a str,
    /// Options, the QoS as granted.
    pub options: SubscriptionOptions,
    /// Subscription identifier.
    pub identifier: Option<u32>,
    /// Its client has still to get retained messages for it.
    pub wants_retained: bool,
}

/// See [`Record::Will`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WillRecord<'a> {
    /// Whose.
    pub session: SessionNumber,
    /// When it is to be published, if the client is gone and its delay runs; [`Time::NEVER`] while it is connected.
    pub due: Time,
    /// Seconds between the end of the connection and the will.
    pub delay_secs: u32,
    /// Message expiry interval, seconds from when it is published.
    pub expiry_secs: Option<u32>,
    /// The message.
    pub content: Content<'a>,
}

/// See [`Record::Message`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageRecord<'a> {
    /// Which.
    pub number: MessageNumber,
    /// When it expires; [`Time::NEVER`] for never.
    pub expires_at: Time,
    /// It sets its topic's retained message, or clears it with an empty payload: of several, the one with the highest order counts.
    pub retained: Option<u64>,
    /// The QoS 2 packet identifier it came with, of a session that is kept.
    pub received: Option<(SessionNumber, PacketId)>,
    /// What it says.
    pub content: Content<'a>,
    /// Who is to get it.
    pub deliveries: Deliveries<'a>,
}

/// What is wrong with a record's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// A field does not fit into what is there.
    #[error("it ends within a field")]
    Short,
    /// A kind that this version does not know.
    #[error("its kind {0} is not known: it may be of a newer version")]
    Kind(u8),
    /// A field has a value that it cannot have.
    #[error("its field {0} is not valid")]
    Field(&'static str),
}

const KIND_SESSION: u8 = 1;
const KIND_SESSION_ENDED: u8 = 2;
const KIND_SUBSCRIPTION: u8 = 3;
const KIND_SUBSCRIPTION_ENDED: u8 = 4;
const KIND_WILL: u8 = 5;
const KIND_WILL_ENDED: u8 = 6;
const KIND_MESSAGE: u8 = 7;
const KIND_DELIVERY: u8 = 8;
const KIND_DELIVERY_ENDED: u8 = 9;
const KIND_RECEIVED: u8 = 10;
const KIND_RECEIVED_ENDED: u8 = 11;
const KIND_RETAINED_FROM: u8 = 12;
const KIND_UNRELEASED: u8 = 13;

/// Bytes of a record's length.
const LENGTH_BYTES: usize = 4;

impl Record<'_> {
    /// Appends the record.
    #[inline(always)]
    pub fn encode(&self, out: &mut Vec<u8>) {
        // Of each message there are some of these: where it is known which, nothing of the rest is left.
        match self {
            Self::Message(message) => message.encode(out),
            Self::Delivery(number, delivery) if delivery.is_short() => {
                short_record(out, KIND_DELIVERY, |fields| {
                    fields.number(number.0.get());
                    delivery.put_head(fields);
                });
            }
            Self::DeliveryEnded(number, session, copy) => {
                short_record(out, KIND_DELIVERY_ENDED, |fields| {
                    fields.number(number.0.get());
                    fields.number(session.0.get());
                    fields.number((*copy).into());
                });
            }
            Self::Received(session, id) => received(KIND_RECEIVED, *session, *id, out),
            Self::ReceivedEnded(session, id) => received(KIND_RECEIVED_ENDED, *session, *id, out),
            rare => rare.encode_rare(out),
        }
    }

    #[inline(never)]
    fn encode_rare(&self, out: &mut Vec<u8>) {
        match self {
            Self::Session(session) => framed(out, KIND_SESSION, |out| session.encode(out)),
            Self::SessionEnded(session) => framed(out, KIND_SESSION_ENDED, |out| put(out, session.0.get())),
            Self::Subscription(subscription) => framed(out, KIND_SUBSCRIPTION, |out| subscription.encode(out)),
            Self::SubscriptionEnded(session, filter) => framed(out, KIND_SUBSCRIPTION_ENDED, |out| {
                put(out, session.0.get());
                put_binary(out, filter.as_bytes());
            }),
            Self::Will(will) => framed(out, KIND_WILL, |out| will.encode(out)),
            Self::WillEnded(session) => framed(out, KIND_WILL_ENDED, |out| put(out, session.0.get())),
            Self::Delivery(number, delivery) => framed(out, KIND_DELIVERY, |out| {
                put(out, number.0.get());
                delivery.encode(out);
            }),
            Self::Unreleased(unreleased) => framed(out, KIND_UNRELEASED, |out| unreleased.encode(out)),
            Self::RetainedFrom(order) => framed(out, KIND_RETAINED_FROM, |out| put(out, *order)),
            Self::Message(_) | Self::DeliveryEnded(..) | Self::Received(..) | Self::ReceivedEnded(..) => {
                unreachable!("`encode` writes these itself")
            }
        }
    }
}

impl<'a> Record<'a> {
    /// Reads a record, without its length: kind and body.
    ///
    /// # Errors
    /// [`RecordError`]; whatever the bytes, it does not panic and allocates no more than they are long.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, RecordError> {
        let (kind, body) = bytes.split_first().ok_or(RecordError::Short)?;
        let mut from = Reader(body);
        let record = match *kind {
            KIND_SESSION => Self::Session(SessionRecord::decode(&mut from)?),
            KIND_SESSION_ENDED => Self::SessionEnded(from.session()?),
            KIND_SUBSCRIPTION => Self::Subscription(SubscriptionRecord::decode(&mut from)?),
            KIND_SUBSCRIPTION_ENDED => Self::SubscriptionEnded(from.session()?, from.text("filter")?),
            KIND_WILL => Self::Will(WillRecord::decode(&mut from)?),
            KIND_WILL_ENDED => Self::WillEnded(from.session()?),
            KIND_MESSAGE => Self::Message(MessageRecord::decode(&mut from)?),
            KIND_DELIVERY => Self::Delivery(from.message()?, DeliveryRecord::decode(&mut from)?),
            KIND_DELIVERY_ENDED => Self::DeliveryEnded(from.message()?, from.session()?, from.small("copy")?),
            KIND_RECEIVED => Self::Received(from.session()?, from.packet_id()?),
            KIND_RECEIVED_ENDED => Self::ReceivedEnded(from.session()?, from.packet_id()?),
            KIND_UNRELEASED => Self::Unreleased(UnreleasedRecord::decode(&mut from)?),
            KIND_RETAINED_FROM => Self::RetainedFrom(from.number()?),
            other => return Err(RecordError::Kind(other)),
        };
        if from.0.is_empty() {
            Ok(record)
        } else {
            Err(RecordError::Field("end"))
        }
    }
}

/// The records in the bytes of a batch or a snapshot's part, each as kind and body. Ends early where a length does not fit.
pub fn records(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let (length, behind) = rest.split_first_chunk::<LENGTH_BYTES>()?;
        let (record, behind) = behind.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        rest = behind;
        Some(record)
    })
}

/// The lowest and the highest number among the messages that records (kind and body) bring.
pub fn message_numbers<'a>(records: impl Iterator<Item = &'a [u8]>) -> Option<(MessageNumber, MessageNumber)> {
    records
        .filter_map(message_number)
        .map(|number| (number, number))
        .reduce(|(lowest, highest), (number, _)| (lowest.min(number), highest.max(number)))
}

/// The number of the message that a record (kind and body) brings, without reading all of it; `None` for other records.
pub fn message_number(record: &[u8]) -> Option<MessageNumber> {
    match record.split_first()? {
        (&KIND_MESSAGE, body) => Reader(body).message().ok(),
        _ => None,
    }
}

#[inline(always)]
fn received(kind: u8, session: SessionNumber, id: PacketId, out: &mut Vec<u8>) {
    short_record(out, kind, |fields| {
        fields.number(session.0.get());
        fields.number(id.get().into());
    });
}

fn framed(out: &mut Vec<u8>, kind: u8, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0, 0, 0, 0, kind]);
    body(out);
    end_record(out, start);
}

/// Puts a record's length where it begins.
#[inline]
fn end_record(out: &mut [u8], start: usize) {
    // A record is at most as long as the largest packet and its deliveries: far below 4 GiB.
    let length = (out.len() - start - LENGTH_BYTES) as u32;
    out[start..start + LENGTH_BYTES].copy_from_slice(&length.to_le_bytes());
}

impl<'a> SessionRecord<'a> {
    fn encode(&self, out: &mut Vec<u8>) {
        put(out, self.session.0.get());
        put_binary(out, self.tenant.as_bytes());
        put_binary(out, self.client_id.as_bytes());
        put(out, self.expiry_secs.into());
        put_time(out, self.expires_at);
    }

    fn decode(from: &mut Reader<'a>) -> Result<Self, RecordError> {
        Ok(Self {
            session: from.session()?,
            tenant: from.text("tenant")?,
            client_id: from.text("client_id")?,
            expiry_secs: from.small("expiry_secs")?,
            expires_at: from.time()?,
        })
    }
}

/// Set in the options of a subscription, above what SUBSCRIBE has there.
const WANTS_RETAINED: u8 = 1 << 6;

impl<'a> SubscriptionRecord<'a> {
    fn encode(&self, out: &mut Vec<u8>) {
        put(out, self.session.0.get());
        put_binary(out, self.filter.as_bytes());
        let options = &self.options;
        // As in SUBSCRIBE [MQTT5 section 3.8.3.1].
        out.push(
            options.qos.bits()
                | u8::from(options.no_local) << 2
                | u8::from(options.retain_as_published) << 3
                | (options.retain_handling as u8) << 4
                | if self.wants_retained { WANTS_RETAINED } else { 0 },
        );
        put(out, self.identifier.unwrap_or(0).into());
    }

    fn decode(from: &mut Reader<'a>) -> Result<Self, RecordError> {
        let (session, filter, bits) = (from.session()?, from.text("filter")?, from.byte()?);
        let retain_handling = match (bits & !WANTS_RETAINED) >> 4 {
            0 => RetainHandling::Send,
            1 => RetainHandling::SendIfNew,
            2 => RetainHandling::DoNotSend,
            _ => return Err(RecordError::Field("options")),
        };
        let identifier: u32 = from.small("identifier")?;
        Ok(Self {
            session,
            filter,
            options: SubscriptionOptions {
                qos: qos(bits & 3)?,
                no_local: bits & 4 != 0,
                retain_as_published: bits & 8 != 0,
                retain_handling,
            },
            identifier: (identifier > 0).then_some(identifier),
            wants_retained: bits & WANTS_RETAINED != 0,
        })
    }
}

impl<'a> WillRecord<'a> {
    fn encode(&self, out: &mut Vec<u8>) {
        put(out, self.session.0.get());
        put_time(out, self.due);
        put(out, self.delay_secs.into());
        put(out, self.expiry_secs.map_or(0, |secs| u64::from(secs) + 1));
        self.content.encode(out);
    }

    fn decode(from: &mut Reader<'a>) -> Result<Self, RecordError> {
        Ok(Self {
            session: from.session()?,
            due: from.time()?,
            delay_secs: from.small("delay_secs")?,
            expiry_secs: match from.number()?.checked_sub(1) {
                None => None,
                Some(secs) => Some(u32::try_from(secs).map_err(|_| RecordError::Field("expiry_secs"))?),
            },
            content: Content::decode(from)?,
        })
    }
}

impl<'a> MessageRecord<'a> {
    /// A message that nobody is to get yet.
    #[inline(always)]
    pub fn of(number: MessageNumber, publication: &Publication<'a>) -> Self {
        Self {
            number,
            expires_at: publication.expires_at.unwrap_or(Time::NEVER),
            retained: None,
            received: None,
            content: Content::of(publication),
            deliveries: Deliveries::default(),
        }
    }

    /// Appends it as a record.
    pub fn encode(&self, out: &mut Vec<u8>) {
        self.encode_with(self.deliveries, out);
    }

    /// Appends it as a record, as if these were its deliveries.
    #[inline]
    pub fn encode_with(&self, deliveries: Deliveries<'_>, out: &mut Vec<u8>) {
        let (content, start) = (&self.content, out.len());
        let (topic, properties) = (content.topic.as_bytes(), content.properties.as_bytes());
        out.reserve(topic.len() + properties.len() + content.payload.len() + deliveries.0.len() + 300);
        // At most six numbers, and what is before them.
        fields::<80>(out, |fields| {
            fields.begin_record(KIND_MESSAGE);
            fields.number(self.number.0.get());
            fields.number(self.expires_at.0.wrapping_add(1));
            fields.number(self.retained.map_or(0, |order| order + 1));
            match self.received {
                None => fields.byte(0),
                Some((session, id)) => {
                    fields.number(id.get().into());
                    fields.number(session.0.get());
                }
            }
            fields.byte(content.bits());
            fields.number(topic.len() as u64);
        });
        out.extend_from_slice(topic);
        if !properties.is_empty() {
            put_binary(out, properties);
            put_binary(out, content.payload);
        } else {
            fields::<16>(out, |fields| {
                fields.byte(0);
                fields.number(content.payload.len() as u64);
            });
            out.extend_from_slice(content.payload);
        }
        content.encode_source(out);
        out.extend_from_slice(deliveries.0);
        end_record(out, start);
    }

    fn decode(from: &mut Reader<'a>) -> Result<Self, RecordError> {
        let (number, expires_at, retained) = (from.message()?, from.time()?, from.number()?.checked_sub(1));
        let received = match from.small("received")? {
            0 => None,
            id => Some((
                from.session()?,
                PacketId::new(id).ok_or(RecordError::Field("received"))?,
            )),
        };
        let content = Content::decode(from)?;
        let deliveries = Deliveries(std::mem::take(&mut from.0));
        Ok(Self {
            number,
            expires_at,
            retained,
            received,
            content,
            deliveries,
        })
    }
}

fn qos(bits: u8) -> Result<QoS, RecordError> {
    QoS::from_bits(bits).ok_or(RecordError::Field("qos"))
}

#[cfg(test)]
mod tests;

//! Deliveries: one message on its way to one session.

use smallvec::SmallVec;

use super::bytes::{Fields, Reader, fields, put, put_binary};
use super::{RecordError, qos};
use crate::protocol::ids::{PacketId, SessionNumber};
use crate::protocol::qos::QoS;

/// Encoded [`DeliveryRecord`]s, one behind the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Deliveries<'a>(pub &'a [u8]);

/// One message to one session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveryRecord<'a> {
    /// To whom.
    pub session: SessionNumber,
    /// Tells apart several deliveries of one message to one session.
    pub copy: u16,
    /// How far it has come.
    pub progress: Progress,
    /// QoS of the delivery.
    pub qos: QoS,
    /// Retain flag of the delivery.
    pub retain: bool,
    /// Subscription identifiers.
    pub identifiers: SmallVec<[u32; 1]>,
    /// The shared subscription it was chosen for: group and filter.
    pub group: Option<(&'a str, &'a str)>,
}

/// A [`DeliveryRecord`] that says nothing else: no identifiers, no group, copy 0. Most are like this, and are told of with every message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeliveryHead {
    /// To whom.
    pub session: SessionNumber,
    /// How far it has come.
    pub progress: Progress,
    /// QoS of the delivery.
    pub qos: QoS,
    /// Retain flag of the delivery.
    pub retain: bool,
}

/// How far a delivery has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It waits.
    Queued,
    /// PUBLISH was, or may have been, sent with this identifier.
    Sent(PacketId),
    /// QoS 2: PUBREC came, and PUBREL was, or may have been, sent.
    Released(PacketId),
}

impl<'a> Deliveries<'a> {
    /// Reads them one after the other; after an error there is nothing more.
    pub fn iter(self) -> impl Iterator<Item = Result<DeliveryRecord<'a>, RecordError>> {
        let mut from = Reader(self.0);
        std::iter::from_fn(move || {
            if from.0.is_empty() {
                return None;
            }
            let delivery = DeliveryRecord::decode(&mut from);
            if delivery.is_err() {
                from.0 = &[];
            }
            Some(delivery)
        })
    }
}

/// Bits of a delivery's first byte: QoS 0–1, retain 2, progress 3–4, and what follows.
const HAS_IDENTIFIERS: u8 = 1 << 5;
const HAS_GROUP: u8 = 1 << 6;
const HAS_COPY: u8 = 1 << 7;

impl DeliveryHead {
    /// Appends it, as part of [`Deliveries`].
    #[inline]
    pub fn encode(self, out: &mut Vec<u8>) {
        fields::<32>(out, |fields| self.put(0, fields));
    }

    #[inline(always)]
    fn put<const ROOM: usize>(self, follows: u8, fields: &mut Fields<'_, ROOM>) {
        let (progress, id) = match self.progress {
            Progress::Queued => (0, None),
            Progress::Sent(id) => (1, Some(id)),
            Progress::Released(id) => (2, Some(id)),
        };
        fields.byte(self.qos.bits() | u8::from(self.retain) << 2 | progress << 3 | follows);
        fields.number(self.session.0.get());
        if let Some(id) = id {
            fields.number(id.get().into());
        }
    }
}

impl<'a> DeliveryRecord<'a> {
    /// Appends it, as part of [`Deliveries`].
    #[inline]
    pub fn encode(&self, out: &mut Vec<u8>) {
        fields::<32>(out, |fields| self.put_head(fields));
        if self.is_short() {
            return;
        }
        if !self.identifiers.is_empty() {
            put(out, self.identifiers.len() as u64);
            for identifier in &self.identifiers {
                put(out, (*identifier).into());
            }
        }
        if let Some((group, filter)) = self.group {
            put_binary(out, group.as_bytes());
            put_binary(out, filter.as_bytes());
        }
        if self.copy > 0 {
            put(out, self.copy.into());
        }
    }

    /// True when there is nothing but its head.
    pub(super) fn is_short(&self) -> bool {
        self.identifiers.is_empty() && self.group.is_none() && self.copy == 0
    }

    #[inline(always)]
    pub(super) fn put_head<const ROOM: usize>(&self, fields: &mut Fields<'_, ROOM>) {
        let mut bits = 0;
        for (is_there, bit) in [
            (!self.identifiers.is_empty(), HAS_IDENTIFIERS),
            (self.group.is_some(), HAS_GROUP),
            (self.copy > 0, HAS_COPY),
        ] {
            bits |= if is_there { bit } else { 0 };
        }
        let head = DeliveryHead {
            session: self.session,
            progress: self.progress,
            qos: self.qos,
            retain: self.retain,
        };
        head.put(bits, fields);
    }

    pub(super) fn decode(from: &mut Reader<'a>) -> Result<Self, RecordError> {
        let bits = from.byte()?;
        let session = from.session()?;
        let progress = match bits >> 3 & 3 {
            0 => Progress::Queued,
            1 => Progress::Sent(from.packet_id()?),
            2 => Progress::Released(from.packet_id()?),
            _ => return Err(RecordError::Field("progress")),
        };
        let mut identifiers = SmallVec::new();
        if bits & HAS_IDENTIFIERS != 0 {
            for _ in 0..from.number()? {
                identifiers.push(from.small("identifiers")?);
            }
        }
        let group = match bits & HAS_GROUP {
            0 => None,
            _ => Some((from.text("group")?, from.text("group filter")?)),
        };
        let copy = match bits & HAS_COPY {
            0 => 0,
            _ => from.small("copy")?,
        };
        Ok(Self {
            session,
            copy,
            progress,
            qos: qos(bits & 3)?,
            retain: bits & 4 != 0,
            identifiers,
            group,
        })
    }
}

//! One PUBLISH, many receivers: the encoded frame is made once for each form and then copied, only the packet identifier differs.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use smallvec::SmallVec;

use crate::codec::{PublishFrame, patch_packet_id};
use crate::protocol::ids::{MessageNumber, PacketId};
use crate::protocol::message::{Message, Publication};
use crate::protocol::mount::Mount;
use crate::protocol::property::PropertiesBuf;
use crate::protocol::qos::QoS;
use crate::protocol::time::Time;
use crate::protocol::version::Version;
use crate::session::output::Output;

/// From this payload on, receivers get the payload by reference and a vectored write sends it; below, copying is cheaper
/// (one cache-warm copy against a reference count and an entry of the write vector).
pub const SHARE_FROM_BYTES: usize = 8 * 1024;

/// A publication that is being fanned out, with what was made from it so far.
#[derive(Debug)]
pub struct Fanned<'a> {
    /// The publication.
    pub publication: &'a Publication<'a>,
    /// It has been acknowledged to its publisher.
    pub is_promised: bool,
    /// The store knows already who is to get it.
    pub is_recorded: bool,
    /// Its number in the store.
    number: Option<MessageNumber>,
    /// Its kept form, once somebody needs it.
    kept: Option<Arc<Message>>,
    forms: Forms<'a>,
}

/// The buffer in which frames are made; a worker keeps one.
#[derive(Debug, Default)]
pub struct FrameBuffer(Vec<u8>);

#[derive(Debug)]
struct Forms<'a> {
    buffer: &'a mut Vec<u8>,
    made: SmallVec<[Form; 2]>,
    expiry: Option<u32>,
    /// Worth making forms: there is more than one receiver.
    is_worth: bool,
}

#[derive(Clone, Debug)]
struct Form {
    /// Has properties, QoS, retain: what makes frames differ, but for the packet identifier.
    kind: (bool, QoS, bool),
    bytes: Range<usize>,
    /// Where in the frame the packet identifier stands.
    packet_id_at: Option<usize>,
}

/// What one receiver's copy of the frame has of its own.
#[derive(Clone, Copy, Debug)]
pub struct Addressing<'a> {
    /// The receiver's protocol version.
    pub version: Version,
    /// QoS of the delivery.
    pub qos: QoS,
    /// Retain flag of the delivery.
    pub retain: bool,
    /// Packet identifier, where the QoS has one.
    pub packet_id: Option<PacketId>,
    /// Subscription identifiers.
    pub identifiers: &'a [u32],
    /// How many bytes of the topic the receiver does not see: those of its tenant's mount point.
    pub hidden_bytes: usize,
}

impl<'a> Fanned<'a> {
    /// Begins to fan out to about `receivers` sessions. `kept` is the publication's kept form, where there is one already.
    pub fn new(
        publication: &'a Publication<'a>,
        kept: Option<Arc<Message>>,
        buffer: &'a mut FrameBuffer,
        receivers: usize,
        now: Time,
    ) -> Self {
        buffer.0.clear();
        let expiry = publication.expires_at.map(|at| now.secs_until(at) as u32);
        let forms = Forms {
            buffer: &mut buffer.0,
            made: SmallVec::new(),
            expiry,
            is_worth: receivers > 1,
        };
        Self {
            publication,
            is_promised: false,
            is_recorded: false,
            number: kept.as_ref().and_then(|kept| kept.number),
            kept,
            forms,
        }
    }

    /// Gives it a number, if its kept form has not been made.
    #[inline]
    pub fn set_number(&mut self, number: Option<MessageNumber>) {
        if self.kept.is_none() {
            self.number = number;
        }
    }

    /// Its number in the store.
    pub const fn number(&self) -> Option<MessageNumber> {
        self.number
    }

    /// The kept form, made when first asked for.
    pub fn kept(&mut self) -> &Arc<Message> {
        self.kept.get_or_insert_with(|| {
            let mut message = self.publication.to_message();
            message.number = self.number;
            Arc::new(message)
        })
    }

    /// Appends the PUBLISH for one receiver.
    #[inline]
    pub fn write(&mut self, to: Addressing<'_>, output: &mut Output) {
        if to.hidden_bytes != 0 {
            self.write_unmounted(to, output);
        } else if self.publication.payload.len() >= SHARE_FROM_BYTES {
            let payload = self.kept().shared_payload();
            write_large(
                &frame(self.publication, to, self.forms.expiry),
                to.version,
                payload,
                output,
            );
        } else if self.forms.is_worth && to.identifiers.is_empty() {
            self.write_form(to, output.tail());
        } else {
            write_small(&frame(self.publication, to, self.forms.expiry), to.version, output);
        }
    }

    /// The length that [`Fanned::write`] would append, bytes.
    pub fn encoded_len(&self, to: Addressing<'_>) -> usize {
        let (frame, mut scratch) = (frame(self.publication, to, self.forms.expiry), PropertiesBuf::new());
        unmount(frame, to.hidden_bytes, &mut scratch).encoded_len(to.version)
    }

    /// For a client of a tenant: the frame is made for it alone.
    #[cold]
    fn write_unmounted(&mut self, to: Addressing<'_>, output: &mut Output) {
        let (publication, mut scratch) = (self.publication, PropertiesBuf::new());
        let is_large = publication.payload.len() >= SHARE_FROM_BYTES;
        let payload = is_large.then(|| self.kept().shared_payload());
        let frame = unmount(frame(publication, to, self.forms.expiry), to.hidden_bytes, &mut scratch);
        match payload {
            Some(payload) => write_large(&frame, to.version, payload, output),
            None => write_small(&frame, to.version, output),
        }
    }

    fn write_form(&mut self, to: Addressing<'_>, out: &mut Vec<u8>) {
        let kind = (to.version.has_properties(), to.qos, to.retain);
        let forms = &mut self.forms;
        let at = forms.made.iter().position(|form| form.kind == kind).unwrap_or_else(|| {
            let start = forms.buffer.len();
            // Any identifier will do: every copy gets its own.
            let packet_id = to.packet_id.map(|_| PacketId::FIRST);
            let to = Addressing { packet_id, ..to };
            let span = frame(self.publication, to, forms.expiry).write(to.version, forms.buffer);
            debug_assert!(span.is_ok(), "what was received fits into a packet");
            let packet_id_at = span.ok().and_then(|span| span.packet_id_at);
            forms.made.push(Form {
                kind,
                bytes: start..forms.buffer.len(),
                packet_id_at,
            });
            forms.made.len() - 1
        });
        let form = &forms.made[at];
        let start = out.len();
        out.extend_from_slice(&forms.buffer[form.bytes.clone()]);
        if let (Some(id), Some(at)) = (to.packet_id, form.packet_id_at) {
            patch_packet_id(&mut out[start..], at, id);
        }
    }
}

/// Appends a PUBLISH whose payload goes by reference.
pub fn write_large(frame: &PublishFrame<'_>, version: Version, payload: Bytes, output: &mut Output) {
    let header = frame.write_header(version, output.tail());
    debug_assert!(header.is_ok(), "what was received fits into a packet");
    if header.is_ok() {
        output.push_shared(payload);
    }
}

/// Appends a PUBLISH with its payload.
pub fn write_small(frame: &PublishFrame<'_>, version: Version, output: &mut Output) {
    let span = frame.write(version, output.tail());
    debug_assert!(span.is_ok(), "what was received fits into a packet");
}

/// A frame as clients of a tenant are to see it, who do not see so many bytes of its topic: the mount point.
pub(super) fn unmount<'a>(
    frame: PublishFrame<'a>,
    hidden_bytes: usize,
    scratch: &'a mut PropertiesBuf,
) -> PublishFrame<'a> {
    match frame.topic.split_at_checked(hidden_bytes) {
        Some((hidden, topic)) if hidden_bytes != 0 => PublishFrame {
            topic,
            properties: Mount::of_hidden(hidden).properties_out(frame.properties, scratch),
            ..frame
        },
        _ => frame,
    }
}

fn frame<'a>(publication: &Publication<'a>, to: Addressing<'a>, expiry: Option<u32>) -> PublishFrame<'a> {
    PublishFrame {
        topic: publication.topic.as_str(),
        qos: to.qos,
        retain: to.retain,
        dup: false,
        packet_id: to.packet_id,
        topic_alias: None,
        message_expiry: expiry,
        subscription_identifiers: to.identifiers,
        properties: publication.properties,
        payload: publication.payload,
    }
}

//! `sundew store inspect`.

use std::io::{self, BufWriter, Write};
use std::path::Path;

use clap::ValueEnum;

use super::Exit;
use super::object::{Object, Stamp};
use crate::protocol::ids::PacketId;
use crate::protocol::packet::SubscriptionOptions;
use crate::protocol::time::Time;
use crate::storage::disk::backup::{BackupError, Source};
use crate::storage::disk::recover::{self, Gap};
use crate::storage::image::{ImageOptions, Report, Restored, RestoredDelivery, RestoredSession};
use crate::storage::record::{DeliveryRecord, MessageRecord, Progress, Record};

/// What is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum What {
    /// Sessions, retained messages and queues: the state that a broker would start with
    #[default]
    All,
    /// Sessions with their subscriptions and wills
    Sessions,
    /// Retained messages
    Retained,
    /// Messages that wait for clients, or are in flight
    Queues,
    /// Every record that is there, with its file and where its block begins
    Log,
}

pub(super) fn run(directory: &Path, what: What) -> Result<Exit, BackupError> {
    let source = Source::open(directory)?;
    let mut out = Lines::default();
    let report = if what == What::Log {
        let report = source.read(&mut Log(&mut out))?.report;
        (report.gaps.len(), Report::default())
    } else {
        // Payloads that wait are printed, so they have to be in memory.
        let is_printed = matches!(what, What::All | What::Queues);
        let options = ImageOptions {
            memory_bytes_max: if is_printed { usize::MAX } else { 0 },
        };
        let (recovered, restored) = source.restore(options)?;
        let (time, wall) = recovered.stamp.unwrap_or_default();
        state(&mut out, Stamp { time, wall }, &restored, what);
        (recovered.report.gaps.len(), restored.report)
    };
    let exit = out.end();
    if report.0 > 0 || !report.1.lost.is_empty() {
        eprintln!(
            "{}: damaged: something is missing above; `sundew store verify` says where",
            source.name()
        );
    }
    Ok(exit)
}

fn state(out: &mut Lines, stamp: Stamp, restored: &Restored, what: What) {
    let wants = |wanted| what == What::All || what == wanted;
    for one in restored.sessions.iter().filter(|_| wants(What::Sessions)) {
        out.line(&session(stamp, one));
    }
    let mut retained: Vec<_> = restored.retained.iter().filter(|_| wants(What::Retained)).collect();
    retained.sort_unstable_by(|a, b| a.topic().as_str().cmp(b.topic().as_str()));
    for message in retained {
        let mut object = Object::new(stamp);
        object.text("what", "retained");
        if let Some(number) = message.number {
            object.number("message", number.0);
        }
        object.time("expires_at", message.expires_at.unwrap_or(Time::NEVER));
        out.line(&object.publication(&message.view()).end());
    }
    for session in restored.sessions.iter().filter(|_| wants(What::Queues)) {
        for one in session.in_flight.iter().chain(&session.queued) {
            out.line(&delivery(stamp, session, one));
        }
    }
}

fn session(stamp: Stamp, session: &RestoredSession) -> String {
    let mut object = Object::new(stamp);
    object.text("what", "session").number("session", session.number.0);
    if !session.tenant.is_empty() {
        object.text("tenant", &session.tenant);
    }
    object.text("client_id", &session.client_id);
    object.number("expiry_secs", session.expiry_secs);
    object.time("expires_at", session.expires_at);
    let subscriptions = session.subscriptions.iter();
    let subscriptions = subscriptions.map(|restored| {
        let mut object = Object::new(stamp);
        subscription(&mut object, &restored.filter, restored.options, restored.identifier);
        object.end()
    });
    object.list("subscriptions", subscriptions);
    if let Some(will) = &session.will {
        let mut inner = Object::new(stamp);
        inner.time("due", will.due).number("delay_secs", will.delay_secs);
        if let Some(secs) = will.expiry_secs {
            inner.number("expiry_secs", secs);
        }
        object.raw("will", &inner.publication(&will.message.view()).end());
    }
    object.number("in_flight", session.in_flight.len() as u64);
    object.number("queued", session.queued.len() as u64);
    object.list("received", session.received.iter().map(ToString::to_string));
    if !session.unreleased.is_empty() {
        let unreleased = session.unreleased.iter().map(|(id, message)| {
            let mut inner = Object::new(stamp);
            packet_id(&mut inner, *id);
            inner.time("expires_at", message.expires_at.unwrap_or(Time::NEVER));
            inner.publication(&message.view()).end()
        });
        object.list("unreleased", unreleased);
    }
    object.end()
}

fn subscription(object: &mut Object, filter: &str, options: SubscriptionOptions, identifier: Option<u32>) {
    object.text("filter", filter).number("qos", options.qos.bits());
    object.flag("no_local", options.no_local);
    object.flag("retain_as_published", options.retain_as_published);
    object.number("retain_handling", options.retain_handling as u8);
    if let Some(identifier) = identifier {
        object.number("identifier", identifier);
    }
}

fn delivery(stamp: Stamp, session: &RestoredSession, delivery: &RestoredDelivery) -> String {
    let mut object = Object::new(stamp);
    object.text("what", "delivery").text("client_id", &session.client_id);
    object.number("session", session.number.0);
    object.number("message", delivery.message.0);
    progress(&mut object, delivery.progress);
    object.number("delivery_qos", delivery.qos.bits());
    object.flag("delivery_retain", delivery.retain);
    object.time("expires_at", delivery.expires_at);
    if let Some((group, filter)) = &delivery.group {
        object.text("group", group).text("group_filter", filter);
    }
    if let Some(message) = &delivery.content {
        object.publication(&message.view());
    }
    object.end()
}

fn progress(object: &mut Object, progress: Progress) {
    match progress {
        Progress::Queued => object.text("state", "queued"),
        Progress::Sent(id) => object.text("state", "sent").number("packet_id", id.get()),
        Progress::Released(id) => object.text("state", "released").number("packet_id", id.get()),
    };
}

/// Prints every record.
struct Log<'l>(&'l mut Lines);

impl recover::Visitor for Log<'_> {
    fn record(&mut self, bytes: &[u8], place: &recover::Place<'_>) {
        // When it was written is known only in the broker's time: moments are printed as such.
        let mut object = Object::new(Stamp::default());
        object.text("file", place.file).number("offset", place.offset);
        object.number("block", place.block).number("worker", place.worker.0);
        object.number("time_ms", place.time.0);
        match Record::decode(bytes) {
            Ok(decoded) => record(&mut object, &decoded),
            Err(error) => {
                object.text("unreadable", &error.to_string());
            }
        }
        self.0.line(&object.end());
    }

    fn gap(&mut self, gap: &Gap) {
        let mut object = Object::new(Stamp::default());
        object.text("file", &gap.file).number("offset", gap.offset);
        object.number("damaged_bytes", gap.bytes);
        self.0.line(&object.number("missing_blocks", gap.blocks).end());
    }
}

fn millis(object: &mut Object, key: &str, time: Time) {
    if time != Time::NEVER {
        object.number(key, time.0);
    }
}

fn record(object: &mut Object, record: &Record<'_>) {
    let mut named = |name: &str, session: Option<crate::protocol::ids::SessionNumber>| {
        object.text("record", name);
        if let Some(session) = session {
            object.number("session", session.0);
        }
    };
    match record {
        Record::Session(session) => {
            named("session", Some(session.session));
            if !session.tenant.is_empty() {
                object.text("tenant", session.tenant);
            }
            object.text("client_id", session.client_id);
            object.number("expiry_secs", session.expiry_secs);
            millis(object, "expires_at_ms", session.expires_at);
        }
        Record::SessionEnded(session) => named("session_ended", Some(*session)),
        Record::Subscription(one) => {
            named("subscription", Some(one.session));
            subscription(object, one.filter, one.options, one.identifier);
        }
        Record::SubscriptionEnded(session, filter) => {
            named("subscription_ended", Some(*session));
            object.text("filter", filter);
        }
        Record::Will(will) => {
            named("will", Some(will.session));
            millis(object, "due_ms", will.due);
            object.number("delay_secs", will.delay_secs);
            object.content(&will.content);
        }
        Record::WillEnded(session) => named("will_ended", Some(*session)),
        Record::RetainedFrom(order) => {
            named("retained_from", None);
            object.number("retained_order", *order);
        }
        Record::Message(one) => {
            named("message", None);
            message(object, one);
        }
        Record::Delivery(number, delivery) => {
            named("delivery", None);
            object.number("message", number.0);
            object.raw("delivery", &delivery_object(delivery));
        }
        Record::DeliveryEnded(number, session, copy) => {
            named("delivery_ended", Some(*session));
            object.number("message", number.0).number("copy", *copy);
        }
        Record::Received(session, id) => {
            named("received", Some(*session));
            packet_id(object, *id);
        }
        Record::ReceivedEnded(session, id) => {
            named("received_ended", Some(*session));
            packet_id(object, *id);
        }
        Record::Unreleased(unreleased) => {
            named("unreleased", Some(unreleased.session));
            packet_id(object, unreleased.id);
            millis(object, "expires_at_ms", unreleased.expires_at);
            object.content(&unreleased.content);
        }
    }
}

fn message(object: &mut Object, message: &MessageRecord<'_>) {
    object.number("message", message.number.0);
    millis(object, "expires_at_ms", message.expires_at);
    if let Some(order) = message.retained {
        object.number("retained_order", order);
    }
    if let Some((session, id)) = message.received {
        object.number("received_session", session.0);
        object.number("received_packet_id", id.get());
    }
    object.content(&message.content);
    let deliveries = message.deliveries.iter().map_while(Result::ok);
    object.list("deliveries", deliveries.map(|delivery| delivery_object(&delivery)));
}

fn packet_id(object: &mut Object, id: PacketId) {
    object.number("packet_id", id.get());
}

fn delivery_object(delivery: &DeliveryRecord<'_>) -> String {
    let mut object = Object::new(Stamp::default());
    object.number("session", delivery.session.0);
    if delivery.copy > 0 {
        object.number("copy", delivery.copy);
    }
    progress(&mut object, delivery.progress);
    object
        .number("qos", delivery.qos.bits())
        .flag("retain", delivery.retain);
    if !delivery.identifiers.is_empty() {
        object.list("identifiers", delivery.identifiers.iter().map(ToString::to_string));
    }
    if let Some((group, filter)) = delivery.group {
        object.text("group", group).text("group_filter", filter);
    }
    object.end()
}

/// Standard output, a line at a time. A reader that left is no fault.
struct Lines {
    out: BufWriter<io::StdoutLock<'static>>,
    error: Option<io::Error>,
}

impl Default for Lines {
    fn default() -> Self {
        Self {
            out: BufWriter::new(io::stdout().lock()),
            error: None,
        }
    }
}

impl Lines {
    fn line(&mut self, line: &str) {
        if self.error.is_none() {
            self.error = writeln!(self.out, "{line}").err();
        }
    }

    fn end(mut self) -> Exit {
        match self.error.take().map_or_else(|| self.out.flush(), Err) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                eprintln!("cannot write to standard output: {error}");
                Exit::CannotCreate
            }
            _ => Exit::Done,
        }
    }
}

//! The other way: a state as records again, for a snapshot or a backup.

use super::restored::{Restored, RestoredDelivery, RestoredSession};
use crate::protocol::ids::SessionNumber;
use crate::protocol::message::Message;
use crate::protocol::time::Time;
use crate::storage::SnapshotPart;
use crate::storage::record::{
    Content, Deliveries, DeliveryRecord, MessageRecord, Progress, Record, SessionRecord, SubscriptionRecord,
    UnreleasedRecord, WillRecord,
};

/// A part is given out when it has so many bytes; it is larger by one message at most.
const PART_BYTES: usize = 64 * 1024;

impl Restored {
    /// The sessions and the retained messages as records, in parts. Each retained message is as new as the last change of all.
    pub fn encode(&self, emit: &mut dyn FnMut(SnapshotPart)) {
        let mut parts = Parts {
            part: SnapshotPart::default(),
            deliveries: Vec::new(),
            emit,
        };
        for session in &self.sessions {
            parts.session(session);
        }
        parts.tell(&Record::RetainedFrom(self.last_retained_order));
        for message in &self.retained {
            parts.retained(message, self.last_retained_order);
        }
        parts.part.is_last = true;
        (parts.emit)(parts.part);
    }
}

struct Parts<'e> {
    part: SnapshotPart,
    /// Of the message that is being told.
    deliveries: Vec<u8>,
    emit: &'e mut dyn FnMut(SnapshotPart),
}

impl Parts<'_> {
    fn tell(&mut self, record: &Record<'_>) {
        record.encode(&mut self.part.bytes);
        if self.part.bytes.len() >= PART_BYTES {
            (self.emit)(std::mem::take(&mut self.part));
        }
    }

    fn session(&mut self, session: &RestoredSession) {
        let number = session.number;
        self.tell(&Record::Session(SessionRecord {
            session: number,
            tenant: &session.tenant,
            client_id: &session.client_id,
            expiry_secs: session.expiry_secs,
            expires_at: session.expires_at,
        }));
        for subscription in &session.subscriptions {
            self.tell(&Record::Subscription(SubscriptionRecord {
                session: number,
                filter: &subscription.filter,
                options: subscription.options,
                identifier: subscription.identifier,
                wants_retained: subscription.wants_retained,
            }));
        }
        if let Some(will) = &session.will {
            self.tell(&Record::Will(WillRecord {
                session: number,
                due: will.due,
                delay_secs: will.delay_secs,
                expiry_secs: will.expiry_secs,
                content: content(&will.message),
            }));
        }
        for id in &session.received {
            self.tell(&Record::Received(number, *id));
        }
        for (id, message) in &session.unreleased {
            let record = UnreleasedRecord::of(number, *id, &message.view());
            self.tell(&Record::Unreleased(record));
        }
        for delivery in session.in_flight.iter().chain(&session.queued) {
            self.delivery(number, delivery);
        }
    }

    fn delivery(&mut self, session: SessionNumber, delivery: &RestoredDelivery) {
        let record = DeliveryRecord {
            session,
            copy: delivery.copy,
            progress: delivery.progress,
            qos: delivery.qos,
            retain: delivery.retain,
            identifiers: delivery.identifiers.clone(),
            group: delivery.group.as_ref().map(|(group, filter)| (&**group, &**filter)),
        };
        let Some(message) = &delivery.content else {
            if delivery.bytes > 0 && !matches!(delivery.progress, Progress::Released(_)) {
                self.part.stored_messages.push(delivery.message);
            }
            return self.tell(&Record::Delivery(delivery.message, record));
        };
        let mut deliveries = std::mem::take(&mut self.deliveries);
        deliveries.clear();
        record.encode(&mut deliveries);
        self.tell(&Record::Message(MessageRecord {
            number: delivery.message,
            expires_at: delivery.expires_at,
            retained: None,
            received: None,
            content: content(message),
            deliveries: Deliveries(&deliveries),
        }));
        self.deliveries = deliveries;
    }

    fn retained(&mut self, message: &Message, order: u64) {
        let Some(number) = message.number else {
            return; // never: it came from a record
        };
        self.tell(&Record::Message(MessageRecord {
            number,
            expires_at: message.expires_at.unwrap_or(Time::NEVER),
            retained: Some(order),
            received: None,
            content: content(message),
            deliveries: Deliveries::default(),
        }));
    }
}

fn content(message: &Message) -> Content<'_> {
    Content::of(&message.view())
}

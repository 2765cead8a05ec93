//! A worker takes up the sessions that the store had.

use std::sync::Arc;

use super::timers::Reminder;
use super::worker::Worker;
use super::{read, write};
use crate::delivery::residents::Resident;
use crate::protocol::ids::{ClientId, PacketId, SessionKey, SlotKey};
use crate::protocol::time::Time;
use crate::protocol::topic::TopicFilter;
use crate::router::Subscriber;
use crate::router::shared::SharedGroup;
use crate::session::delivery::Delivery;
use crate::session::outbound::{Former, Outbound};
use crate::session::state::{Session, Subscription};
use crate::session::will::Will;
use crate::storage::image::{RestoredDelivery, RestoredSession};
use crate::storage::record::Progress;

impl Worker {
    /// Takes up this worker's share of what was restored.
    pub(super) fn restore(&mut self, now: Time) {
        let mut restored = self.broker.restored[self.me.index()]
            .lock()
            .map(|mut sessions| std::mem::take(&mut *sessions))
            .unwrap_or_default();
        for session in &mut restored {
            let slot = self.restore_session(session, now);
            self.restore_subscriptions(slot, session);
            self.restore_deliveries(slot, session);
        }
    }

    fn restore_session(&mut self, restored: &mut RestoredSession, now: Time) -> SlotKey {
        let client_id = ClientId::new(&restored.client_id);
        let mut session = Session::new(client_id.clone(), restored.expiry_secs);
        session.number = Some(restored.number);
        // Whoever was connected has gone with the broker's stop: his time begins now.
        session.expires_at = match restored.expires_at {
            Time::NEVER => session.expiry_from(now),
            at => at,
        };
        if let Some(will) = restored.will.take() {
            let grace_ms = self.broker.options.will_grace_ms;
            let due = match will.due {
                Time::NEVER => now.plus_millis(grace_ms.max(u64::from(will.delay_secs) * 1000)),
                due => due.max(now.plus_millis(grace_ms)),
            };
            session.pending_will = Some((Will::restored(will.message, will.expiry_secs, will.delay_secs), due));
            session.has_stored_will = true;
            session.is_will_former = true;
            if !session.is_persistent() {
                session.expires_at = due;
            }
            self.metrics().wills_pending.increment();
        }
        for id in &restored.received {
            session.inbound.insert(*id);
        }
        session.status.set_stored_number(session.stored_number());
        let (expires_at, due) = (
            session.expires_at,
            session.pending_will.as_ref().map_or(Time::NEVER, |(_, due)| *due),
        );
        self.metrics().sessions.increment();
        let slot = self.residents.sessions.insert(Resident::new(session));
        self.clients.insert(client_id, slot);
        self.timers.arm(expires_at, Reminder::Session(slot));
        self.timers.arm(due, Reminder::Session(slot));
        slot
    }

    fn restore_subscriptions(&mut self, slot: SlotKey, restored: &mut RestoredSession) {
        let Some(resident) = self.residents.sessions.get_mut(slot) else {
            return;
        };
        let mut subscriptions = write(&self.broker.subscriptions);
        for (filter, options, identifier) in restored.subscriptions.drain(..) {
            if let Ok(parsed) = TopicFilter::parse(&filter) {
                let subscriber = Subscriber {
                    session: SessionKey {
                        worker: self.me,
                        key: slot,
                    },
                    options,
                    identifier,
                    status: resident.session.status.clone(),
                };
                subscriptions.subscribe(parsed, subscriber);
                let subscription = Subscription { options, identifier };
                resident.session.subscriptions.insert(filter, subscription);
            }
        }
    }

    fn restore_deliveries(&mut self, slot: SlotKey, restored: &mut RestoredSession) {
        let mut in_flight = Vec::new();
        for delivery in restored.in_flight.drain(..) {
            let (message, copy) = (delivery.message, delivery.copy);
            match delivery.progress {
                Progress::Released(id) => in_flight.push((id, Former::Released((message, copy)))),
                Progress::Sent(id) => in_flight.extend(self.former(id, delivery)),
                Progress::Queued => {}
            }
        }
        let queued: Vec<_> = restored.queued.drain(..).collect();
        let queued: Vec<_> = queued
            .into_iter()
            .filter_map(|delivery| self.restored_delivery(delivery))
            .collect();
        let Some(resident) = self.residents.sessions.get_mut(slot) else {
            return;
        };
        let (outbound, misplaced) = Outbound::restore(in_flight);
        resident.session.outbound = outbound;
        for delivery in misplaced.into_iter().map(|delivery| *delivery).chain(queued) {
            resident.outbox.restore(delivery);
        }
        resident
            .session
            .status
            .set_in_flight((usize::from(resident.session.outbound.in_flight()) + resident.outbox.len()) as u32);
    }

    fn former(&self, id: PacketId, delivery: RestoredDelivery) -> Option<(PacketId, Former)> {
        let delivery = self.restored_delivery(delivery)?;
        Some((id, Former::Published(Box::new(delivery))))
    }

    fn restored_delivery(&self, restored: RestoredDelivery) -> Option<Delivery> {
        let message = restored.content?;
        let group = restored.group.and_then(|(group, filter)| {
            let matched = read(&self.broker.subscriptions).matches(message.topic());
            let is_it = |known: &&Arc<SharedGroup>| *known.name.group == *group && *known.name.filter == *filter;
            matched.groups.iter().find(is_it).cloned()
        });
        Some(Delivery {
            qos: restored.qos,
            retain: restored.retain,
            identifiers: restored.identifiers,
            copy: restored.copy,
            message,
            group,
        })
    }
}

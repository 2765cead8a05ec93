//! A worker takes up the sessions that the store had.

use std::sync::Arc;

use super::timers::Reminder;
use super::worker::Worker;
use super::write;
use crate::delivery::congestion::tell_status;
use crate::delivery::outbox::{Entry, StoredDelivery};
use crate::delivery::paging::report_lost;
use crate::delivery::residents::{Resident, Residents};
use crate::delivery::retained_walk::RetainedWalk;
use crate::protocol::ids::{ClientId, SessionKey, SlotKey};
use crate::protocol::time::Time;
use crate::protocol::topic::TopicFilter;
use crate::router::shared::GroupName;
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
        let client_id = ClientId::of(&restored.tenant, &restored.client_id);
        let mut session = Session::new(client_id.clone(), restored.expiry_secs);
        session.number = Some(restored.number);
        session.doubts_repeats = self.broker.has_lost;
        // Whoever was connected has gone with the broker's stop: his time begins now.
        session.expires_at = match restored.expires_at {
            Time::NEVER => session.expiry_from(now),
            at => at,
        };
        if let Some(will) = restored.will.take() {
            let grace_ms = self.broker.options.will_grace_ms;
            let due = match will.due {
                // A session that is over with its connection has no delay [MQTT-3.1.3-9].
                Time::NEVER => {
                    let delay_secs = will.delay_secs.min(restored.expiry_secs);
                    now.plus_millis(grace_ms.max(u64::from(delay_secs) * 1000))
                }
                due => due.max(now.plus_millis(grace_ms)),
            };
            session.pending_will = Some((Will::restored(will.message, will.expiry_secs, will.delay_secs), due));
            session.has_stored_will = true;
            // One whose client had gone already waits for its delay, or the end of its session, as ever.
            session.is_will_former = will.due == Time::NEVER;
            if !session.is_persistent() {
                session.expires_at = due;
            }
            self.metrics().wills_pending.increment();
        }
        for id in &restored.received {
            session.inbound.insert(*id);
        }
        for (id, message) in restored.unreleased.drain(..) {
            session.inbound.insert(id);
            session.unreleased.insert(id, message);
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
        let session = SessionKey {
            worker: self.me,
            key: slot,
        };
        for restored in restored.subscriptions.drain(..) {
            if let Ok(parsed) = TopicFilter::kept(&restored.filter) {
                let subscription = Subscription {
                    options: restored.options,
                    identifier: restored.identifier,
                    was_vouched_for: false,
                };
                subscriptions.subscribe(parsed, subscription.of(session, &resident.session.status));
                if let Some(mount) = resident.session.client_id.mount() {
                    self.broker.registry.tenants.add_subscription(mount, usize::MAX);
                }
                if restored.wants_retained && self.broker.options.retain_available {
                    resident.walks.push_back(RetainedWalk {
                        is_anew: true,
                        ..RetainedWalk::new(parsed, subscription)
                    });
                }
                resident.session.subscriptions.insert(restored.filter, subscription);
            }
        }
    }

    fn restore_deliveries(&mut self, slot: SlotKey, restored: &mut RestoredSession) {
        let mut in_flight = Vec::new();
        for delivery in restored.in_flight.drain(..) {
            let (message, copy) = (delivery.message, delivery.copy);
            match delivery.progress {
                Progress::Released(id) => in_flight.push((id, Former::Released((message, copy)))),
                Progress::Sent(id) => match restored_entry(delivery) {
                    Entry::Memory(delivery) => in_flight.push((id, Former::Published(delivery))),
                    // What is in flight is read at the start whatever the budget: the store could not.
                    Entry::Stored(_) => {
                        self.metrics().dropped_unreadable.increment();
                        report_lost(&restored.client_id, message.0.get(), 1);
                    }
                },
                Progress::Queued => {}
            }
        }
        let Residents {
            sessions,
            paging,
            options,
            metrics,
            congestion,
            ..
        } = &mut self.residents;
        let Some(resident) = sessions.get_mut(slot) else {
            return;
        };
        let (outbound, misplaced) = Outbound::restore(in_flight);
        resident.session.outbound = outbound;
        let outbox = &mut resident.outbox;
        for delivery in misplaced {
            outbox.restore(Entry::Memory(delivery));
        }
        for delivery in restored.queued.drain(..) {
            match restored_entry(delivery) {
                Entry::Memory(delivery) => {
                    outbox.restore_delivery(delivery, options.memory_bytes_max, paging.is_over(options));
                }
                stored => outbox.restore(stored),
            }
            paging.count(outbox, metrics);
        }
        tell_status(resident, &options.outbox, congestion);
    }
}

fn restored_entry(restored: RestoredDelivery) -> Entry {
    let name = |(group, filter)| Arc::new(GroupName { group, filter });
    let group = restored.group.map(name);
    match restored.content {
        Some(message) => Entry::Memory(Delivery {
            qos: restored.qos,
            retain: restored.retain,
            identifiers: restored.identifiers,
            copy: restored.copy,
            message,
            group,
        }),
        None => {
            let (key, form) = ((restored.message, restored.copy), (restored.qos, restored.retain));
            let stored = StoredDelivery::new(key, restored.expires_at, restored.bytes, form);
            Entry::Stored(stored.with(restored.identifiers, group))
        }
    }
}

//! How much room there is for what waits: what changes for the queues of a worker when memory gets short.
//!
//! Nothing here costs anything while there is enough: the bounds of the worker are other ones while there is not.

use super::congestion::tell_status;
use super::outbox::OutboxOptions;
use super::residents::{DeliveryOptions, Residents};

/// How much of the memory budget is left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum MemoryState {
    /// Enough.
    #[default]
    Ample,
    /// An eighth: nothing of QoS 0 waits any more, and what the store has is in the store only.
    Short,
    /// Nothing: nothing new waits any more.
    Spent,
}

/// Bytes that may wait for the network in one connection's output while memory is short; its client gets what it reads.
const OUTPUT_BYTES_SHORT: usize = 256 << 10;
/// The same while it is used up.
const OUTPUT_BYTES_SPENT: usize = 32 << 10;

impl Residents {
    /// There is more, or less, memory left than before; `own` are the bounds where there is enough. On the way down QoS 0 that waits is
    /// dropped, and the store's part of the queues leaves memory.
    pub fn set_memory(&mut self, memory: MemoryState, own: &DeliveryOptions, memory_total_max: usize) {
        let is_short = memory > MemoryState::Ample;
        self.options = DeliveryOptions {
            output_bytes_max: match memory {
                MemoryState::Ample => own.output_bytes_max,
                MemoryState::Short => own.output_bytes_max.min(OUTPUT_BYTES_SHORT),
                MemoryState::Spent => own.output_bytes_max.min(OUTPUT_BYTES_SPENT),
            },
            memory_total_max: if is_short { 0 } else { memory_total_max },
            outbox: OutboxOptions {
                memory,
                ..own.outbox.clone()
            },
            ..own.clone()
        };
        let Self {
            sessions,
            paging,
            metrics,
            options,
            congestion,
            ..
        } = self;
        for (key, resident) in sessions.iter_mut() {
            let is_stored = resident.session.stored_number().is_some();
            let Some(outbox) = resident.outbox.get_mut() else {
                continue;
            };
            if is_short {
                metrics.dropped_memory_qos0.add(outbox.forget_unacknowledged() as u64);
                if is_stored {
                    paging.page_out_all(key, outbox);
                }
                paging.count(outbox, metrics);
            }
            tell_status(resident, &options.outbox, congestion);
        }
    }
}

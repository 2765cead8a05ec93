//! Layer 4: from "who wants it" to "his queue", and from the queue to the connection's output.

pub mod buffers;
pub mod congestion;
pub mod fan_out;
pub mod frames;
pub mod mailbox;
pub mod memory;
pub mod outbox;
pub mod paging;
pub mod receive;
pub mod residents;
pub mod retained_walk;
pub mod slots;
pub mod source_check;
pub mod stored;
mod written;

//! Layer 1: who wants this topic, and, the question turned round, what is retained for this filter.
//!
//! ```text
//!   topic ─► MatchCache (one per worker) ──miss──► Subscriptions (one trie for all workers) ─► Matched
//!                 │ valid for a generation               │ every change bumps                  ├ receivers by worker
//!                 └──────────────► Generations ◄─────────┘                                     └ shared groups
//!
//!   filter ─► Walk ─► Retained
//! ```
//!
//! Nothing here locks or waits. `Subscriptions` and `Retained` are plain values that the broker puts behind a lock each; what
//! several workers touch at once ([`SessionStatus`], [`Generations`], the cursor of a shared group) is atomic.

pub mod cache;
pub mod generation;
pub mod matched;
pub mod retained;
pub mod shared;
mod shares;
pub mod status;
mod subscribers;
pub mod trie;
pub mod walk;

pub use cache::{MatchCache, MatchCacheLimits};
pub use generation::Generations;
pub use matched::{Matched, NoLocal, Overlap, Receiver, WorkerReceivers};
pub use retained::{Retained, RetainedError, RetainedLimits};
pub use shared::{Choice, SharedGroup, Strategies, Strategy};
pub use status::SessionStatus;
pub use subscribers::Subscriber;
pub use trie::{Subscribed, Subscriptions};
pub use walk::Walk;

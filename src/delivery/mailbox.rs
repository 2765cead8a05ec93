//! Mailboxes: the only place where two workers meet.
//!
//! Every worker has one inbox. A sender collects what it has for another worker while it handles what one read brought, and hands
//! it over as one batch: one short lock, one wake-up and only if the receiver may be asleep. Batches of one sender arrive in the order
//! they were sent, so the order of messages from one publisher to one session holds across workers.

#[cfg(all(test, sundew_loom))]
use loom::sync::{
    Mutex,
    atomic::{AtomicUsize, Ordering},
};
#[cfg(not(all(test, sundew_loom)))]
use std::sync::{
    Mutex,
    atomic::{AtomicUsize, Ordering},
};
use std::task::Waker;

use crossbeam_utils::CachePadded;

use crate::protocol::ids::WorkerId;

/// One inbox for each worker, with letters of type `T`.
#[derive(Debug)]
pub struct Mailboxes<T> {
    inboxes: Box<[CachePadded<Inbox<T>>]>,
}

#[derive(Debug)]
struct Inbox<T> {
    contents: Mutex<Contents<T>>,
    /// Letters that wait, for senders that want to know without the lock.
    len: AtomicUsize,
    /// Bytes of what they carry.
    bytes: AtomicUsize,
}

#[derive(Debug)]
struct Contents<T> {
    letters: Vec<T>,
    /// Set by the receiver when it found nothing and goes to sleep.
    waker: Option<Waker>,
}

impl<T> Mailboxes<T> {
    /// Empty inboxes for that many workers.
    pub fn new(workers: usize) -> Self {
        let inbox = || Inbox {
            contents: Mutex::new(Contents {
                letters: Vec::new(),
                waker: None,
            }),
            len: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
        };
        Self {
            inboxes: (0..workers).map(|_| CachePadded::new(inbox())).collect(),
        }
    }

    /// How many workers there are.
    pub fn workers(&self) -> usize {
        self.inboxes.len()
    }

    /// Letters that wait for a worker, as of a moment ago.
    pub fn waiting(&self, to: WorkerId) -> usize {
        self.inboxes[to.index()].len.load(Ordering::Relaxed)
    }

    /// True while more than `letters` letters, or letters with more than `bytes` bytes, wait for a worker.
    pub fn is_over(&self, to: WorkerId, letters: usize, bytes: usize) -> bool {
        let inbox = &self.inboxes[to.index()];
        inbox.len.load(Ordering::Relaxed) > letters || inbox.bytes.load(Ordering::Relaxed) > bytes
    }

    /// Hands over a batch, and empties it. The receiver is woken if it sleeps.
    pub fn send(&self, to: WorkerId, batch: &mut Vec<T>) {
        self.send_sized(to, batch, 0);
    }

    /// The same for a batch which carries `bytes` bytes.
    pub fn send_sized(&self, to: WorkerId, batch: &mut Vec<T>, bytes: usize) {
        if batch.is_empty() {
            return;
        }
        let inbox = &self.inboxes[to.index()];
        let waker = {
            let mut contents = lock(&inbox.contents);
            contents.letters.append(batch);
            inbox.len.store(contents.letters.len(), Ordering::Relaxed);
            inbox
                .bytes
                .store(inbox.bytes.load(Ordering::Relaxed) + bytes, Ordering::Relaxed);
            contents.waker.take()
        };
        // Outside the lock: waking runs code of the receiver's runtime.
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Moves everything that waits for `me` into `letters`, which is empty. When nothing waits, remembers `waker`; the next letter
    /// wakes it, once.
    pub fn receive(&self, me: WorkerId, letters: &mut Vec<T>, waker: &Waker) {
        debug_assert!(letters.is_empty());
        let inbox = &self.inboxes[me.index()];
        let mut contents = lock(&inbox.contents);
        if contents.letters.is_empty() {
            contents.waker = Some(waker.clone());
        } else {
            std::mem::swap(&mut contents.letters, letters);
            inbox.len.store(0, Ordering::Relaxed);
            inbox.bytes.store(0, Ordering::Relaxed);
        }
    }
}

#[cfg(not(all(test, sundew_loom)))]
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Letters are moved, never half changed: what a panic elsewhere left behind is whole.
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(all(test, sundew_loom))]
fn lock<T>(mutex: &Mutex<T>) -> loom::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap()
}

#[cfg(all(test, sundew_loom))]
mod loom_tests {
    use loom::sync::Arc;

    use super::*;

    /// Two senders and a receiver that sleeps when it finds nothing: every letter arrives once, in each sender's order, and the
    /// receiver never sleeps on a full inbox, in every interleaving with up to two preemptions (all of them take hours).
    #[test]
    fn no_letter_is_lost_doubled_reordered_or_slept_on() {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(2);
        model.check(|| {
            let mailboxes = Arc::new(Mailboxes::<(u8, u8)>::new(1));
            let senders: Vec<_> = (0..2u8)
                .map(|sender| {
                    let mailboxes = Arc::clone(&mailboxes);
                    loom::thread::spawn(move || {
                        for number in 0..2u8 {
                            mailboxes.send(WorkerId(0), &mut vec![(sender, number)]);
                        }
                    })
                })
                .collect();
            let received = loom::future::block_on(async {
                let mut received: Vec<(u8, u8)> = Vec::new();
                while received.len() < 4 {
                    let batch = std::future::poll_fn(|context| {
                        let mut letters = Vec::new();
                        mailboxes.receive(WorkerId(0), &mut letters, context.waker());
                        if letters.is_empty() {
                            std::task::Poll::Pending
                        } else {
                            std::task::Poll::Ready(letters)
                        }
                    });
                    received.extend(batch.await);
                }
                received
            });
            for sender in 0..2 {
                let numbers: Vec<u8> = received
                    .iter()
                    .filter(|(from, _)| *from == sender)
                    .map(|(_, number)| *number)
                    .collect();
                assert_eq!(numbers, [0, 1]);
            }
            for sender in senders {
                sender.join().unwrap();
            }
        });
    }
}

#[cfg(all(test, not(sundew_loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_batch_arrives_whole_and_wakes_a_sleeper_once() {
        use std::sync::Arc;
        use std::sync::atomic::AtomicU32;
        struct Count(AtomicU32);
        impl std::task::Wake for Count {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
        let count = Arc::new(Count(AtomicU32::new(0)));
        let waker = Waker::from(Arc::clone(&count));
        let mailboxes = Mailboxes::new(2);
        let mut letters = Vec::new();
        mailboxes.receive(WorkerId(1), &mut letters, &waker);
        assert!(letters.is_empty());
        mailboxes.send_sized(WorkerId(1), &mut vec![1, 2], 20);
        mailboxes.send_sized(WorkerId(1), &mut vec![3], 10);
        assert!(mailboxes.is_over(WorkerId(1), 2, 99) && mailboxes.is_over(WorkerId(1), 9, 29));
        assert!(!mailboxes.is_over(WorkerId(1), 3, 30));
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        assert_eq!(mailboxes.waiting(WorkerId(1)), 3);
        mailboxes.receive(WorkerId(1), &mut letters, &waker);
        assert_eq!(letters, [1, 2, 3]);
    }
}

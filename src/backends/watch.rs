//! A thread that looks at the files of users and rules now and then.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use super::access::LiveAccess;
use crate::broker::Broker;

/// The thread. It ends when this is dropped.
#[derive(Debug)]
pub struct AccessWatch {
    stop: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl AccessWatch {
    /// Starts it: a look each `interval`.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(access: Arc<LiveAccess>, broker: Arc<Broker>, interval: Duration) -> io::Result<Self> {
        let (stop, stopped) = sync_channel(0);
        let look = move || {
            while stopped.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
                if access.look() {
                    broker.access_changed();
                }
            }
        };
        let thread = std::thread::Builder::new().name("access".to_owned()).spawn(look)?;
        Ok(Self {
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for AccessWatch {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // it does not panic, and if so nobody is left to tell
        }
    }
}

//! A thread that looks at files now and then.

use std::io;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// The thread. It ends when this is dropped.
#[derive(Debug)]
pub struct FileWatch {
    stop: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl FileWatch {
    /// Starts it: a look each `interval`.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(interval: Duration, look: impl Fn() + Send + 'static) -> io::Result<Self> {
        let (stop, stopped) = sync_channel(0);
        let watch = move || {
            while stopped.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
                look();
            }
        };
        let thread = std::thread::Builder::new().name("files".to_owned()).spawn(watch)?;
        Ok(Self {
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for FileWatch {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // it does not panic, and if so nobody is left to tell
        }
    }
}

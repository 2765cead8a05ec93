//! SIGTERM, Ctrl-C and SIGHUP, on the thread that has nothing else to do.

use std::{io, sync::mpsc::Receiver, time::Duration};

use tokio::{
    runtime::{Builder, Runtime},
    signal::unix::{Signal, SignalKind, signal},
};

/// How often the end of draining is looked for while a second signal is waited for.
const LOOK: Duration = Duration::from_millis(5);

/// The signals that end the broker, or have it read its files again. While this exists they do not end the process by themselves.
pub(super) struct Signals {
    runtime: Runtime,
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    /// The name of the signal that asks to read files again.
    pub(super) const RELOAD: &str = "SIGHUP";

    /// Listens for them from now on.
    pub(super) fn new() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (terminate, interrupt, hang_up) = runtime.block_on(async {
            let of = |kind| signal(kind);
            Ok::<_, io::Error>((
                of(SignalKind::terminate())?,
                of(SignalKind::interrupt())?,
                of(SignalKind::hangup())?,
            ))
        })?;
        Ok(Self {
            runtime,
            terminate,
            interrupt,
            hang_up,
        })
    }

    /// Waits for the next one and names it.
    pub(super) fn wait(&mut self) -> &'static str {
        let (terminate, interrupt, hang_up) = (&mut self.terminate, &mut self.interrupt, &mut self.hang_up);
        self.runtime.block_on(async {
            tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
                _ = hang_up.recv() => Self::RELOAD,
            }
        })
    }

    /// Waits for `value`; `None` when a signal came first, or when nobody is left to send it.
    pub(super) fn wait_or<T>(&mut self, value: &Receiver<T>) -> Option<T> {
        let (terminate, interrupt) = (&mut self.terminate, &mut self.interrupt);
        self.runtime.block_on(async {
            let arrives = async {
                loop {
                    match value.try_recv() {
                        Ok(value) => return Some(value),
                        Err(std::sync::mpsc::TryRecvError::Disconnected) => return None,
                        Err(std::sync::mpsc::TryRecvError::Empty) => tokio::time::sleep(LOOK).await,
                    }
                }
            };
            tokio::select! {
                biased;
                value = arrives => value,
                _ = terminate.recv() => None,
                _ = interrupt.recv() => None,
            }
        })
    }
}

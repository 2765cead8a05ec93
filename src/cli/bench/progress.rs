//! The line that says how far it is.

use std::io::{self, IsTerminal, Write};

use super::report::count;

/// A line on standard error, written over once a second; nothing where nobody looks.
#[derive(Debug)]
pub(super) struct Progress {
    is_shown: bool,
    is_dirty: bool,
}

impl Progress {
    /// Shows itself on a terminal, unless it is to be quiet.
    pub(super) fn new(is_quiet: bool) -> Self {
        Self {
            is_shown: !is_quiet && io::stderr().is_terminal(),
            is_dirty: false,
        }
    }

    /// What is being done.
    pub(super) fn say(&mut self, what: &str) {
        if self.is_shown {
            self.is_dirty = true;
            let mut err = io::stderr().lock();
            // A terminal that is gone needs no progress.
            let _ = write!(err, "\r\x1b[K{what}").and_then(|()| err.flush());
        }
    }

    /// Traffic of the last second.
    pub(super) fn traffic(&mut self, name: &str, seconds: f64, left: f64, delivered: f64, on_the_way: u64) {
        let rate = count(delivered / seconds);
        self.say(&format!(
            "{name}: {left:.0} s left, {rate} delivered/s, {on_the_way} on the way"
        ));
    }

    /// Takes the line away.
    pub(super) fn clear(&mut self) {
        if std::mem::take(&mut self.is_dirty) {
            self.say("");
            self.is_dirty = false;
        }
    }
}

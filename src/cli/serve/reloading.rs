//! What SIGHUP and `sundew reload` do: users, rules and certificates count at once, all other options at the next start.

use std::path::PathBuf;

use crate::{
    backends::access::Fingerprint,
    config::{
        self, Layers, Loaded, Severity,
        waiting::{Written, waiting},
    },
    server::reload::{Reloaded, Reloader},
};

/// What the broker that runs was told, to see what is different now.
pub(super) struct Reloading {
    layers: Layers,
    /// The files of the configuration, and how they looked when they were read.
    files: Vec<PathBuf>,
    looked: Vec<Fingerprint>,
    /// What it was started with: all that waits for a restart is told each time.
    started: Written,
    /// What that is.
    waiting: Vec<String>,
}

impl Reloading {
    /// A start may take long: what is edited meanwhile is different from what was read.
    pub(super) fn new(layers: Layers, loaded: &Loaded) -> Self {
        Self {
            layers,
            looked: loaded.looked.clone(),
            files: loaded.files.clone(),
            started: loaded.written.clone(),
            waiting: Vec::new(),
        }
    }

    /// Users and rules all or none; certificates by themselves: what is wrong with one keeps no other from being renewed.
    pub(super) fn read_again(&mut self, reloader: &Reloader) -> Reloaded {
        tracing::info!("reading users, rules and certificates again");
        let mut told = Reloaded::default();
        if config::looks(&self.files) == self.looked {
            reloader.access(None, &mut told);
        } else {
            self.read_configuration(reloader, &mut told);
        }
        reloader.certificates(&mut told);
        told.waiting.clone_from(&self.waiting);
        told
    }

    fn read_configuration(&mut self, reloader: &Reloader, told: &mut Reloaded) {
        let loaded = match config::load(&self.layers) {
            Ok(loaded) => loaded,
            Err(problems) => {
                let first = problems.iter().find(|problem| problem.severity == Severity::Error);
                let first = first.map(ToString::to_string).unwrap_or_default();
                tracing::error!(
                    problems = problems.len(),
                    first,
                    "users and rules stay as they were: the configuration, or a file, is wrong"
                );
                told.refused.push(format!("users and rules stay as they were: {first}"));
                return;
            }
        };
        self.waiting = waiting(&self.started, &loaded.written);
        if !self.waiting.is_empty() {
            let options = self.waiting.join(", ");
            tracing::warn!(options, "changed in the configuration, and wait for a restart");
        }
        // What was not taken over is looked at the next time.
        if !reloader.access(Some(loaded.config.access_options()), told) {
            return;
        }
        (self.files, self.looked) = (loaded.files, loaded.looked);
    }
}

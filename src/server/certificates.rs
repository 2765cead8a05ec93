//! Certificates, keys, authorities and revocation lists of the listeners: watched, read again when they change, and taken for new connections.
//! Who is connected stays, also one whose certificate is in a new revocation list.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use time::OffsetDateTime;

use super::reload::Reloaded;
use crate::backends::access::Fingerprint;
use crate::transport::listener::ListenerShared;

/// Those of all listeners with TLS.
#[derive(Debug)]
pub(super) struct LiveCertificates(Mutex<Vec<Watched>>);

/// One listener.
#[derive(Debug)]
struct Watched {
    listener: Arc<ListenerShared>,
    files: Vec<PathBuf>,
    /// How they looked when they were read.
    read: Vec<Fingerprint>,
    /// At the last look: who replaces two files that belong together is waited for.
    seen: Vec<Fingerprint>,
}

impl LiveCertificates {
    /// Of these listeners, which have just read them.
    pub(super) fn new<'a>(listeners: impl Iterator<Item = &'a Arc<ListenerShared>>) -> Self {
        let watched = listeners.filter_map(|listener| {
            let files = listener.options().tls.as_ref()?.files();
            let looks: Vec<_> = files.iter().map(|file| Fingerprint::of(file)).collect();
            Some(Watched {
                listener: Arc::clone(listener),
                files,
                read: looks.clone(),
                seen: looks,
            })
        });
        Self(Mutex::new(watched.collect()))
    }

    /// Looks whether files have changed, and have come to rest since the last look; then reads those of their listener again. A mistake is
    /// told once.
    pub(super) fn look(&self) {
        for watched in self.0.lock().unwrap_or_else(PoisonError::into_inner).iter_mut() {
            let now = watched.looks();
            let is_at_rest = now == watched.seen;
            watched.seen.clone_from(&now);
            if is_at_rest && now != watched.read {
                watched.read_again(now, &mut Reloaded::default());
            }
        }
    }

    /// Reads all of them again, changed or not: one that is wrong keeps no other from being renewed.
    pub(super) fn reload(&self, told: &mut Reloaded) {
        for watched in self.0.lock().unwrap_or_else(PoisonError::into_inner).iter_mut() {
            let now = watched.looks();
            watched.read_again(now, told);
        }
    }
}

impl Watched {
    fn looks(&self) -> Vec<Fingerprint> {
        self.files.iter().map(|file| Fingerprint::of(file)).collect()
    }

    /// What changes while it is read looks different at the next look.
    fn read_again(&mut self, looks: Vec<Fingerprint>, told: &mut Reloaded) {
        self.read = looks;
        let listener = self.listener.name();
        if let Err(error) = self.listener.reload_tls() {
            tracing::error!(listener, "certificates stay as they were: {error}");
            told.refused.push(format!("certificates stay as they were: {error}"));
            return;
        }
        for certificate in self.listener.certificates() {
            let (file, serial) = (certificate.chain.display(), &certificate.serial);
            let end = OffsetDateTime::from_unix_timestamp(certificate.not_after);
            let until = end.map_or_else(|_| "?".to_owned(), |end| end.date().to_string());
            tracing::info!(listener, %file, serial, until, "certificates read again, for new connections");
            told.taken.push(format!(
                "listener {listener}: {file} read again: serial {serial}, until {until}"
            ));
        }
    }
}

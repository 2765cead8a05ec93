//! Certificates, keys, authorities and revocation lists of the listeners: watched, read again when they change, and taken for new connections.
//! Who is connected stays, but who has shown a certificate that a new revocation list names. The end of a certificate is told beforehand.

use std::mem;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use time::OffsetDateTime;
use tracing::{error, info, warn};

use super::reload::Reloaded;
use crate::backends::access::Fingerprint;
use crate::session::peer::ListenerRules;
use crate::transport::listener::{ListenError, ListenerShared};
use crate::transport::tls::{Revocations, TlsError};

/// Days before the end of a certificate on which that is told.
const DAYS: [i64; 4] = [30, 14, 7, 1];
const DAY_SECONDS: i64 = 24 * 60 * 60;

/// Those of all listeners with TLS.
#[derive(Debug)]
pub(super) struct LiveCertificates(Mutex<Vec<Watched>>);

/// One listener.
#[derive(Debug)]
struct Watched {
    listener: Arc<ListenerShared>,
    rules: Arc<ListenerRules>,
    files: Vec<PathBuf>,
    /// How they looked when they were read.
    read: Vec<Fingerprint>,
    /// At the last look: who replaces two files that belong together is waited for.
    seen: Vec<Fingerprint>,
    /// That a file cannot be read has been told, and is tried again.
    is_failing: bool,
    /// Of each certificate when it ends, and how often that has been told.
    told_ends: Vec<(i64, usize)>,
}

impl LiveCertificates {
    /// Of these listeners, which have just read them.
    pub(super) fn new<'a>(listeners: impl Iterator<Item = (&'a Arc<ListenerShared>, &'a Arc<ListenerRules>)>) -> Self {
        let watched = listeners.filter_map(|(listener, rules)| {
            let files = listener.options().tls.as_ref()?.files();
            let looks: Vec<_> = files.iter().map(|file| Fingerprint::of(file)).collect();
            let mut watched = Watched {
                listener: Arc::clone(listener),
                rules: Arc::clone(rules),
                files,
                read: looks.clone(),
                seen: looks,
                is_failing: false,
                told_ends: Vec::new(),
            };
            watched.tell_ends(now());
            Some(watched)
        });
        Self(Mutex::new(watched.collect()))
    }

    /// Looks whether files have changed, and have come to rest since the last look; then reads those of their listener again. A mistake is
    /// told once. Tells what ends soon, too. True where certificates of clients have been revoked: their workers have to know.
    pub(super) fn look(&self) -> bool {
        let mut has_revoked = false;
        for watched in self.0.lock().unwrap_or_else(PoisonError::into_inner).iter_mut() {
            let looks = watched.looks();
            let is_at_rest = looks == watched.seen;
            watched.seen.clone_from(&looks);
            if is_at_rest && looks != watched.read {
                has_revoked |= watched.read_again(looks, &mut Reloaded::default());
            }
            watched.tell_ends(now());
        }
        has_revoked
    }

    /// Reads all of them again, changed or not: one that is wrong keeps no other from being renewed. True as in [`Self::look`].
    pub(super) fn reload(&self, told: &mut Reloaded) -> bool {
        let mut has_revoked = false;
        for watched in self.0.lock().unwrap_or_else(PoisonError::into_inner).iter_mut() {
            let looks = watched.looks();
            has_revoked |= watched.read_again(looks, told);
            watched.tell_ends(now());
        }
        has_revoked
    }
}

impl Watched {
    fn looks(&self) -> Vec<Fingerprint> {
        self.files.iter().map(|file| Fingerprint::of(file)).collect()
    }

    /// What changes while it is read looks different at the next look. True where certificates of clients have been revoked.
    fn read_again(&mut self, looks: Vec<Fingerprint>, told: &mut Reloaded) -> bool {
        let before = mem::replace(&mut self.read, looks);
        let listener = self.listener.name();
        let revocations = match self.listener.reload_tls() {
            Ok(revocations) => revocations,
            Err(error) => {
                // Too many open files, a device that is away for a moment: the file will not look different when that is over.
                let was_failing = mem::replace(&mut self.is_failing, is_passing(&error));
                if self.is_failing {
                    self.read = before;
                }
                if !(self.is_failing && was_failing) {
                    error!(listener, "certificates stay as they were: {error}");
                }
                told.refused.push(format!("certificates stay as they were: {error}"));
                return false;
            }
        };
        self.is_failing = false;
        for certificate in self.listener.certificates() {
            let (file, serial) = (certificate.chain.display(), &certificate.serial);
            let until = date(certificate.not_after);
            info!(listener, %file, serial, until, "certificates read again, for new connections");
            told.taken.push(format!(
                "listener {listener}: {file} read again: serial {serial}, until {until}"
            ));
        }
        self.tell_lists(&revocations, now());
        self.rules.revoked.replace(revocations.revoked)
    }

    /// A list that has ended still counts, and should be told about: what was revoked since is not in it.
    fn tell_lists(&self, revocations: &Revocations, now: i64) {
        let Some(file) = self
            .listener
            .options()
            .tls
            .as_ref()
            .and_then(|tls| tls.client_crl.as_ref())
        else {
            return;
        };
        let (listener, file, revoked) = (self.listener.name(), file.display(), revocations.revoked.len());
        for end in &revocations.ends {
            match *end {
                None => {
                    warn!(listener, %file, revoked, "this revocation list counts, but when it ends is not known: it cannot be read")
                }
                Some(end) if end < now => {
                    warn!(listener, %file, revoked, since = date(end), "this revocation list has ended, and counts until there is a new one");
                }
                Some(end) => info!(listener, %file, revoked, until = date(end), "revocation list read again"),
            }
        }
    }

    fn tell_ends(&mut self, now: i64) {
        let certificates = self.listener.certificates();
        self.told_ends.resize(certificates.len(), (0, 0));
        for (one, told) in certificates.iter().zip(&mut self.told_ends) {
            let stage = stage(one.not_after, now);
            let already = if told.0 == one.not_after { told.1 } else { 0 };
            *told = (one.not_after, stage);
            if stage <= already {
                continue;
            }
            let (listener, file) = (self.listener.name(), one.chain.display());
            let seconds = (one.not_after - now).max(0).unsigned_abs();
            let days = seconds.div_ceil(DAY_SECONDS.unsigned_abs());
            if stage > DAYS.len() {
                error!(listener, %file, "this certificate has ended: clients turn away; renew it");
            } else {
                warn!(listener, %file, days, "this certificate ends soon; a new one counts as soon as it is there");
            }
        }
    }
}

/// True where it may be over without a change of the files.
const fn is_passing(error: &ListenError) -> bool {
    matches!(
        error,
        ListenError::Tls {
            source: TlsError::Read { .. },
            ..
        }
    )
}

/// A moment in seconds since 1970, for people.
fn date(seconds: i64) -> String {
    let moment = OffsetDateTime::from_unix_timestamp(seconds);
    moment.map_or_else(|_| "?".to_owned(), |moment| moment.date().to_string())
}

/// Seconds since 1970.
fn now() -> i64 {
    OffsetDateTime::now_utc().unix_timestamp()
}

/// How often the end of a certificate should have been told by now: never, or by each of [`DAYS`] that has come, and when it has ended.
fn stage(not_after: i64, now: i64) -> usize {
    let left = not_after.saturating_sub(now);
    let come = DAYS.iter().filter(|days| left <= **days * DAY_SECONDS).count();
    come + usize::from(left <= 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_told_thirty_fourteen_seven_and_one_day_before_and_when_it_has_come() {
        let ends = 400 * DAY_SECONDS;
        let mut told = Vec::new();
        let mut last = 0;
        for hour in 0..24 * 402 {
            let now = hour * 60 * 60;
            let stage = stage(ends, now);
            assert!(stage >= last);
            if stage > last {
                told.push((ends - now) / DAY_SECONDS);
            }
            last = stage;
        }
        assert_eq!(told, [30, 14, 7, 1, 0]);
        assert_eq!(stage(i64::MAX, i64::MIN), 0);
        assert_eq!(stage(0, i64::MAX), 5);
    }
}

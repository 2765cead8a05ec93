//! What is read again while the broker runs: users, rules and certificates. By the watch, at SIGHUP, and for `sundew reload`.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::certificates::LiveCertificates;
use crate::backends::access::{AccessOptions, LiveAccess};
use crate::broker::Broker;

/// Reads it again.
#[derive(Clone, Debug)]
pub struct Reloader {
    pub(super) access: Option<Arc<LiveAccess>>,
    pub(super) broker: Arc<Broker>,
    pub(super) certificates: Arc<LiveCertificates>,
}

/// What became of it, a line each.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// What counts now.
    pub taken: Vec<String>,
    /// What stays as it was, and why.
    pub refused: Vec<String>,
    /// Options that have changed and wait for a restart, by name.
    pub waiting: Vec<String>,
}

/// What is done for `sundew reload`.
#[derive(Clone)]
pub struct OnReload(pub Arc<dyn Fn(&Reloader) -> Reloaded + Send + Sync>);

impl fmt::Debug for OnReload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnReload")
    }
}

impl Reloader {
    /// All files, and no other options.
    pub fn files(&self) -> Reloaded {
        let mut told = Reloaded::default();
        self.access(None, &mut told);
        self.certificates(&mut told);
        told
    }

    /// Users and rules, all or none, and, where there are, with other options; clients that may not be here any more are told to go. False
    /// when something is wrong, which the log tells, too, or where the broker has none.
    pub fn access(&self, options: Option<AccessOptions>, told: &mut Reloaded) -> bool {
        let Some(access) = &self.access else { return false };
        match access.reload(options) {
            Ok(rules) => {
                self.broker.access_changed();
                told.taken.push(format!("users and rules read again: {rules} rules"));
                true
            }
            Err(error) => {
                told.refused.push(format!("users and rules stay as they were: {error}"));
                false
            }
        }
    }

    /// Certificates, keys, authorities and revocation lists of all listeners, for new connections; who is connected stays, but who has shown
    /// a certificate that is revoked now. Where those of a
    /// listener are wrong it keeps what it has.
    pub fn certificates(&self, told: &mut Reloaded) {
        if self.certificates.reload(told) {
            self.broker.certificates_revoked();
        }
    }

    /// What has changed and come to rest.
    pub(super) fn look(&self) {
        if self.access.as_ref().is_some_and(|access| access.look()) {
            self.broker.access_changed();
        }
        if self.certificates.look() {
            self.broker.certificates_revoked();
        }
    }
}

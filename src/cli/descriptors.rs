//! How many connections the system allows.

use std::io;

/// Descriptors that connections never take: listeners, the log, files, and some to answer with.
const RESERVE: usize = 64;

/// How many connections there may be at once, and why.
#[derive(Debug)]
pub(super) struct Connections {
    /// As many as this.
    pub(super) max: usize,
    /// What the operator wants; `usize::MAX`: as many as possible.
    configured: usize,
    /// What the system allows.
    descriptors: io::Result<usize>,
}

impl Connections {
    /// Raises the limit of descriptors as far as it goes: that allows `configured` connections, or fewer.
    pub(super) fn allowed(configured: usize) -> Self {
        let to_usize = |descriptors| usize::try_from(descriptors).unwrap_or(usize::MAX);
        let descriptors = rlimit::increase_nofile_limit(u64::MAX).map(to_usize);
        let possible = descriptors
            .as_ref()
            .map_or(usize::MAX, |descriptors| possible(*descriptors));
        Self {
            max: configured.min(possible),
            configured,
            descriptors,
        }
    }

    /// Says so in the log.
    pub(super) fn report(&self) {
        match &self.descriptors {
            Err(error) => tracing::warn!(%error, "the limit of descriptors cannot be raised"),
            Ok(descriptors) => {
                tracing::info!(connections_max = self.max, descriptors, "ready");
                if self.configured != usize::MAX && self.configured > self.max {
                    tracing::warn!(
                        configured = self.configured,
                        descriptors,
                        "limits.connections_max is more than the system allows; raise its limit of descriptors (ulimit -Hn, or \
                         LimitNOFILE= in the service unit)"
                    );
                }
            }
        }
    }
}

/// One descriptor a connection, less the reserve; never none.
fn possible(descriptors: usize) -> usize {
    descriptors.saturating_sub(RESERVE).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_a_reserve_of_descriptors() {
        assert_eq!(possible(20_000), 19_936);
        assert_eq!(possible(10), 1);
        let most = Connections::allowed(usize::MAX).max;
        assert_eq!(Connections::allowed(7).max, 7);
        assert_eq!(Connections::allowed(most.saturating_add(1)).max, most);
    }
}

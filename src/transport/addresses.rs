//! How many connections each address has at a listener, and how fast they come, where that is limited.

use std::collections::HashMap;
use std::net::IpAddr;

use foldhash::fast::RandomState;

use crate::protocol::bucket::Bucket;
use crate::protocol::time::Time;
use crate::session::network::source;

/// Addresses that are not looked through for those that say nothing any more.
const SPARE: usize = 1024;

/// The addresses of one listener.
#[derive(Debug)]
pub(super) struct Addresses {
    connections_max: u32,
    per_second: Option<u64>,
    entries: HashMap<IpAddr, Entry, RandomState>,
    /// Entries at which they are looked through.
    sweep_at: usize,
}

#[derive(Debug, Default)]
struct Entry {
    connections: u32,
    bucket: Bucket,
}

/// What an address has too much of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Beyond {
    /// Connections at once.
    Connections,
    /// Connections in a second.
    Rate,
}

impl Beyond {
    /// The option that says so.
    pub(super) const fn option(self) -> &'static str {
        match self {
            Self::Connections => "connections_per_address_max",
            Self::Rate => "connect_rate_per_address_max",
        }
    }
}

impl Addresses {
    /// `None` where nothing is limited.
    pub(super) fn new(connections_max: Option<u32>, per_second: Option<u64>) -> Option<Self> {
        (connections_max.is_some() || per_second.is_some()).then(|| Self {
            connections_max: connections_max.unwrap_or(u32::MAX),
            per_second,
            entries: HashMap::default(),
            sweep_at: SPARE,
        })
    }

    /// One more connection, which [`Addresses::leave`] gives back.
    pub(super) fn enter(&mut self, ip: IpAddr, now: Time) -> Result<(), Beyond> {
        if self.entries.len() >= self.sweep_at {
            self.entries
                .retain(|_, entry| entry.connections > 0 || !entry.bucket.is_full(now));
            self.sweep_at = SPARE.max(2 * self.entries.len());
        }
        let entry = self.entries.entry(source(ip)).or_default();
        if entry.connections >= self.connections_max {
            return Err(Beyond::Connections);
        }
        if let Some(per_second) = self.per_second {
            entry.bucket.take(1, per_second, now).map_err(|_| Beyond::Rate)?;
        }
        entry.connections += 1;
        Ok(())
    }

    /// A connection has gone.
    pub(super) fn leave(&mut self, ip: IpAddr, now: Time) {
        let source = source(ip);
        if let Some(entry) = self.entries.get_mut(&source) {
            entry.connections = entry.connections.saturating_sub(1);
            if entry.connections == 0 && entry.bucket.is_full(now) {
                self.entries.remove(&source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn each_address_has_its_own_number_and_rate_and_ipv6_by_its_network() {
        assert!(Addresses::new(None, None).is_none());
        let mut addresses = Addresses::new(Some(3), Some(2)).unwrap();
        let (one, same, other) = (ip("2001:db8::1"), ip("2001:db8::2"), ip("2001:db8:0:1::1"));
        assert_eq!(addresses.enter(one, Time(1)), Ok(()));
        assert_eq!(addresses.enter(same, Time(1)), Ok(()));
        assert_eq!(addresses.enter(one, Time(1)), Err(Beyond::Rate));
        assert_eq!(addresses.enter(other, Time(1)), Ok(()));
        assert_eq!(addresses.enter(one, Time(2000)), Ok(()));
        assert_eq!(addresses.enter(one, Time(3000)), Err(Beyond::Connections));
        addresses.leave(same, Time(3000));
        assert_eq!(addresses.enter(one, Time(3000)), Ok(()));
    }

    #[test]
    fn addresses_that_are_gone_are_forgotten() {
        let mut addresses = Addresses::new(None, Some(1)).unwrap();
        for number in 0..1_000_000u32 {
            let (ip, now) = (IpAddr::from(number.to_be_bytes()), Time(u64::from(number)));
            addresses.enter(ip, now).unwrap();
            addresses.leave(ip, now);
        }
        assert!(
            addresses.entries.len() <= 2 * SPARE + 2000,
            "{}",
            addresses.entries.len()
        );
    }
}

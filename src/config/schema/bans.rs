//! Who is kept out for a while.

use core::time::Duration;

use super::seconds;
use crate::config::{
    option::section,
    value::{Limit, Network, Scalar},
};

section! {
    /// Who is kept out for a while.
    pub struct Bans {
        /// Wrong passwords (tokens, proofs) of one user name from one address within `window`, after which that user name is refused from
        /// there (0x8A, 5) before its password is looked at; from elsewhere it is not. Cost: who mistypes so often waits.
        failures_max: Limit = Limit(10), in Limit(1) => Limit::UNLIMITED;
        /// Wrong passwords from one address, whatever the user names, after which its connections are closed unread; ten times as many
        /// where clients are connected from there, since a router is one address for all behind it. IPv6: a /64 is one address.
        /// Cost: everybody behind that address is kept out.
        address_failures_max: Limit = Limit(50), in Limit(1) => Limit::UNLIMITED;
        /// Within how long, from the first one on. Cost: none.
        window: Duration = seconds(60), in seconds(1) => seconds(86_400);
        /// How long the first ban lasts; each that follows soon is twice as long. Cost: none.
        time: Duration = seconds(300), in seconds(1) => seconds(86_400);
        /// The longest ban; after as long without one it begins with `time` again. Cost: none.
        time_max: Duration = seconds(3600), in seconds(1) => seconds(30 * 86_400);
        /// How often one client (client id, user and address) may connect within `connects_window`; more often, and it is banned like the
        /// others. Default: unlimited, since a device on a bad radio that comes back every few seconds, and a script that publishes in a
        /// loop, are to be served. 15 is what EMQX takes. Cost: a lock for each CONNECT.
        connects_max: Limit = Limit::UNLIMITED, in Limit(1) => Limit::UNLIMITED;
        /// See there. Cost: none.
        connects_window: Duration = seconds(60), in seconds(1) => seconds(86_400);
        /// Addresses, or blocks of them, that only `sundew ban add` bans. Unix sockets are never banned. Cost: passwords can be guessed
        /// from there as fast as they can be checked.
        exempt: Vec<Network> = ["127.0.0.0/8", "::1"].into_iter().filter_map(Network::from_text).collect();
        /// Addresses and user names that are counted at once; beyond, the oldest is forgotten. Cost: about 150 bytes each.
        entries_max: u32 = 65_536, in 16 => 100_000_000;
    }
}

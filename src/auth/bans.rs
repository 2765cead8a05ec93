//! Who is kept out for a while: addresses and users that tried wrong passwords, clients that come and go without end, and whom an
//! administrator has banned. A pure data structure: time is an argument, so what a ban lasts can be told in a test.
//!
//! A wrong password counts twice: for its user name *from that address*, and for the address. So nobody locks a user out from elsewhere,
//! and one device with an old password, behind an address that it shares with a whole house, keeps only itself out; an address is
//! banned where many more fail than that. IPv6 addresses count by /64, which is what one customer is given.

use core::fmt;
use core::hash::BuildHasher;
use core::net::IpAddr;
use std::collections::{HashMap, VecDeque};

use foldhash::fast::RandomState;

use super::way::TOKEN_TOO_LARGE;
use crate::protocol::time::Time;
use crate::session::network::{Network, source};

#[cfg(test)]
mod tests;

/// Why a client is refused that is banned: the word in the log.
pub const BANNED: &str = "banned";
/// Bans by administrators at most: each is looked at for each connection.
pub const ORDERS_MAX: usize = 1000;
/// Bytes of a name that are kept of a ban, to be shown.
const NAME_BYTES_MAX: usize = 128;
/// How many times as many failures a shared address has before it is banned: a house full of old passwords stays below it, and still
/// nobody can guess without end.
const SHARED_TIMES: u32 = 10;
/// Entries whose bans still run that are passed over for one that makes room.
const SPARED_MAX: usize = 4;

/// Reasons of refusals (see [`super::Refusal::why`]) that are wrong guesses. One whose token has expired, or who shows none at all, has
/// guessed nothing, and devices do it all day.
const GUESSES: &[&str] = &[
    "bad_password",
    "unknown_user",
    "only_scram",
    "no_scram_credential",
    "auth_malformed",
    "auth_nonce",
    "channel_binding",
    "no_token",
    "token_signature",
    "token_algorithm",
    "token_malformed",
    TOKEN_TOO_LARGE,
    "backend_refused",
];

/// Whether a refusal for this reason counts as a wrong password.
pub fn is_guess(why: &str) -> bool {
    GUESSES.contains(&why)
}

/// When somebody is banned, and for how long.
#[derive(Clone, Debug)]
pub struct BanOptions {
    /// Wrong passwords of one user name from one address within [`BanOptions::window_ms`] that ban it there; default 10.
    /// `u32::MAX`: never. More than a person mistypes, and too few to guess with.
    pub failures_max: u32,
    /// Wrong passwords from one address, whatever the user names; default 50. `u32::MAX`: never. Five devices with old passwords behind
    /// one address stay below it.
    pub address_failures_max: u32,
    /// Within how long, milliseconds; default a minute, from the first one on.
    pub window_ms: u64,
    /// The first ban, milliseconds; default 5 minutes. Each that follows within [`BanOptions::time_max_ms`] of the end of the last is
    /// twice as long.
    pub time_ms: u64,
    /// The longest ban, milliseconds; default an hour.
    pub time_max_ms: u64,
    /// Times that one client (client id, user name and address) may connect within [`BanOptions::connects_window_ms`]; default
    /// `u32::MAX`: as often as it likes, since a device on a bad radio, or a script that publishes in a loop, does no harm.
    pub connects_max: u32,
    /// Within how long, milliseconds; default a minute.
    pub connects_window_ms: u64,
    /// Who is never banned, but by an administrator; default this machine: 127.0.0.0/8 and ::1. Unix sockets have no address, and are
    /// never banned.
    pub exempt: Vec<Network>,
    /// Addresses, users and clients that are counted at once; default 65,536, some 100 bytes each. Beyond, the oldest is forgotten.
    pub entries_max: usize,
}

impl Default for BanOptions {
    fn default() -> Self {
        Self {
            failures_max: 10,
            address_failures_max: 50,
            window_ms: 60_000,
            time_ms: 300_000,
            time_max_ms: 3_600_000,
            connects_max: u32::MAX,
            connects_window_ms: 60_000,
            exempt: ["127.0.0.0/8", "::1"]
                .iter()
                .filter_map(|text| text.parse().ok())
                .collect(),
            entries_max: 65_536,
        }
    }
}

/// Whom an administrator bans.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    /// Whoever comes from there.
    Network(Network),
    /// Whoever is, or says that he is, this user.
    User(Box<str>),
    /// Whoever has this client id.
    Client(Box<str>),
}

impl Subject {
    /// Whether somebody is meant by it.
    pub fn is(&self, ip: Option<IpAddr>, user: Option<&str>, client_id: &str) -> bool {
        match self {
            Self::Network(network) => ip.is_some_and(|ip| network.contains(ip)),
            Self::User(name) => user == Some(name),
            Self::Client(name) => client_id == &**name,
        }
    }
}

/// What a ban is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum About {
    /// An administrator said so.
    Order(Subject),
    /// An address: an IPv6 one with the lower 64 bits zero.
    Address(IpAddr),
    /// A user from an address.
    Login(IpAddr, Box<str>),
    /// A client from an address: its client id.
    Client(IpAddr, Box<str>),
}

impl About {
    /// An address that was counted, as it is shown: an IPv6 one is a network.
    pub fn source(source: IpAddr) -> String {
        match source {
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => format!("{ip}/64"),
        }
    }
}

/// Short for an operator: `address=10.0.0.7 user="alice"`.
impl fmt::Display for About {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Order(Subject::Network(network)) => write!(f, "address={network}"),
            Self::Order(Subject::User(user)) => write!(f, "user={user:?}"),
            Self::Order(Subject::Client(client)) => write!(f, "client={client:?}"),
            Self::Address(ip) => write!(f, "address={}", Self::source(*ip)),
            Self::Login(ip, user) => write!(f, "address={} user={user:?}", Self::source(*ip)),
            Self::Client(ip, client) => write!(f, "address={} client={client:?}", Self::source(*ip)),
        }
    }
}

/// One ban.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ban {
    /// Whom.
    pub about: About,
    /// How long; [`Time::NEVER`]: until it is lifted.
    pub until: Time,
    /// What brought it: wrong passwords, or connections, in the window; 0 for an administrator's.
    pub count: u32,
    /// What the administrator noted.
    pub note: Box<str>,
}

/// There are [`ORDERS_MAX`] bans by administrators already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there are {ORDERS_MAX} bans by administrators already; lift some, or leave whole networks to the firewall")]
pub struct TooManyOrders;

/// Everybody who is banned, and everybody who may be soon.
#[derive(Debug)]
pub struct Bans {
    options: BanOptions,
    hasher: RandomState,
    /// By the hash of what is counted: names come from strangers and may be long.
    entries: HashMap<u64, Entry, RandomState>,
    /// The keys of `entries`, oldest first, but for those that were spared.
    ages: VecDeque<u64>,
    /// By administrators.
    orders: Vec<Ban>,
    /// No ban ends later.
    latest: Time,
}

/// What is counted of one address, user or client.
#[derive(Debug)]
struct Entry {
    source: IpAddr,
    since: Time,
    count: u32,
    /// Bans one after the other.
    bans: u32,
    /// The last ban's end; zero where there was none.
    until: Time,
    /// For the list; made when it is banned.
    about: Option<Box<About>>,
}

/// What is counted, as the key of an entry.
#[derive(Clone, Copy, Hash)]
enum Counted<'a> {
    Address(IpAddr),
    Login(IpAddr, &'a str),
    Client(IpAddr, &'a str, Option<&'a str>),
}

impl Bans {
    /// Nobody is banned.
    pub fn new(options: BanOptions) -> Self {
        Self {
            options,
            hasher: RandomState::default(),
            entries: HashMap::default(),
            ages: VecDeque::new(),
            orders: Vec::new(),
            latest: Time(0),
        }
    }

    /// No ban that is there now ends later than this: before it was asked for, nobody has to be looked for.
    pub const fn latest(&self) -> Time {
        self.latest
    }

    /// A wrong password. Returns the bans that it has brought. An address may have ten times as many where `is_shared` says that others are
    /// connected from there: behind a router or a proxy, one who guesses would keep all of them out.
    pub fn failed(&mut self, ip: IpAddr, user: Option<&str>, is_shared: impl FnOnce() -> bool, now: Time) -> Vec<Ban> {
        if self.is_exempt(ip) {
            return Vec::new();
        }
        let (window, source) = (self.options.window_ms, source(ip));
        let (of_user, of_address) = (self.options.failures_max, self.options.address_failures_max);
        let by_user = user.and_then(|user| self.count(Counted::Login(source, user), of_user, window, now, |_| false));
        let is_excused = |count| count < of_address.saturating_mul(SHARED_TIMES) && is_shared();
        let by_address = self.count(Counted::Address(source), of_address, window, now, is_excused);
        by_user.into_iter().chain(by_address).collect()
    }

    /// A client was let in. Returns the ban that this has brought, if it comes too often.
    pub fn connected(&mut self, ip: IpAddr, client_id: &str, user: Option<&str>, now: Time) -> Option<Ban> {
        let max = self.options.connects_max;
        if max == u32::MAX || self.is_exempt(ip) {
            return None;
        }
        let counted = Counted::Client(source(ip), client_id, user);
        let window = self.options.connects_window_ms;
        self.count(counted, max.saturating_add(1), window, now, |_| false)
    }

    /// Until when everybody from an address is banned.
    pub fn address(&self, ip: IpAddr, now: Time) -> Option<Time> {
        let by_count = self.until(Counted::Address(source(ip)), now);
        let by_order = self.ordered(
            |subject| matches!(subject, Subject::Network(network) if network.contains(ip)),
            now,
        );
        by_count.max(by_order)
    }

    /// Until when somebody is banned who wants to connect.
    pub fn client(&self, ip: Option<IpAddr>, user: Option<&str>, client_id: &str, now: Time) -> Option<Time> {
        let ordered = self.ordered(|subject| subject.is(ip, user, client_id), now);
        let Some(source) = ip.map(source) else { return ordered };
        let login = user.and_then(|user| self.until(Counted::Login(source, user), now));
        let client = self.until(Counted::Client(source, client_id, user), now);
        let address = self.until(Counted::Address(source), now);
        ordered.max(login).max(client).max(address)
    }

    /// An administrator bans somebody, or says again how long.
    ///
    /// # Errors
    /// [`TooManyOrders`].
    pub fn add(&mut self, subject: Subject, until: Time, note: Box<str>, now: Time) -> Result<(), TooManyOrders> {
        let about = About::Order(subject);
        self.orders.retain(|order| order.until > now && order.about != about);
        if self.orders.len() >= ORDERS_MAX {
            return Err(TooManyOrders);
        }
        self.orders.push(Ban {
            about,
            until,
            count: 0,
            note,
        });
        self.find_latest();
        Ok(())
    }

    /// Lifts every ban of an address, user or client, whoever made it, and forgets what was counted for it. Of a network: those of the
    /// addresses in it. Returns how many bans there were.
    pub fn lift(&mut self, subject: &Subject, now: Time) -> usize {
        let before = self.orders.iter().filter(|order| order.until > now).count();
        self.orders
            .retain(|order| order.until > now && order.about != About::Order(subject.clone()));
        let mut lifted = before - self.orders.len();
        for entry in self.entries.values_mut() {
            let is_meant = match (subject, entry.about.as_deref()) {
                (Subject::Network(network), _) => network.contains(entry.source),
                (Subject::User(name), Some(About::Login(_, user))) => *user == cut(name),
                (Subject::Client(name), Some(About::Client(_, client))) => *client == cut(name),
                _ => false,
            };
            if is_meant {
                lifted += usize::from(entry.until > now);
                (entry.count, entry.bans, entry.until, entry.about) = (0, 0, Time(0), None);
            }
        }
        self.find_latest();
        lifted
    }

    /// A ban that is gone, or shorter than it was, may have been the one that ends last.
    fn find_latest(&mut self) {
        let ordered = self.orders.iter().map(|order| order.until);
        let counted = self.entries.values().map(|entry| entry.until);
        self.latest = ordered.chain(counted).max().unwrap_or(Time(0));
    }

    /// Every ban there is: those of administrators first, then the others, by about their age.
    pub fn list(&self, now: Time) -> Vec<Ban> {
        let counted = self.ages.iter().filter_map(|key| self.entries.get(key));
        let counted = counted.filter_map(|entry| {
            Some(Ban {
                about: *entry.about.clone()?,
                until: entry.until,
                count: entry.count,
                note: "".into(),
            })
        });
        self.orders()
            .cloned()
            .chain(counted)
            .filter(|ban| ban.until > now)
            .collect()
    }

    /// Those of administrators.
    pub fn orders(&self) -> impl Iterator<Item = &Ban> {
        self.orders.iter()
    }

    fn is_exempt(&self, ip: IpAddr) -> bool {
        self.options.exempt.iter().any(|network| network.contains(ip))
    }

    fn ordered(&self, is_meant: impl Fn(&Subject) -> bool, now: Time) -> Option<Time> {
        let meant = self
            .orders
            .iter()
            .filter(|order| order.until > now && matches!(&order.about, About::Order(subject) if is_meant(subject)));
        meant.map(|order| order.until).max()
    }

    fn until(&self, counted: Counted<'_>, now: Time) -> Option<Time> {
        let entry = self.entries.get(&self.hasher.hash_one(counted))?;
        (entry.until > now).then_some(entry.until)
    }

    /// Counts one; the `max`th within the window brings a ban, or, where `is_excused` says so of that count, the next multiple of it.
    fn count(
        &mut self,
        counted: Counted<'_>,
        max: u32,
        window_ms: u64,
        now: Time,
        is_excused: impl FnOnce(u32) -> bool,
    ) -> Option<Ban> {
        if max == u32::MAX {
            return None;
        }
        let key = self.hasher.hash_one(counted);
        if !self.entries.contains_key(&key) {
            self.make_room(now);
            self.ages.push_back(key);
        }
        let (time_ms, time_max_ms) = (self.options.time_ms, self.options.time_max_ms);
        let entry = self
            .entries
            .entry(key)
            .or_insert_with(|| Entry::new(counted.source(), now));
        if entry.until > now {
            return None; // it was on its way when the ban came
        }
        if entry.count == 0 || now.millis_since(entry.since) >= window_ms {
            (entry.since, entry.count) = (now, 0);
        }
        entry.count += 1;
        if !entry.count.is_multiple_of(max.max(1)) || is_excused(entry.count) {
            return None;
        }
        if now >= entry.until.plus_millis(time_max_ms) {
            entry.bans = 0;
        }
        let length = time_ms.saturating_mul(1 << entry.bans.min(32)).min(time_max_ms);
        entry.bans += 1;
        entry.until = now.plus_millis(length);
        let ban = Ban {
            about: counted.about(),
            until: entry.until,
            count: entry.count,
            note: "".into(),
        };
        entry.about = Some(Box::new(ban.about.clone()));
        (entry.since, entry.count) = (now, 0);
        self.latest = self.latest.max(entry.until);
        Some(ban)
    }

    /// For one more: the oldest go that are of no meaning any more, and, when there are too many, the oldest whose ban does not run. A
    /// few whose bans do are spared, and no more: whoever fills the table with bans is not to cost much time.
    fn make_room(&mut self, now: Time) {
        let mut spared = 0;
        while let Some(oldest) = self.ages.front().copied() {
            let entry = self.entries.get(&oldest);
            let is_over = entry.is_none_or(|entry| self.is_over(entry, now));
            let is_running = entry.is_some_and(|entry| entry.until > now);
            if !is_over && self.entries.len() < self.options.entries_max.max(1) {
                return;
            }
            self.ages.pop_front();
            if is_running && spared < SPARED_MAX {
                spared += 1;
                self.ages.push_back(oldest);
                continue;
            }
            self.entries.remove(&oldest);
        }
    }

    /// Whether an entry says nothing any more.
    fn is_over(&self, entry: &Entry, now: Time) -> bool {
        let window_ms = self.options.window_ms.max(self.options.connects_window_ms);
        let is_forgiven = entry.bans == 0 || now >= entry.until.plus_millis(self.options.time_max_ms);
        is_forgiven && now.millis_since(entry.since) >= window_ms
    }
}

impl Entry {
    const fn new(source: IpAddr, now: Time) -> Self {
        Self {
            source,
            since: now,
            count: 0,
            bans: 0,
            until: Time(0),
            about: None,
        }
    }
}

impl Counted<'_> {
    const fn source(&self) -> IpAddr {
        match self {
            Self::Address(source) | Self::Login(source, _) | Self::Client(source, ..) => *source,
        }
    }

    fn about(&self) -> About {
        match self {
            Self::Address(source) => About::Address(*source),
            Self::Login(source, user) => About::Login(*source, cut(user)),
            Self::Client(source, client, _) => About::Client(*source, cut(client)),
        }
    }
}

fn cut(name: &str) -> Box<str> {
    name[..name.floor_char_boundary(NAME_BYTES_MAX)].into()
}

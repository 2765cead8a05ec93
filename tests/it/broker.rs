//! The broker under test, and the settings that every story is told in.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use sundew::broker::Parts;
use sundew::protocol::version::Version;
use sundew::server::{Server, ServerOptions};
use sundew::session::peer::ListenerRules;
use sundew::storage::disk::StorageOptions;
use sundew::transport::accept::Placement;
use sundew::transport::options::{ListenAddress, ListenerOptions};

use crate::client::Client;
use crate::wire::Connect;

/// A broker that listens on ports of its own.
pub(crate) struct Broker {
    /// TCP.
    pub(crate) port: u16,
    pub(crate) server: Server,
}

impl Broker {
    /// Starts a broker with that many workers, connections spread one after the other, on a port of the system's choice.
    pub(crate) fn start(workers: usize, set: impl FnOnce(&mut ServerOptions, &mut Parts)) -> Self {
        let any_port = ListenAddress::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        let listener = ListenerOptions {
            addresses: vec![any_port],
            ..ListenerOptions::default()
        };
        let mut options = ServerOptions {
            listeners: vec![(listener, ListenerRules::default())],
            workers,
            placement: Placement::RoundRobin,
            ..ServerOptions::default()
        };
        let mut parts = Parts::default();
        set(&mut options, &mut parts);
        let server = Server::start(options, parts).expect("the broker starts");
        let port = server.addresses()[0].1.first().map_or(0, SocketAddr::port);
        Self { port, server }
    }

    /// The same with two workers and with a store in a directory.
    pub(crate) fn keeping(directory: &Path, set: impl FnOnce(&mut ServerOptions)) -> Self {
        Self::start(2, |options, _| {
            options.storage = Some(StorageOptions::in_directory(directory));
            set(options);
        })
    }

    /// A connection on which nothing has been sent.
    pub(crate) fn open(&self, version: Version) -> Client {
        Client::open(self.port, version)
    }

    /// A client that has connected with a clean start.
    pub(crate) fn client(&self, client_id: &str, version: Version) -> Client {
        self.connect(
            version,
            &Connect {
                client_id,
                ..Connect::default()
            },
        )
        .0
    }

    /// A client that has connected, and session present.
    pub(crate) fn connect(&self, version: Version, connect: &Connect<'_>) -> (Client, bool) {
        let mut client = self.open(version);
        let session_present = client.connect(connect);
        (client, session_present)
    }
}

/// Numbers of workers that every story is told with. Four spread their connections one after the other.
const WORKERS: [usize; 2] = [1, 4];

/// Versions that most stories are told in.
pub(crate) const BOTH: &[Version] = &[Version::V311, Version::V5];
/// Versions of stories about sessions and messages that older devices rely on, too.
pub(crate) const ALL: &[Version] = &Version::ALL;
/// Stories about what only 5.0 has.
pub(crate) const V5: &[Version] = &[Version::V5];
/// Stories about what 5.0 changed.
pub(crate) const BEFORE_5: &[Version] = &[Version::V31, Version::V311];
/// Stories about what 3.1.1 has and neither of the others.
pub(crate) const V311: &[Version] = &[Version::V311];

/// Tells a story in each version, with one worker and with four, each time to a new broker with default options.
pub(crate) fn story(versions: &[Version], tell: impl Fn(&Broker, Version)) {
    story_with(|_, _| {}, versions, tell);
}

/// The same with other options or parts.
pub(crate) fn story_with(
    set: impl Fn(&mut ServerOptions, &mut Parts),
    versions: &[Version],
    tell: impl Fn(&Broker, Version),
) {
    for workers in WORKERS {
        for version in versions {
            let _setting = Setting {
                workers,
                version: *version,
            };
            let broker = Broker::start(workers, &set);
            tell(&broker, *version);
        }
    }
}

/// Says in which setting a story failed.
struct Setting {
    workers: usize,
    version: Version,
}

impl Drop for Setting {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("in MQTT {}, with {} worker(s)", self.version.name(), self.workers);
        }
    }
}

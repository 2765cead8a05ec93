use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::{UnixListener, UnixStream};

use super::*;

fn tcp(addresses: Vec<SocketAddr>) -> ListenerOptions {
    ListenerOptions {
        name: "test".to_owned(),
        addresses: addresses.into_iter().map(ListenAddress::Tcp).collect(),
        ..ListenerOptions::default()
    }
}

fn loopback() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

#[test]
fn accepts_on_all_its_addresses() {
    let mut listener = Listener::bind(tcp(vec![loopback(), loopback()])).unwrap();
    let addresses = listener.local_addresses();
    assert_eq!(addresses.len(), 2);
    assert_ne!(addresses[0].port(), addresses[1].port());
    runtime().block_on(async {
        listener.attach().unwrap();
        for address in addresses {
            let client = TcpStream::connect(address).unwrap();
            let accepted = listener.accept().await;
            assert_eq!(accepted.peer.address, Address::Ip(client.local_addr().unwrap()));
            assert_eq!(listener.shared().connections(), 1);
        }
    });
    assert_eq!(listener.shared().connections(), 0);
}

#[test]
fn accepted_sockets_inherit_the_options_of_the_listener() {
    let mut listener = Listener::bind(tcp(vec![loopback()])).unwrap();
    runtime().block_on(async {
        listener.attach().unwrap();
        let _client = TcpStream::connect(listener.local_addresses()[0]).unwrap();
        let Socket::Tcp(socket) = listener.accept().await.socket else {
            panic!("not TCP")
        };
        let socket = socket2::SockRef::from(&socket);
        assert!(socket.tcp_nodelay().unwrap());
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(60));
        #[cfg(target_os = "linux")]
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(Duration::from_secs(60)));
    });
}

#[test]
fn beyond_connections_max_new_connections_are_closed() {
    let mut listener = Listener::bind(ListenerOptions {
        connections_max: 1,
        ..tcp(vec![loopback()])
    })
    .unwrap();
    let address = listener.local_addresses()[0];
    runtime().block_on(async {
        listener.attach().unwrap();
        let metrics = Arc::new(CachePadded::new(Metrics::default()));
        listener.counts_in(Arc::clone(&metrics));
        let _first_client = TcpStream::connect(address).unwrap();
        let first = listener.accept().await;
        let mut second_client = TcpStream::connect(address).unwrap();
        // Nothing comes of the second; accept() reads it away and waits.
        let waiting = tokio::time::timeout(Duration::from_millis(50), listener.accept()).await;
        assert!(waiting.is_err());
        assert_eq!(second_client.read(&mut [0]).unwrap(), 0);
        assert_eq!(metrics.limit_connections.get(), 1);
        drop(first);
        let _third_client = TcpStream::connect(address).unwrap();
        listener.accept().await;
    });
}

#[test]
fn a_port_in_use_names_who_holds_it() {
    let first = Listener::bind(tcp(vec![loopback()])).unwrap();
    let error = Listener::bind(tcp(first.local_addresses())).unwrap_err();
    let ListenError::AddressInUse { holder, .. } = &error else {
        panic!("{error}")
    };
    if cfg!(target_os = "linux") {
        assert!(
            holder.ends_with(&format!("(process {})", std::process::id())),
            "{holder}"
        );
    }
    assert!(!error.to_string().contains('\n'));
}

#[test]
fn an_address_of_another_machine_is_refused_with_advice() {
    let error = Listener::bind(tcp(vec!["192.0.2.1:1883".parse().unwrap()])).unwrap_err();
    assert!(matches!(error, ListenError::NotAvailable { .. }), "{error}");
    assert!(matches!(
        Listener::bind(tcp(vec![])),
        Err(ListenError::NoAddress { .. })
    ));
}

#[test]
fn a_unix_socket_replaces_its_dead_predecessor_only() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mqtt.sock");
    let unix = ListenAddress::Unix {
        path: path.clone(),
        mode: 0o600,
    };
    let options = ListenerOptions {
        addresses: vec![ListenAddress::Tcp(loopback()), unix],
        ..ListenerOptions::default()
    };
    drop(UnixListener::bind(&path).unwrap()); // leaves its file behind
    let mut listener = Listener::bind(options.clone()).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    assert!(matches!(Listener::bind(options), Err(ListenError::PathInUse { .. })));
    runtime().block_on(async {
        listener.attach().unwrap();
        let mut client = UnixStream::connect(&path).unwrap();
        client.write_all(b"x").unwrap();
        assert_eq!(listener.accept().await.peer.address, Address::Unix);
    });
    drop(listener);
    assert!(!path.exists());
}

/// Runs itself in a process of its own, because the limit of descriptors is the process's.
#[test]
fn out_of_descriptors_connections_are_closed_and_accepting_goes_on() {
    const CHILD: &str = "SUNDEW_TEST_OUT_OF_DESCRIPTORS";
    if std::env::var_os(CHILD).is_none() {
        let name = "transport::listener::tests::out_of_descriptors_connections_are_closed_and_accepting_goes_on";
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        let output = child
            .args(["--exact", name, "--test-threads=1"])
            .env(CHILD, "1")
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        return;
    }
    runtime().block_on(async {
        let mut listener = Listener::bind(tcp(vec![loopback()])).unwrap();
        listener.attach().unwrap();
        let address = listener.local_addresses()[0];
        let mut client = TcpStream::connect(address).unwrap();
        let mut waiting: Vec<File> = (0..8).map(|_| File::open("/dev/null").unwrap()).collect();
        let limit = waiting[7].as_raw_fd() + 1;
        rlimit::setrlimit(rlimit::Resource::NOFILE, limit.try_into().unwrap(), 4096).unwrap();
        while let Ok(file) = File::open("/dev/null") {
            waiting.push(file); // not one is left
        }
        let nothing = tokio::time::timeout(Duration::from_millis(50), listener.accept()).await;
        assert!(nothing.is_err(), "accepted without a descriptor");
        assert_eq!(client.read(&mut [0]).unwrap(), 0, "closed, not left waiting");
        assert_eq!(listener.without_descriptor, 1);
        drop(client);
        waiting.truncate(2);
        let _client = TcpStream::connect(address).unwrap();
        listener.accept().await;
        assert_eq!(listener.without_descriptor, 0);
    });
}

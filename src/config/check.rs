//! Mistakes that no single option shows.

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    path::Path,
};

use super::{
    access,
    problem::Problems,
    schema::{CertificateUser, ClientCertificate, Config, Listener, LogTarget, Protocol, RatePolicy, Tls},
    value::{Address, Limit},
};
use crate::transport::{
    options::TlsOptions,
    tls::{self, TlsError},
};

/// Looks at options together, and gives every listener a name.
pub(super) fn check(config: &mut Config, problems: &mut Problems) {
    if config.listeners.is_empty() {
        problems.error(
            "listeners",
            "there is none, nobody could connect; add [[listeners]] with an address",
        );
    }
    let mut addresses = HashMap::new();
    for (index, listener) in config.listeners.iter().enumerate() {
        let path = format!("listeners[{index}]");
        check_addresses(listener, &path, &mut addresses, problems);
        check_kind(listener, &path, problems);
        if let Some(tls) = &listener.tls {
            check_tls(tls, &format!("{path}.tls"), problems);
        }
    }
    name_listeners(&mut config.listeners, problems);
    check_anonymous(config, problems);
    access::check(config, problems);
    if config.bans.time > config.bans.time_max {
        problems.error("bans.time", "it is longer than bans.time_max, the longest ban there is");
    }
    if config.log.target == LogTarget::File && config.log.file.is_none() {
        problems.error(
            "log.target",
            "\"file\" needs the path of the file, add log.file = \"/var/log/sundew.log\"",
        );
    }
}

fn check_addresses(listener: &Listener, path: &str, seen: &mut HashMap<Address, String>, problems: &mut Problems) {
    if listener.address.is_empty() && !problems.is_set(&format!("{path}.address")) {
        problems.error(path, "it has no address, add address = \"0.0.0.0:1883\"");
    }
    for address in &listener.address {
        // Port 0 is "any free port": it may be asked for twice.
        if matches!(address, Address::Tcp(address) if address.port() == 0) {
            continue;
        }
        if let Some(earlier) = seen.insert(address.clone(), path.to_owned()) {
            problems.error(
                &format!("{path}.address"),
                format!("{address} is the address of {earlier} already"),
            );
        }
    }
}

fn check_kind(listener: &Listener, path: &str, problems: &mut Problems) {
    if listener.protocol == Protocol::Mqtt && listener.websocket.path.is_some() {
        problems.error(
            &format!("{path}.websocket.path"),
            "this listener speaks mqtt, add protocol = \"websocket\"",
        );
    }
    if listener
        .websocket
        .path
        .as_ref()
        .is_some_and(|path| !path.starts_with('/'))
    {
        problems.error(&format!("{path}.websocket.path"), "a path begins with /");
    }
    if listener.publish_rate_policy != RatePolicy::Delay
        && listener.publish_rate_max == Limit::UNLIMITED
        && listener.publish_bytes_rate_max.is_none()
    {
        problems.warning(
            &format!("{path}.publish_rate_policy"),
            "there is no rate, add publish_rate_max or publish_bytes_rate_max",
        );
    }
    if listener.allowed_versions.is_empty() {
        problems.error(
            &format!("{path}.allowed_versions"),
            "no version is left, nobody could connect",
        );
    }
    if listener
        .proxy_protocol
        .as_ref()
        .is_some_and(|proxy| proxy.trusted.is_empty())
    {
        problems.error(
            &format!("{path}.proxy_protocol"),
            "nobody is trusted, add trusted = [\"ADDRESS OF THE PROXY\"]",
        );
    }
}

fn check_tls(tls: &Tls, path: &str, problems: &mut Problems) {
    check_pair(&tls.certificate, &tls.key, path, problems);
    for (index, more) in tls.certificates.iter().enumerate() {
        check_pair(
            &more.certificate,
            &more.key,
            &format!("{path}.certificates[{index}]"),
            problems,
        );
    }
    match (&tls.client_ca, tls.client_certificate) {
        (None, ClientCertificate::None) => {}
        (None, _) => problems.error(
            &format!("{path}.client_certificate"),
            "certificates of clients cannot be checked, add client_ca = \"FILE\"",
        ),
        (Some(_), ClientCertificate::None) if problems.is_wrong(&format!("{path}.client_certificate")) => {}
        (Some(_), ClientCertificate::None) => problems.warning(
            &format!("{path}.client_ca"),
            "clients are not asked for a certificate, add client_certificate = \"required\"",
        ),
        (Some(file), _) => check_readable(file, &format!("{path}.client_ca"), problems),
    }
    match (&tls.client_crl, &tls.client_ca) {
        (Some(_), None) => problems.error(&format!("{path}.client_crl"), "it is of use with client_ca only"),
        (Some(file), Some(_)) => check_readable(file, &format!("{path}.client_crl"), problems),
        (None, _) => {}
    }
}

/// Mistakes in the certificates, keys, authorities and revocation lists that listeners name.
pub(super) fn check_certificates(config: &Config, problems: &mut Problems) {
    for (index, listener) in config.listeners.iter().enumerate() {
        if let Some(tls) = &listener.tls {
            check_files(tls, &format!("listeners[{index}].tls"), problems);
        }
    }
}

/// What is in files that can be read.
fn check_files(tls: &Tls, path: &str, problems: &mut Problems) {
    let mut files = vec![
        (tls.certificate.clone(), format!("{path}.certificate")),
        (tls.key.clone(), format!("{path}.key")),
    ];
    for (index, more) in tls.certificates.iter().enumerate() {
        files.push((
            more.certificate.clone(),
            format!("{path}.certificates[{index}].certificate"),
        ));
        files.push((more.key.clone(), format!("{path}.certificates[{index}].key")));
    }
    let of_clients = [(&tls.client_ca, "client_ca"), (&tls.client_crl, "client_crl")];
    files.extend(of_clients.map(|(file, name)| (file.clone().unwrap_or_default(), format!("{path}.{name}"))));
    let options = TlsOptions {
        client_ca: tls.client_ca.clone(),
        client_crl: tls.client_crl.clone(),
        ..tls.options()
    };
    for error in tls::check(&options) {
        if matches!(error, TlsError::Read { .. }) {
            continue; // it has been told
        }
        let option = files.iter().find(|(file, _)| error.file() == Some(file));
        problems.error(option.map_or(path, |(_, option)| option), error.to_string());
    }
}

fn check_pair(certificate: &Path, key: &Path, path: &str, problems: &mut Problems) {
    for (file, name) in [(certificate, "certificate"), (key, "key")] {
        if file.as_os_str().is_empty() {
            problems.error(path, format!("it has no {name}, add {name} = \"FILE\""));
        } else {
            check_readable(file, &format!("{path}.{name}"), problems);
        }
    }
}

fn check_readable(file: &Path, path: &str, problems: &mut Problems) {
    if let Err(error) = File::open(file) {
        let hint = match error.kind() {
            std::io::ErrorKind::NotFound => "; `sundew certs` makes one for development",
            std::io::ErrorKind::PermissionDenied => "; let the user that runs sundew read it",
            _ => "",
        };
        problems.error(path, format!("cannot read {}: {error}{hint}", file.display()));
    }
}

fn name_listeners(listeners: &mut [Listener], problems: &mut Problems) {
    let mut names: HashSet<String> = HashSet::new();
    for (index, listener) in listeners.iter().enumerate() {
        if let Some(name) = &listener.name
            && !names.insert(name.clone())
        {
            problems.error(
                &format!("listeners[{index}].name"),
                format!("another listener is called {name:?} too"),
            );
        }
    }
    for listener in listeners.iter_mut().filter(|listener| listener.name.is_none()) {
        let base = match (listener.protocol, listener.tls.is_some()) {
            (Protocol::Mqtt, false) => "mqtt",
            (Protocol::Mqtt, true) => "mqtts",
            (Protocol::WebSocket, false) => "ws",
            (Protocol::WebSocket, true) => "wss",
        };
        let free = |name: &String| !names.contains(name);
        let name = std::iter::once(base.to_owned())
            .chain((2..).map(|number| format!("{base}-{number}")))
            .find(free);
        names.extend(name.clone());
        listener.name = name;
    }
}

fn check_anonymous(config: &Config, problems: &mut Problems) {
    for (index, listener) in config.listeners.iter().enumerate() {
        let has_users = listener.asks_for_names(&config.auth)
            || listener
                .tls
                .as_ref()
                .is_some_and(|tls| tls.user_name != CertificateUser::None);
        if !listener.address.is_empty() && !listener.lets_everyone_in(&config.auth) && !has_users {
            problems.warning(
                &format!("listeners[{index}]"),
                "every client is refused here: there are no users, and auth.allow_anonymous is not true; add auth.password_file",
            );
        }
    }
}

impl Listener {
    /// Whether only programs of this machine can reach it.
    pub fn is_local(&self) -> bool {
        self.address.iter().all(Address::is_local)
    }
}

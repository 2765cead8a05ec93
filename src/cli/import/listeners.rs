//! Listeners: where they are, what is spoken there, how it is encrypted.

use std::net::{IpAddr, ToSocketAddrs as _};

use super::broker::is_passed_over;
use super::files::Folder;
use super::grammar::{Line, MosquittoConf, Section};
use super::outcome::{Outcome, Table, list};
use crate::protocol::mount::Mount;

/// A listener on its way to the configuration.
#[derive(Debug)]
pub(super) struct Listener<'a> {
    /// What mosquitto's says.
    pub(super) section: &'a Section,
    /// Its number in [`MosquittoConf::listeners`].
    pub(super) number: usize,
    /// `[[listeners]]`, then the tables below it.
    pub(super) tables: Vec<Table>,
    /// Only this machine reaches it.
    pub(super) is_local: bool,
    /// Clients are who their certificates say, and nobody is asked for a password.
    pub(super) is_certified: bool,
}

/// Where mosquitto listens without any listener.
const DEFAULT_PORT: &str = "1883";

/// What of the default listener makes mosquitto open it, beside port and address.
const OPENS_DEFAULT: &[&str] = &[
    "bind_address",
    "bind_interface",
    "cafile",
    "capath",
    "certfile",
    "ciphers",
    "ciphers_tls1.3",
    "crlfile",
    "dhparamfile",
    "keyfile",
    "max_qos",
    "maximum_qos",
    "mount_point",
    "password_file",
    "port",
    "psk_file",
    "psk_hint",
    "socket_domain",
    "tls_engine",
];

/// Whether mosquitto serves this machine only, as without a configuration.
pub(super) fn is_local_only(conf: &MosquittoConf) -> bool {
    let default = &conf.listeners[0];
    conf.listeners.len() == 1 && default.get("port").is_none() && default.get("bind_address").is_none()
}

/// All that mosquitto would open.
pub(super) fn carry<'a>(conf: &'a MosquittoConf, folder: &Folder, out: &mut Outcome) -> Vec<Listener<'a>> {
    let mut carried = Vec::new();
    let order = (1..conf.listeners.len()).chain([0]);
    for number in order {
        let section = &conf.listeners[number];
        if number > 0 || is_local_only(conf) || opens_default(conf, section) {
            carried.extend(one(conf, number, folder, out));
        } else {
            let why = "mosquitto opens no listener for it, as it stands above the first";
            section.options.iter().for_each(|line| out.left_out(line, why));
        }
    }
    carried
}

fn opens_default(conf: &MosquittoConf, section: &Section) -> bool {
    let has_more = section.options.iter().any(|line| match line.name.as_str() {
        "protocol" => line.word() != "mqtt",
        "require_certificate" | "use_identity_as_username" | "use_subject_as_username" | "use_username_as_clientid" => {
            line.is_true() == Some(true)
        }
        "max_connections" => !line.word().starts_with('-'),
        "allow_zero_length_clientid" => line.is_true() == Some(false),
        name => OPENS_DEFAULT.contains(&name),
    });
    has_more || conf.plugins.iter().any(|plugin| plugin.listener == Some(0))
}

fn one<'a>(conf: &'a MosquittoConf, number: usize, folder: &Folder, out: &mut Outcome) -> Option<Listener<'a>> {
    let section = &conf.listeners[number];
    if let Some(line) = section.get("psk_hint") {
        is_passed_over(line, out);
        out.not_carried(
            section.head.as_ref().unwrap_or(line),
            "the whole listener, since it is for pre-shared keys",
        );
        return None;
    }
    let (addresses, from) = addresses(conf, number, out);
    if addresses.is_empty() {
        return None;
    }
    let mut table = Table::new("[[listeners]]", "");
    table.set("address", list(&addresses), from);
    let mut listener = Listener {
        section,
        number,
        tables: Vec::new(),
        is_local: addresses.iter().all(|address| is_local(address)),
        is_certified: false,
    };
    for line in &section.options {
        if section.get(&line.name) != Some(line) {
            out.left_out(line, "it is set again further down, and that counts");
        } else if number == 0 && matches!(line.name.as_str(), "port" | "bind_address") {
            // In the address.
        } else if line.name == "mount_point" {
            match mount_point(conf, line) {
                Ok(mount) => table.text("mount_point", mount.as_str(), &line.place),
                Err(why) => out.not_carried(line, why),
            }
        } else if !is_passed_over(line, out) && option(line, &mut table, out).is_none() {
            out.not_carried(line, "its value is not one that mosquitto takes");
        }
    }
    listener.tables.push(table);
    listener.tables.extend(proxy(section, out));
    listener.tables.extend(origins(section, out));
    super::tls::carry(&mut listener, folder, out);
    Some(listener)
}

/// A mount point as Sundew takes it, which keeps tenants apart: whole levels, and none below another.
pub(super) fn mount_point<'a>(conf: &MosquittoConf, line: &'a Line) -> Result<Mount<'a>, String> {
    let closed = "so its clients may do nothing until there are rules; see listeners.mount_point";
    let mount = Mount::parse(&line.value).map_err(|error| format!("it {error}, {closed}"))?;
    let others = conf.listeners.iter().filter_map(|section| section.get("mount_point"));
    let mut others = others.filter_map(|other| Mount::parse(&other.value).ok());
    match others.find(|other| *other != mount && other.overlaps(mount)) {
        None => Ok(mount),
        Some(other) => Err(format!("it is not apart from {:?}, {closed}", other.as_str())),
    }
}

/// Options that become one of the listener, or are looked at elsewhere. `None` where the value is none.
fn option(line: &Line, table: &mut Table, out: &mut Outcome) -> Option<()> {
    let from = &line.place;
    let number = || line.word().parse::<i64>().ok();
    match line.name.as_str() {
        "protocol" => match line.word() {
            "mqtt" => {}
            "websockets" => table.text("protocol", "websocket", from),
            _ => out.not_carried(line, "Sundew speaks MQTT over TCP, TLS and WebSocket here"),
        },
        "max_connections" => {
            let most = number()?;
            if most >= 0 {
                table.set("connections_max", most, from);
            }
        }
        "max_qos" | "maximum_qos" => {
            let most = number()?.clamp(0, 2);
            if most < 2 {
                table.set("maximum_qos", most, from);
            }
        }
        "accept_protocol_versions" => {
            let name = |word: &str| match word.trim() {
                "3" => Some("3.1"),
                "4" => Some("3.1.1"),
                "5" => Some("5.0"),
                _ => None,
            };
            let versions: Option<Vec<_>> = line
                .value
                .split([',', ' '])
                .filter(|word| !word.is_empty())
                .map(name)
                .collect();
            let versions: Vec<_> = versions?.into_iter().map(str::to_owned).collect();
            if versions.is_empty() {
                return None;
            }
            table.set("allowed_versions", list(&versions), from);
        }
        "bind_interface" => {
            let why = "the addresses of an interface are not looked up: write them into address; until then only this machine gets in";
            out.not_carried(line, why);
        }
        // Looked at where the address, TLS, proxies or who may enter are.
        _ => {}
    }
    Some(())
}

/// Addresses in Sundew's words, and where they come from.
fn addresses(conf: &MosquittoConf, number: usize, out: &mut Outcome) -> (Vec<String>, String) {
    let section = &conf.listeners[number];
    let port_line = section.head.as_ref().or(section.get("port"));
    let (port, host, from) = match (&section.head, port_line) {
        (Some(head), _) => {
            let mut words = head.value.split_whitespace();
            let port = words.next().unwrap_or_default();
            (port, words.next().filter(|host| !host.starts_with('#')), Some(head))
        }
        (None, line) => {
            let host = section.get("bind_address");
            let port = line.map_or(DEFAULT_PORT, Line::word);
            (port, host.map(|host| host.value.as_str()), line.or(host))
        }
    };
    let is_local_only = is_local_only(conf);
    let from_text = from.map_or_else(
        || {
            if is_local_only {
                "no listener: this machine only".to_owned()
            } else {
                "the default listener".to_owned()
            }
        },
        |line| line.place.to_string(),
    );
    let Ok(port) = port.parse::<u16>() else {
        if let Some(line) = from {
            out.not_carried(line, "there is no port in it");
        }
        return (Vec::new(), from_text);
    };
    match (port, host, from) {
        (0, Some(path), _) => return (vec![format!("unix:{path}")], from_text),
        (0, None, Some(line)) => {
            out.not_carried(line, "port 0 is for a Unix socket, and there is no path");
            return (Vec::new(), from_text);
        }
        _ => {}
    }
    let host = if is_local_only || section.get("bind_interface").is_some() {
        Some("localhost")
    } else {
        host
    };
    let domain = section.get("socket_domain").map(Line::word);
    let ips = match (host, domain) {
        (None | Some("*"), _) => vec![IpAddr::from([0; 4]), IpAddr::from([0; 16])],
        (Some("localhost"), _) => vec![IpAddr::from([127, 0, 0, 1]), IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1])],
        (Some(host), _) => resolved(host, from, out),
    };
    let fits = |ip: &IpAddr| match domain {
        Some("ipv4") => ip.is_ipv4(),
        Some("ipv6") => ip.is_ipv6(),
        _ => true,
    };
    let with_port = |ip: IpAddr| std::net::SocketAddr::new(ip, port).to_string();
    (ips.into_iter().filter(fits).map(with_port).collect(), from_text)
}

fn resolved(host: &str, from: Option<&Line>, out: &mut Outcome) -> Vec<IpAddr> {
    if let Ok(ip) = host.trim_matches(['[', ']']).parse() {
        return vec![ip];
    }
    let found: Vec<IpAddr> = (host, 0)
        .to_socket_addrs()
        .map(|all| all.map(|address| address.ip()).collect())
        .unwrap_or_default();
    let mut ips = Vec::new();
    for ip in found {
        if !ips.contains(&ip) {
            ips.push(ip);
        }
    }
    if let Some(line) = from {
        if ips.is_empty() {
            out.not_carried(line, format!("{host} has no address now; listeners need one"));
        } else {
            out.note(line, format!("{host} is the address that it has now"));
        }
    }
    ips
}

fn is_local(address: &str) -> bool {
    let ip = address
        .parse::<std::net::SocketAddr>()
        .map(|address| address.ip().is_loopback());
    ip.unwrap_or(true) // a Unix socket
}

fn proxy(section: &Section, out: &mut Outcome) -> Option<Table> {
    let line = section.get("enable_proxy_protocol")?;
    if !matches!(line.word(), "1" | "2" | "true") {
        return None;
    }
    let mut table = Table::new("[listeners.proxy_protocol]", "");
    table.set("trusted", "[\"127.0.0.1\", \"::1\"]", &line.place);
    out.not_carried(
        line,
        "mosquitto believes any proxy; name yours in listeners.proxy_protocol.trusted, now it is this machine",
    );
    Some(table)
}

fn origins(section: &Section, out: &mut Outcome) -> Option<Table> {
    let line = section.get("websockets_origin")?;
    if section.get("protocol").map(Line::word) != Some("websockets") {
        out.left_out(line, "nobody speaks WebSocket here");
        return None;
    }
    let named = |other: &&Line| other.name == line.name && !other.value.is_empty();
    let origins = section.options.iter().filter(named);
    let origins: Vec<_> = origins.map(|line| line.value.clone()).collect();
    let mut table = Table::new("[listeners.websocket]", "");
    table.set("origins", list(&origins), &line.place);
    Some(table)
}

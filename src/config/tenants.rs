//! From what the operator wrote to tenants.

use super::{
    access::check_names,
    problem::Problems,
    schema::{ClientCertificate, Config, Tenant as Written},
};
use crate::{
    auth::tenants::{NamePattern, Tenant, TenantLimits},
    protocol::mount::Mount,
};

impl Written {
    fn mount(&self) -> String {
        self.mount_point.clone().unwrap_or_else(|| format!("{}/", self.name))
    }
}

/// For [`crate::backends::access`]. A listener whose mount point is that of no tenant makes one.
pub(super) fn tenants(config: &Config) -> Vec<Tenant> {
    let patterns = |names: &[String]| names.iter().map(|name| NamePattern::new(name)).collect();
    let mut all: Vec<_> = config
        .tenants
        .iter()
        .map(|written| Tenant {
            name: written.name.as_str().into(),
            mount: written.mount().into(),
            listeners: written.listeners.iter().map(|name| name.as_str().into()).collect(),
            users: patterns(&written.users),
            certificates: patterns(&written.certificates),
            limits: TenantLimits {
                connections_max: written.connections_max.to_usize(),
                sessions_max: written.sessions_max.to_usize(),
                subscriptions_max: written.subscriptions_max.to_usize(),
                retained_messages_max: written.retained_messages_max.to_usize(),
                retained_bytes_max: written.retained_bytes_max.to_usize(),
            },
        })
        .collect();
    for listener in &config.listeners {
        let Some(mount) = listener.mount_point.as_deref() else {
            continue;
        };
        let name = Box::from(listener.display_name());
        match all.iter_mut().find(|tenant| *tenant.mount == *mount) {
            Some(tenant) if tenant.listeners.contains(&name) => {}
            Some(tenant) => tenant.listeners.push(name),
            None => all.push(Tenant {
                name: mount.strip_suffix('/').unwrap_or(mount).into(),
                mount: mount.into(),
                listeners: vec![name],
                users: Vec::new(),
                certificates: Vec::new(),
                limits: TenantLimits::UNLIMITED,
            }),
        }
    }
    all
}

/// Mistakes in them.
pub(super) fn check(config: &Config, problems: &mut Problems) {
    for (index, listener) in config.listeners.iter().enumerate() {
        if let Some(mount) = &listener.mount_point {
            check_mount(&format!("listeners[{index}].mount_point"), mount, problems);
        }
    }
    let listeners: Vec<_> = config.listeners.iter().filter_map(|one| one.name.as_deref()).collect();
    for (index, tenant) in config.tenants.iter().enumerate() {
        let path = format!("tenants[{index}]");
        check_one(tenant, &path, config, problems);
        check_names(&format!("{path}.listeners"), &tenant.listeners, &listeners, problems);
    }
    check_apart(config, problems);
}

fn check_mount(path: &str, mount: &str, problems: &mut Problems) {
    if let Err(wrong) = Mount::parse(mount) {
        problems.error(path, format!("{mount:?} {wrong}, expected such as \"site-a/\""));
    }
}

fn check_one(tenant: &Written, path: &str, config: &Config, problems: &mut Problems) {
    let name_path = format!("{path}.name");
    let as_mount = format!("{}/", tenant.name);
    if tenant.name.is_empty() {
        if !problems.is_set(&name_path) {
            problems.error(path, "it has no name, add name = \"site-a\"");
        }
    } else if tenant.name.contains('/') || Mount::parse(&as_mount).is_err() {
        problems.error(
            &name_path,
            format!(
                "{:?} is no name of a tenant: no / + # and no $ at its begin",
                tenant.name
            ),
        );
    }
    if let Some(mount) = &tenant.mount_point {
        check_mount(&format!("{path}.mount_point"), mount, problems);
    }
    let is_asked = |listener: &super::schema::Listener| {
        let tls = listener.tls.as_ref();
        tls.is_some_and(|tls| tls.client_certificate != ClientCertificate::None)
    };
    if !tenant.certificates.is_empty() && !config.listeners.iter().any(is_asked) {
        problems.warning(
            &format!("{path}.certificates"),
            "no listener asks clients for a certificate, see listeners.tls.client_certificate",
        );
    }
    let has_claims = config.auth.jwt.iter().any(|jwt| jwt.value.tenant_claim.is_some()) || !config.auth.http.is_empty();
    let lists = [&tenant.listeners, &tenant.users, &tenant.certificates];
    let has_listener = || {
        config
            .listeners
            .iter()
            .any(|one| one.mount_point.as_deref() == Some(&tenant.mount()))
    };
    if lists.iter().all(|list| list.is_empty()) && !has_claims && !has_listener() {
        problems.warning(path, "nobody belongs to it; add users, listeners or certificates");
    }
}

/// Two tenants are kept apart only where their mount points are.
fn check_apart(config: &Config, problems: &mut Problems) {
    let all = tenants(config);
    // Those of listeners stand behind those of the section.
    let path = |at: usize| {
        if at < config.tenants.len() {
            return format!("tenants[{at}]");
        }
        let of = |mount: &str| {
            config
                .listeners
                .iter()
                .position(|one| one.mount_point.as_deref() == Some(mount))
        };
        let index = of(&all[at].mount).unwrap_or_default();
        format!("listeners[{index}].mount_point")
    };
    let is_exact = |user: &&NamePattern| matches!(user, NamePattern::Is(_));
    for (at, one) in all.iter().enumerate() {
        for other in &all[..at] {
            if one.name == other.name && !one.name.is_empty() {
                problems.error(
                    &path(at),
                    format!("{:?} is the name of another tenant already", one.name),
                );
            }
            let (mount, known) = (Mount::from_parsed(&one.mount), Mount::from_parsed(&other.mount));
            if mount.overlaps(known) {
                let text = format!(
                    "its mount point {:?} and {:?} of {:?} keep nobody apart",
                    one.mount, other.mount, other.name
                );
                problems.error(&path(at), text);
            }
            let twice = one.listeners.iter().find(|name| other.listeners.contains(name));
            if let Some(name) = twice {
                problems.error(
                    &path(at),
                    format!("the listener {name:?} is of {:?} already", other.name),
                );
            }
            let twice = one
                .users
                .iter()
                .filter(is_exact)
                .find(|name| other.users.contains(name));
            if let Some(NamePattern::Is(name)) = twice {
                problems.error(&path(at), format!("the user {name:?} is of {:?} already", other.name));
            }
        }
    }
}

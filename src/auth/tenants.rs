//! Which tenant a client belongs to: by its listener, its user name, its certificate, or what its token or the program that was asked says.
//!
//! All that say something must say the same. A client of which nothing is said belongs to no tenant, and sees the topics of all by their
//! full names, as far as rules let it.

use hashbrown::HashMap;

use super::Access;
use crate::protocol::mount::Mount;

/// One tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tenant {
    /// What tokens and programs call it.
    pub name: Box<str>,
    /// What stands before its topics. That of no tenant may begin with that of another.
    pub mount: Box<str>,
    /// Everybody who comes by these listeners.
    pub listeners: Vec<Box<str>>,
    /// Users.
    pub users: Vec<NamePattern>,
    /// Whoever shows a verified certificate with such a common name or alternative name.
    pub certificates: Vec<NamePattern>,
    /// How much it may take.
    pub limits: TenantLimits,
}

/// How much the clients of one tenant may take together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TenantLimits {
    /// Connections that have been let in.
    pub connections_max: usize,
    /// Sessions, with and without a connection.
    pub sessions_max: usize,
    /// Subscriptions of its sessions.
    pub subscriptions_max: usize,
    /// Retained messages below its mount point, whoever published them.
    pub retained_messages_max: usize,
    /// Their bytes, counted as [`Message::cost_bytes`](crate::protocol::message::Message::cost_bytes).
    pub retained_bytes_max: usize,
}

impl TenantLimits {
    /// None but those of the whole broker.
    pub const UNLIMITED: Self = Self {
        connections_max: usize::MAX,
        sessions_max: usize::MAX,
        subscriptions_max: usize::MAX,
        retained_messages_max: usize::MAX,
        retained_bytes_max: usize::MAX,
    };
}

/// Names: one, or all that begin or end in a certain way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NamePattern {
    /// This one.
    Is(Box<str>),
    /// `site-a-*`.
    BeginsWith(Box<str>),
    /// `*.site-a.example`.
    EndsWith(Box<str>),
}

impl NamePattern {
    /// A `*` at the end or at the begin stands for anything; elsewhere it is itself.
    pub fn new(text: &str) -> Self {
        match (text.strip_suffix('*'), text.strip_prefix('*')) {
            (Some(begin), _) => Self::BeginsWith(begin.into()),
            (None, Some(end)) => Self::EndsWith(end.into()),
            (None, None) => Self::Is(text.into()),
        }
    }

    /// Whether it is this name.
    pub fn matches(&self, name: &str) -> bool {
        match self {
            Self::Is(one) => **one == *name,
            Self::BeginsWith(begin) => name.starts_with(&**begin),
            Self::EndsWith(end) => name.ends_with(&**end),
        }
    }
}

/// Why a client is refused that would belong to two.
pub const TENANTS_DIFFER: &str = "tenants_differ";
/// Why a client is refused whose token names a tenant that cannot be one.
pub const TENANT_NOT_VALID: &str = "tenant_not_valid";

/// All tenants that are configured.
#[derive(Clone, Debug, Default)]
pub struct Tenants {
    list: Vec<Tenant>,
    /// Tokens or programs may name others.
    has_others: bool,
    /// Of these names by their places in the list.
    by_listener: Names,
    by_user: Names,
    by_name: Names,
    by_mount: Names,
    /// Those of which names have to be compared with every pattern, likewise.
    user_patterns: Vec<(NamePattern, usize)>,
    /// A certificate may be of more than one, which is found when somebody shows it.
    by_certificate: HashMap<Box<str>, Vec<usize>, foldhash::fast::RandomState>,
    certificate_patterns: Vec<(NamePattern, usize)>,
}

type Names = HashMap<Box<str>, usize, foldhash::fast::RandomState>;

impl Tenants {
    /// These, whose names and mount points differ.
    pub fn new(list: Vec<Tenant>) -> Self {
        let mut all = Self::default();
        for (at, tenant) in list.iter().enumerate() {
            all.by_name.insert(tenant.name.clone(), at);
            all.by_mount.insert(tenant.mount.clone(), at);
            all.by_listener
                .extend(tenant.listeners.iter().map(|name| (name.clone(), at)));
            for user in &tenant.users {
                match user {
                    NamePattern::Is(name) => drop(all.by_user.insert(name.clone(), at)),
                    pattern => all.user_patterns.push((pattern.clone(), at)),
                }
            }
            for certificate in &tenant.certificates {
                match certificate {
                    NamePattern::Is(name) => all.by_certificate.entry(name.clone()).or_default().push(at),
                    pattern => all.certificate_patterns.push((pattern.clone(), at)),
                }
            }
        }
        all.list = list;
        all
    }

    /// Tokens or programs may name others, too.
    #[must_use]
    pub const fn with_others(mut self, has_others: bool) -> Self {
        self.has_others = has_others;
        self
    }

    /// Whether anybody may belong to a tenant.
    pub const fn are_there(&self) -> bool {
        self.has_others || !self.list.is_empty()
    }

    /// The tenants, in their order.
    pub fn list(&self) -> &[Tenant] {
        &self.list
    }

    /// The mount point of the tenant that a client belongs to.
    ///
    /// # Errors
    /// Why it may not enter.
    pub fn mount_of(&self, who: &Access<'_>) -> Result<Option<Box<str>>, &'static str> {
        let claimed = who.grants.and_then(|grants| grants.tenant.as_deref());
        let mut found = match claimed {
            Some(name) => Some(self.mount_of_name(name)?),
            None => None,
        };
        let at_once = [
            self.by_listener.get(who.peer.rules.name.as_str()),
            who.user_name.and_then(|user| self.by_user.get(user)),
        ];
        let users = matching(&self.user_patterns, who.user_name);
        let all = at_once.into_iter().flatten().copied().chain(users);
        for at in all.chain(self.of_certificate(who)) {
            let tenant = &self.list[at];
            if found.as_ref().is_some_and(|mount| *mount != tenant.mount) {
                return Err(TENANTS_DIFFER);
            }
            found.get_or_insert_with(|| tenant.mount.clone());
        }
        Ok(found)
    }

    /// The places of those that a certificate is of.
    fn of_certificate<'t>(&'t self, who: &Access<'t>) -> impl Iterator<Item = usize> + use<'t> {
        let certificate = who.peer.certificate.as_deref();
        let names = certificate.into_iter().flat_map(|certificate| {
            let names = certificate.common_name.iter().chain(&certificate.alternative_names);
            names.map(String::as_str)
        });
        names.flat_map(move |name| {
            let exact = self.by_certificate.get(name).into_iter().flatten().copied();
            exact.chain(matching(&self.certificate_patterns, Some(name)))
        })
    }

    /// A tenant that is not listed has its name for its mount point.
    fn mount_of_name(&self, name: &str) -> Result<Box<str>, &'static str> {
        if let Some(at) = self.by_name.get(name) {
            return Ok(self.list[*at].mount.clone());
        }
        let text = format!("{name}/");
        let mount = Mount::parse(&text).ok().filter(|_| !name.contains('/'));
        let is_free = |mount: &Mount<'_>| {
            let mut listed = self.list.iter().map(|tenant| Mount::from_parsed(&tenant.mount));
            !listed.any(|listed| listed.overlaps(*mount))
        };
        match mount.filter(is_free) {
            Some(mount) => Ok(mount.as_str().into()),
            None => Err(TENANT_NOT_VALID),
        }
    }

    /// The limits of the tenant with this mount point.
    pub fn limits_of(&self, mount: Mount<'_>) -> TenantLimits {
        let at = self.by_mount.get(mount.as_str());
        at.map_or(TenantLimits::UNLIMITED, |at| self.list[*at].limits)
    }
}

/// The places of the patterns that a name fits.
fn matching<'p>(patterns: &'p [(NamePattern, usize)], name: Option<&'p str>) -> impl Iterator<Item = usize> {
    let fits = move |pattern: &NamePattern| name.is_some_and(|name| pattern.matches(name));
    patterns
        .iter()
        .filter(move |(pattern, _)| fits(pattern))
        .map(|(_, at)| *at)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::auth::grants::Grants;
    use crate::session::peer::tests::peer;
    use crate::session::peer::{ListenerRules, Peer, PeerCertificate};

    fn tenant(name: &str, mount: &str, change: impl Fn(&mut Tenant)) -> Tenant {
        let mut tenant = Tenant {
            name: name.into(),
            mount: mount.into(),
            listeners: Vec::new(),
            users: Vec::new(),
            certificates: Vec::new(),
            limits: TenantLimits::UNLIMITED,
        };
        change(&mut tenant);
        tenant
    }

    fn tenants() -> Tenants {
        let patterns = |texts: &[&str]| texts.iter().map(|text| NamePattern::new(text)).collect::<Vec<_>>();
        Tenants::new(vec![
            tenant("a", "a/", |a| {
                a.listeners = vec!["door-a".into()];
                a.users = patterns(&["anna", "a-*"]);
                a.certificates = patterns(&["*.a.example"]);
            }),
            tenant("b", "x/b/", |b| {
                b.users = patterns(&["bob", "a-b-*"]);
                b.certificates = patterns(&["gate.b", "both.a.example"]);
                b.limits.connections_max = 2;
            }),
        ])
    }

    fn mount(listener: &str, user: Option<&str>, claim: Option<&str>, names: &[&str]) -> Result<String, &'static str> {
        let rules = ListenerRules {
            name: listener.into(),
            ..ListenerRules::default()
        };
        let certificate = PeerCertificate {
            common_name: names.first().map(|name| (*name).to_owned()),
            subject: String::new(),
            alternative_names: names.iter().skip(1).map(|name| (*name).to_owned()).collect(),
            id: None,
        };
        let peer = Peer {
            rules: Arc::new(rules),
            certificate: Some(Arc::new(certificate)).filter(|_| !names.is_empty()),
            ..peer()
        };
        let grants = claim.map(|claim| Grants {
            tenant: Some(claim.into()),
            ..Grants::default()
        });
        let who = Access {
            client_id: "c",
            user_name: user,
            peer: &peer,
            grants: grants.as_ref(),
        };
        Ok(tenants().mount_of(&who)?.map_or(String::new(), Into::into))
    }

    #[test]
    fn each_way_to_name_a_tenant_is_enough() {
        for (listener, user, claim, names, expected) in [
            ("tcp", None, None, &[][..], ""),
            ("tcp", Some("carl"), None, &["device"], ""),
            ("door-a", None, None, &[], "a/"),
            ("tcp", Some("anna"), None, &[], "a/"),
            ("tcp", Some("a-7"), None, &[], "a/"),
            ("tcp", Some("bob"), None, &[], "x/b/"),
            ("tcp", None, None, &["7.a.example"], "a/"),
            ("tcp", None, None, &["7", "7.a.example"], "a/"),
            ("tcp", None, None, &["7", "gate.b"], "x/b/"),
            ("tcp", Some("carl"), Some("b"), &[], "x/b/"),
            ("tcp", Some("carl"), Some("new"), &[], "new/"),
            ("door-a", Some("anna"), Some("a"), &["7.a.example"], "a/"),
        ] {
            assert_eq!(
                mount(listener, user, claim, names),
                Ok(expected.to_owned()),
                "{listener} {user:?} {claim:?}"
            );
        }
    }

    /// Of two it is better in none.
    #[test]
    fn whoever_would_belong_to_two_belongs_to_none() {
        for (listener, user, claim, names) in [
            ("door-a", Some("bob"), None, &[][..]),
            ("door-a", None, Some("b"), &[]),
            ("tcp", Some("bob"), None, &["7.a.example"]),
            ("tcp", Some("anna"), Some("new"), &[]),
            ("tcp", Some("a-b-c"), None, &[]),
            ("tcp", None, None, &["both.a.example"]),
            ("tcp", None, None, &["7.a.example", "gate.b"]),
        ] {
            assert_eq!(mount(listener, user, claim, names), Err(TENANTS_DIFFER));
        }
    }

    /// A claim is written by somebody else: it must not reach into what is a tenant's, or the broker's.
    #[test]
    fn a_claim_that_is_no_name_or_reaches_into_another_tenant_is_refused() {
        for claim in ["", "a/b", "x", "+", "#", "$SYS", "SYS", "$x", "a\0", "/", "x/b"] {
            assert_eq!(mount("tcp", None, Some(claim), &[]), Err(TENANT_NOT_VALID), "{claim:?}");
        }
    }

    #[test]
    fn limits_are_those_of_the_mount_point() {
        let all = tenants();
        let limits = |mount| all.limits_of(Mount::parse(mount).unwrap());
        assert_eq!(limits("x/b/").connections_max, 2);
        assert_eq!(limits("a/"), TenantLimits::UNLIMITED);
        assert_eq!(limits("new/"), TenantLimits::UNLIMITED);
    }
}

//! From what the operator wrote to who may enter and what he may do.

use core::num::NonZero;

use super::{
    apply::qos,
    problem::Problems,
    schema::{self, AccessRule, Anonymous, Auth, Config, Listener},
    suggest, tenants,
    value::{Auto, Network, Placed},
    ways,
};
use crate::{
    auth::{
        chain::{CertificateName, Entrances},
        rule::{Actions, ClientPattern, Effect, Rule, TopicPattern, Users},
        rules::{ADMIN_GROUP, WideSubscriptions},
    },
    backends::{
        access::{AccessOptions, ListenerAccess},
        hashing::HashingOptions,
    },
    scram::Mechanism,
};

/// Groups that are not made of members.
const ANONYMOUS: &str = "anonymous";
const AUTHENTICATED: &str = "authenticated";

impl Config {
    /// For [`crate::backends::access`].
    pub fn access_options(&self) -> AccessOptions {
        let auth = &self.auth;
        let listener = |listener: &Listener| ListenerAccess {
            name: listener.display_name().into(),
            bound: listener.bound().into(),
            password_file: listener.password_file(auth).cloned(),
            acl_file: listener.acl_file.clone(),
            allows_anonymous: listener.lets_everyone_in(auth),
            scram: mechanisms(methods_of(listener, auth)).collect(),
            takes_tokens_again: methods_of(listener, auth).contains(&schema::EnhancedMethod::Oauth2Jwt),
            certificate_name: match listener.tls.as_ref().map(|tls| tls.user_name) {
                None | Some(schema::CertificateUser::None) => None,
                Some(schema::CertificateUser::CommonName) => Some(CertificateName::CommonName),
                Some(schema::CertificateUser::AlternativeName) => Some(CertificateName::AlternativeName),
                Some(schema::CertificateUser::Subject) => Some(CertificateName::Subject),
            },
        };
        let admins = auth.groups.get(ADMIN_GROUP).into_iter().flatten();
        AccessOptions {
            listeners: self.listeners.iter().map(listener).collect(),
            rules: auth.rules.iter().flat_map(|rule| rules_of(rule, auth)).collect(),
            acl_file: auth.acl_file.clone(),
            wide_subscriptions: match auth.wide_subscriptions {
                schema::WideSubscriptions::Refuse => WideSubscriptions::Refuse,
                schema::WideSubscriptions::Narrow => WideSubscriptions::Narrow,
                schema::WideSubscriptions::Grant => WideSubscriptions::Grant,
            },
            hides_wrong_password: auth.refused_login == schema::RefusedLogin::NotAuthorized,
            is_sys_public: self.sys.public,
            admins: admins.map(|name| name.as_str().into()).collect(),
            tokens: ways::tokens(self),
            http: ways::programs(self),
            tenants: tenants::tenants(self),
        }
    }

    /// For [`crate::backends::hashing`].
    pub fn hashing_options(&self) -> HashingOptions {
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        HashingOptions {
            threads: match self.auth.hashing_threads {
                Auto::Auto => (cores / 4).max(1),
                Auto::Fixed(count) => count as usize,
            },
            waiting_max: self.auth.hashing_waiting_max as usize,
        }
    }
}

impl Listener {
    /// Whether clients without a user name may enter through it.
    pub fn lets_everyone_in(&self, auth: &Auth) -> bool {
        match self.allow_anonymous.unwrap_or(auth.allow_anonymous) {
            Anonymous::Everywhere => true,
            Anonymous::Loopback => self.is_local(),
            Anonymous::Auto => self.is_local() && !self.asks_for_names(auth),
            Anonymous::Nowhere => false,
        }
    }

    /// Whether who has a user name has to prove it.
    pub fn asks_for_names(&self, auth: &Auth) -> bool {
        let is_here = |listeners: &[String]| listeners.is_empty() || listeners.contains(&self.display_name());
        let mut programs = auth.http.iter().map(|http| &http.value);
        self.password_file(auth).is_some()
            || auth.jwt.iter().any(|jwt| is_here(&jwt.value.listeners))
            || programs.any(|http| http.connect_url.is_some() && is_here(&http.listeners))
    }

    /// What of it counts at a start only, and decides who can reach it.
    fn bound(&self) -> String {
        let mut addresses: Vec<_> = self.address.iter().map(ToString::to_string).collect();
        addresses.sort_unstable();
        let tls = if self.tls.is_some() { " over TLS" } else { "" };
        format!("{} {:?}{tls}", addresses.join(" "), self.protocol)
    }

    /// The users who may enter through it.
    pub fn password_file<'a>(&'a self, auth: &'a Auth) -> Option<&'a std::path::PathBuf> {
        self.password_file.as_ref().or(auth.password_file.as_ref())
    }
}

fn methods_of<'a>(listener: &'a Listener, auth: &'a Auth) -> &'a [schema::EnhancedMethod] {
    listener.enhanced_methods.as_ref().unwrap_or(&auth.enhanced_methods)
}

fn mechanisms(methods: &[schema::EnhancedMethod]) -> impl Iterator<Item = Mechanism> {
    methods.iter().filter_map(|method| match method {
        schema::EnhancedMethod::ScramSha256 => Some(Mechanism::Sha256),
        schema::EnhancedMethod::ScramSha512 => Some(Mechanism::Sha512),
        schema::EnhancedMethod::Oauth2Jwt => None,
    })
}

/// One rule for each of its topics.
fn rules_of<'a>(written: &'a Placed<AccessRule>, auth: &'a Auth) -> impl Iterator<Item = Rule> + 'a {
    let rule = &written.value;
    let effect = match rule.effect {
        Some(schema::Effect::Allow) => Effect::Allow,
        // One without an effect is an error of the configuration.
        Some(schema::Effect::Deny) | None => Effect::Deny,
    };
    let actions = rule.actions.iter().fold(Actions::default(), |all, action| {
        all.with(match action {
            schema::Action::Publish => crate::auth::rule::Action::Publish,
            schema::Action::Subscribe => crate::auth::rule::Action::Subscribe,
            schema::Action::Receive => crate::auth::rule::Action::Receive,
        })
    });
    let members = rule.groups.iter().filter_map(|group| auth.groups.get(group)).flatten();
    let users = Users {
        names: rule
            .users
            .iter()
            .chain(members)
            .map(|name| name.as_str().into())
            .collect(),
        anonymous: rule.groups.iter().any(|group| group == ANONYMOUS),
        authenticated: rule.groups.iter().any(|group| group == AUTHENTICATED),
        has_group: !rule.groups.is_empty(),
    };
    rule.topics.0.iter().map(move |topics| {
        let mut one = Rule::new(effect, actions, topics.clone(), written.place.as_str());
        one.users = users.clone();
        one.clients = rule.client_ids.iter().map(|text| ClientPattern::new(text)).collect();
        one.networks = rule.addresses.iter().map(Network::network).collect();
        one.listeners = rule.listeners.iter().map(|name| name.as_str().into()).collect();
        one.qos_max = qos(rule.qos_max);
        one.retain = rule.retain;
        one
    })
}

/// Mistakes in who may enter and what he may do, those in the files that are named included.
pub(super) fn check(config: &Config, problems: &mut Problems) {
    for (index, rule) in config.auth.rules.iter().enumerate() {
        check_rule(&rule.value, &format!("auth.rules[{index}]"), config, problems);
    }
    for (index, listener) in config.listeners.iter().enumerate() {
        let is_asked = |tls: &schema::Tls| tls.client_certificate != schema::ClientCertificate::None;
        if listener
            .tls
            .as_ref()
            .is_some_and(|tls| tls.user_name != schema::CertificateUser::None && !is_asked(tls))
        {
            problems.error(
                &format!("listeners[{index}].tls.user_name"),
                "clients are not asked for a certificate, add client_certificate = \"required\" or \"optional\"",
            );
        }
    }
    ways::check(config, problems);
    tenants::check(config, problems);
    check_files(config, problems);
    check_unchecked_names(config, problems);
}

fn check_rule(rule: &AccessRule, path: &str, config: &Config, problems: &mut Problems) {
    if rule.effect.is_none() && !problems.is_set(&format!("{path}.effect")) {
        problems.error(path, "it has no effect, add effect = \"allow\" or \"deny\"");
    }
    if rule.topics.0.is_empty() && !problems.is_set(&format!("{path}.topics")) {
        problems.error(
            path,
            "it has no topics, add topics = [\"#\"] for all but those that begin with $",
        );
    }
    for (name, is_empty) in [
        ("users", rule.users.is_empty()),
        ("groups", rule.groups.is_empty()),
        ("client_ids", rule.client_ids.is_empty()),
        ("addresses", rule.addresses.is_empty()),
        ("listeners", rule.listeners.is_empty()),
    ] {
        let path = format!("{path}.{name}");
        if is_empty && problems.is_set(&path) && !problems.is_wrong(&path) {
            problems.error(
                &path,
                "it is empty, so the rule is for nobody; leave it out to name nobody in particular",
            );
        }
    }
    for topics in &rule.topics.0 {
        if let Some(doubt) = TopicPattern::doubt(topics.as_str()) {
            problems.warning(&format!("{path}.topics"), format!("{:?}: {doubt}", topics.as_str()));
        }
    }
    if rule.actions.is_empty() {
        problems.error(&format!("{path}.actions"), "no action is left, the rule says nothing");
    }
    if rule.effect == Some(schema::Effect::Deny) && (rule.qos_max < 2 || !rule.retain) {
        problems.error(
            path,
            "qos_max and retain are limits of rules that allow; a rule that denies does so for all",
        );
    }
    let groups: Vec<_> = config
        .auth
        .groups
        .keys()
        .map(String::as_str)
        .chain([ANONYMOUS, AUTHENTICATED])
        .collect();
    let listeners: Vec<_> = config
        .listeners
        .iter()
        .filter_map(|listener| listener.name.as_deref())
        .collect();
    for (name, written, known) in [
        ("groups", &rule.groups, groups),
        ("listeners", &rule.listeners, listeners),
    ] {
        check_names(&format!("{path}.{name}"), written, &known, problems);
    }
}

/// Names of something that is not there.
pub(super) fn check_names(path: &str, written: &[String], known: &[&str], problems: &mut Problems) {
    for unknown in written.iter().filter(|one| !known.contains(&one.as_str())) {
        // A name that was written wrongly is mostly near to one that is there.
        let near = known.iter().find(|one| suggest::is_near(unknown, one));
        let hint = near.map_or_else(String::new, |near| format!(" (did you mean {near:?}?)"));
        problems.error(path, format!("there is no {unknown:?}{hint}"));
    }
}

/// The files are read as the broker would read them.
fn check_files(config: &Config, problems: &mut Problems) {
    let options = config.access_options();
    let found = match options.read(&foldhash::fast::RandomState::default()) {
        Ok(access) => {
            check_methods(config, &access.entrances, problems);
            for warning in access.warnings {
                match warning.line {
                    Some(line) => problems.warning_at(format!("{}:{line}:1", warning.file.display()), warning.message),
                    None => problems.warning(option_of(&warning.file, config).as_str(), warning),
                }
            }
            return;
        }
        Err(found) => found,
    };
    for problem in found {
        match problem.line {
            Some(line) => problems.error_at(format!("{}:{line}:1", problem.file.display()), problem.message),
            None => problems.error(option_of(&problem.file, config).as_str(), problem),
        }
    }
}

/// Methods that were asked for, and that nobody can use.
fn check_methods(config: &Config, entrances: &Entrances, problems: &mut Problems) {
    let mut tell = |path: &str, mechanism: Mechanism| {
        let name = mechanism.name();
        let message = format!("no user can use {name}, so it is not offered; `sundew user passwd NAME --scram`");
        problems.warning(path, message);
    };
    let all = &config.auth.enhanced_methods;
    if *all != Auth::default().enhanced_methods {
        for mechanism in mechanisms(all) {
            if !entrances.iter().any(|(_, entrance)| entrance.offers(mechanism)) {
                tell("auth.enhanced_methods", mechanism);
            }
        }
    }
    for (index, (listener, (_, entrance))) in config.listeners.iter().zip(entrances).enumerate() {
        for mechanism in listener.enhanced_methods.iter().flat_map(|own| mechanisms(own)) {
            if !entrance.offers(mechanism) {
                tell(&format!("listeners[{index}].enhanced_methods"), mechanism);
            }
        }
    }
}

/// The option that names a file.
fn option_of(file: &std::path::Path, config: &Config) -> String {
    for (index, listener) in config.listeners.iter().enumerate() {
        for (name, path) in [
            ("password_file", &listener.password_file),
            ("acl_file", &listener.acl_file),
        ] {
            if path.as_deref() == Some(file) {
                return format!("listeners[{index}].{name}");
            }
        }
    }
    if let Some(option) = ways::option_of(file, config) {
        return option;
    }
    let is_users = config.auth.password_file.as_deref() == Some(file);
    (if is_users {
        "auth.password_file"
    } else {
        "auth.acl_file"
    })
    .to_owned()
}

/// Rules for users, where everybody may say that he is any of them.
fn check_unchecked_names(config: &Config, problems: &mut Problems) {
    let has_admins = config
        .auth
        .groups
        .get(ADMIN_GROUP)
        .is_some_and(|group| !group.is_empty());
    let has_rules = !config.auth.rules.is_empty() || config.auth.acl_file.is_some() || has_admins;
    for (index, listener) in config.listeners.iter().enumerate() {
        let is_believed = listener.lets_everyone_in(&config.auth) && !listener.asks_for_names(&config.auth);
        if is_believed && (has_rules || listener.acl_file.is_some()) {
            problems.warning(
                &format!("listeners[{index}]"),
                "there are rules, and user names are believed without a password here; add password_file = \"FILE\"",
            );
        }
    }
}

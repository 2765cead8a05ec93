//! `sundew auth explain`: why a client may do something, or may not.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, Subcommand, ValueEnum};

use super::{Exit, output};
use crate::auth::chain::{Entrance, NO_TOKEN, ONLY_SCRAM};
use crate::auth::password::User;
use crate::auth::rule::{Action as RuleAction, Effect, Rule};
use crate::auth::rules::{DecidedBy, Decision, Rules};
use crate::auth::tenants::Tenants;
use crate::auth::{Access as Who, Identity};
use crate::backends::access::Access;
use crate::backends::token::{Issuers, now_ms};
use crate::config::schema::ClientCertificate;
use crate::config::{self, Config, Layers};
use crate::protocol::mount::Mount;
use crate::protocol::qos::QoS;
use crate::protocol::topic::{TopicFilter, TopicName};
use crate::session::peer::{ListenerRules, Peer, PeerCertificate};

/// Users and what they may do
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    Explain(Explain),
}

/// Say why a client may do something, or may not
///
/// Reads the configuration and the files that it names, as the broker would, and fetches the keys of tokens; asks no broker. Without a topic it prints every rule that
/// applies to the client. Exit code 0: allowed. 1: denied. 3: not known, since a program decides that is not asked here.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sundew auth explain -c sundew.toml --user alice
  sundew auth explain -c sundew.toml --user alice --topic home/lamp --action publish
  sundew auth explain -c sundew.toml --token-file token.jwt --topic home/lamp
  sundew auth explain -c sundew.toml --certificate-name device-7 --topic home/lamp
  sundew auth explain -c sundew.toml --client sensor-7 --address 10.0.0.7 --topic 'home/#' --action subscribe")]
struct Explain {
    /// The user name; without one: a client that has none
    #[arg(short, long, value_name = "NAME")]
    user: Option<String>,
    /// A file with the token that the client shows; - for standard input
    #[arg(long, value_name = "FILE", conflicts_with = "user")]
    token_file: Option<PathBuf>,
    /// The client shows a certificate, of an authority of the listener, with this name: what tls.user_name takes of it
    #[arg(long, value_name = "NAME", conflicts_with = "token_file")]
    certificate_name: Option<String>,
    /// The client id
    #[arg(short = 'i', long, value_name = "ID", default_value = "client")]
    client: String,
    /// Where the client comes from
    #[arg(short, long, value_name = "IP", default_value = "127.0.0.1")]
    address: IpAddr,
    /// The listener that it comes through, by name; otherwise the first one, with --certificate-name the first that takes names of certificates
    #[arg(short, long, value_name = "NAME")]
    listener: Option<String>,
    /// The topic, or for --action subscribe the topic filter
    #[arg(short, long, value_name = "TOPIC")]
    topic: Option<String>,
    /// What it wants to do with it
    #[arg(long, value_enum, default_value_t = What::Publish)]
    action: What,
    /// The QoS that it wants
    #[arg(short, long, value_name = "0|1|2", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=2))]
    qos: u8,
    /// It publishes a retained message
    #[arg(short, long)]
    retain: bool,
    /// The configuration that the broker runs with
    #[arg(short, short_alias = 'C', long, value_name = "FILE", env = "SUNDEW_CONFIG")]
    config: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum What {
    Publish,
    Subscribe,
    Receive,
}

/// What can be said without asking anybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    Allowed,
    Denied,
    /// A program decides.
    Unknown,
}

pub(super) fn run(arguments: &Arguments) -> Exit {
    let Action::Explain(explain) = &arguments.action;
    match explain.answer() {
        Ok((text, known)) => match (output::print(text.as_bytes()), known) {
            (Exit::Done, Known::Allowed) => Exit::Done,
            (Exit::Done, Known::Denied) => Exit::Failed,
            (Exit::Done, Known::Unknown) => Exit::NotKnown,
            (failed, _) => failed,
        },
        Err((exit, message)) => {
            eprintln!("{message}");
            exit
        }
    }
}

impl Explain {
    fn answer(&self) -> Result<(String, Known), (Exit, String)> {
        let lines = |problems: &[config::Problem]| {
            let lines: Vec<_> = problems.iter().map(ToString::to_string).collect();
            (Exit::Config, lines.join("\n"))
        };
        let layers = Layers::new(self.config.clone(), super::serve::environment());
        let loaded = config::load(&layers).map_err(|problems| lines(&problems))?;
        let options = loaded.config.access_options();
        let read = options.read(&foldhash::fast::RandomState::default());
        let access = read.map_err(|problems| (Exit::Config, problems.iter().map(ToString::to_string).collect()))?;
        let (listener, entrance, issuers) = self.listener(&access)?;
        let peer = Peer {
            address: self.address.to_string().into(),
            ip: Some(self.address),
            is_secure: false,
            certificate: self.certificate_name.as_deref().map(certificate_of),
            rules: Arc::new(ListenerRules {
                name: listener.to_owned(),
                ..ListenerRules::default()
            }),
        };
        let mut text = source(&loaded.files);
        let files = options.listeners.iter().find(|one| *one.name == *listener);
        let file = files.and_then(|one| one.password_file.as_ref());
        let wants_certificate = wants_certificate(&loaded.config, listener);
        let (may_enter, identity) = match (&self.certificate_name, &self.token_file) {
            (None, _) if wants_certificate => {
                text += "it may not enter: the listener wants a certificate of the client; see --certificate-name\n";
                (Known::Denied, Identity::default())
            }
            (Some(name), _) if entrance.certificate_name.is_some() => {
                let _ = writeln!(
                    text,
                    "{name} may enter: its certificate says so, by tls.user_name of the listener {listener}"
                );
                (Known::Allowed, named(Some(name)))
            }
            (_, Some(path)) => self.explain_token(path, issuers, &mut text)?,
            (certificate, None) => {
                if certificate.is_some() {
                    let _ = writeln!(
                        text,
                        "its certificate names nobody: the listener {listener} has no tls.user_name"
                    );
                }
                let file = file.map(|file| file.display().to_string());
                let known = self.explain_entrance(entrance, file, &mut text);
                (known, named(self.user.as_deref()))
            }
        };
        let who = Who {
            client_id: &self.client,
            user_name: identity.user_name.as_deref(),
            peer: &peer,
            grants: identity.grants.as_deref(),
        };
        let (may_enter, mount) = explain_tenant(&access.tenants, &who, may_enter, &mut text);
        let mount = mount.as_deref().map(Mount::from_parsed);
        let known = self.explain_rights(may_enter, mount, &access.rules, &who, &mut text)?;
        Ok((text, known))
    }

    /// The listener that is meant.
    fn listener<'a>(&self, access: &'a Access) -> Result<(&'a str, &'a Entrance, &'a Issuers), (Exit, String)> {
        let all = || access.entrances.iter().zip(&access.issuers);
        let found = match (&self.listener, &self.certificate_name) {
            (Some(name), _) => all().find(|((known, _), _)| **known == **name),
            (None, Some(_)) => {
                let takes_names = all().find(|((_, entrance), _)| entrance.certificate_name.is_some());
                takes_names.or_else(|| all().next())
            }
            (None, None) => all().next(),
        };
        let Some(((listener, entrance), issuers)) = found else {
            let known: Vec<_> = access.entrances.iter().map(|(name, _)| &**name).collect();
            let message = format!("there is no such listener; there are: {}", known.join(", "));
            return Err((Exit::Usage, message));
        };
        Ok((listener, entrance, issuers))
    }

    /// What who has entered may do, or, where there is no topic, all the rules that are for him.
    fn explain_rights(
        &self,
        may_enter: Known,
        mount: Option<Mount<'_>>,
        rules: &Rules,
        who: &Who<'_>,
        out: &mut String,
    ) -> Result<Known, (Exit, String)> {
        let Some(topic) = &self.topic else {
            if may_enter != Known::Denied {
                list_rules(rules, who, out);
            }
            return Ok(may_enter);
        };
        let full = self.full_name(topic, mount)?;
        let decision = self.decide(&full, rules, who);
        let action = self.action.of_rules().name();
        if may_enter == Known::Denied {
            let _ = writeln!(out, "to {action} {topic}: not asked, since it may not enter");
            return Ok(Known::Denied);
        }
        let (known, word) = match &decision {
            Decision { is_allowed: true, .. } => (Known::Allowed, "allowed"),
            Decision {
                by: DecidedBy::Elsewhere,
                ..
            } => (Known::Unknown, "not known whether it is allowed"),
            _ => (Known::Denied, "denied"),
        };
        let if_in = if may_enter == Known::Unknown {
            "if it enters: "
        } else {
            ""
        };
        let _ = writeln!(out, "{if_in}{word} to {action} {topic}: {}", reason(&decision));
        Ok(match (may_enter, known) {
            (_, Known::Denied) => Known::Denied,
            (Known::Unknown, _) => Known::Unknown,
            (_, known) => known,
        })
    }

    /// Whether the token that a client shows lets it in, and whom it makes of it.
    fn explain_token(
        &self,
        path: &Path,
        issuers: &Issuers,
        out: &mut String,
    ) -> Result<(Known, Identity), (Exit, String)> {
        let read = if path == Path::new("-") {
            std::io::read_to_string(std::io::stdin())
        } else {
            std::fs::read_to_string(path)
        };
        let token = read.map_err(|error| (Exit::Usage, format!("cannot read {}: {error}", path.display())))?;
        if issuers.is_empty() {
            let _ = writeln!(
                out,
                "the token counts for nothing: no [[auth.jwt]] is for this listener"
            );
            return Ok((Known::Denied, Identity::default()));
        }
        for url in issuers.urls() {
            let (address, fetched) = (&url.options().url, url.fetch());
            fetched.map_err(|error| (Exit::Failed, format!("cannot fetch the keys at {address}: {error}")))?;
        }
        Ok(match issuers.check(token.trim(), &self.client, now_ms()) {
            Err(fault) => {
                let _ = writeln!(
                    out,
                    "the token does not let its client in: reason={}: {fault}",
                    fault.why()
                );
                (Known::Denied, Identity::default())
            }
            Ok((identity, issuer)) => {
                let (name, options) = (identity.user_name.as_deref().unwrap_or_default(), issuer.options());
                let ends = match identity.lifetime_ms {
                    Some(left) => format!("disconnected in {} s", left.div_ceil(1000)),
                    None => "without an end".into(),
                };
                let _ = writeln!(
                    out,
                    "{name} may enter: a token that {} takes, the name from its claim {}, {ends}",
                    options.place, options.user_claim
                );
                (Known::Allowed, identity)
            }
        })
    }

    /// Whether the client gets in at all, its password taken as right.
    fn explain_entrance(&self, entrance: &Entrance, file: Option<String>, out: &mut String) -> Known {
        let file = file.unwrap_or_default();
        let is_asked = entrance.elsewhere.is_some();
        let (known, why) = match (&self.user, &entrance.passwords) {
            (Some(name), Some(users)) if !is_asked || users.get(name).is_some() => match users.get(name) {
                Some(user) => explain_user(user, entrance, &file),
                None => (Known::Denied, format!("reason=unknown_user: not in {file}")),
            },
            (Some(_), None) if entrance.believes_names() => (
                Known::Allowed,
                "there is no password file, and anonymous clients are let in: the name is believed".into(),
            ),
            (None, _) if entrance.allows_anonymous => (Known::Allowed, "anonymous clients are let in".into()),
            _ if is_asked => (
                Known::Unknown,
                "nothing here says so: the broker asks auth.http, which this does not".into(),
            ),
            (Some(_), None) if entrance.tokens.is_some() => (
                Known::Denied,
                format!("reason={NO_TOKEN}: a token is wanted here; see --token-file"),
            ),
            (Some(_), _) => (Known::Denied, "reason=unknown_user: there is no password file".into()),
            (None, _) => (
                Known::Denied,
                "reason=anonymous_disabled: see auth.allow_anonymous".into(),
            ),
        };
        let name = self.user.as_deref().unwrap_or("a client without a user name");
        let verb = match known {
            Known::Allowed => "may enter",
            Known::Denied => "may not enter",
            Known::Unknown => "may enter or not, that is not known",
        };
        let _ = writeln!(out, "{name} {verb}: {why}"); // a String takes everything
        known
    }

    fn decide<'a>(&self, full: &str, rules: &'a Rules, who: &'a Who<'_>) -> Decision<'a> {
        let qos = QoS::from_bits(self.qos).unwrap_or(QoS::ExactlyOnce);
        match self.action {
            What::Publish => rules.publish(who, full, qos, self.retain),
            What::Receive => rules.receive(who, full),
            What::Subscribe => rules.subscribe(who, full),
        }
    }

    /// A topic, or a topic filter without `$share/GROUP/`, as the rules see it: with the mount point of a tenant.
    fn full_name(&self, topic: &str, mount: Option<Mount<'_>>) -> Result<String, (Exit, String)> {
        let wrong = |error: &dyn core::fmt::Display| (Exit::Usage, format!("the topic {topic:?} {error}"));
        let full = if self.action == What::Subscribe {
            let filter = TopicFilter::parse(topic).map_err(|error| wrong(&error))?;
            let filter = TopicFilter::parse(filter.filter()).map_err(|error| wrong(&error))?;
            mount.map_or_else(|| Ok(filter.as_str().to_owned()), |mount| mount.filter(filter))
        } else {
            let name = TopicName::parse(topic).map_err(|error| wrong(&error))?;
            mount.map_or_else(|| Ok(name.as_str().to_owned()), |mount| mount.topic(name))
        };
        full.map_err(|error| wrong(&error))
    }
}

impl What {
    const fn of_rules(self) -> RuleAction {
        match self {
            Self::Publish => RuleAction::Publish,
            Self::Subscribe => RuleAction::Subscribe,
            Self::Receive => RuleAction::Receive,
        }
    }
}

/// The mount point of the tenant that a client belongs to, and whether it may enter as far as that decides.
fn explain_tenant(tenants: &Tenants, who: &Who<'_>, may_enter: Known, out: &mut String) -> (Known, Option<Box<str>>) {
    let mount = match tenants.mount_of(who) {
        Ok(Some(mount)) if may_enter != Known::Denied => mount,
        Ok(_) => return (may_enter, None),
        Err(why) => {
            let _ = writeln!(out, "it may not enter: reason={why}");
            return (Known::Denied, None);
        }
    };
    let listed = tenants.list().iter().find(|tenant| tenant.mount == mount);
    let name = listed.map_or(&*mount, |tenant| &tenant.name);
    let _ = writeln!(
        out,
        "it belongs to the tenant {name}: its topics have {mount} in front, in rules, too"
    );
    (may_enter, Some(mount))
}

/// A certificate with this name.
fn certificate_of(name: &str) -> Arc<PeerCertificate> {
    Arc::new(PeerCertificate {
        common_name: Some(name.to_owned()),
        subject: String::new(),
        alternative_names: Vec::new(),
        id: None,
    })
}

/// What the answer is about.
fn source(files: &[PathBuf]) -> String {
    if files.is_empty() {
        return "configuration: none was named, so this is about the defaults and not about a broker that runs with one; see -c\n".into();
    }
    let files: Vec<_> = files.iter().map(|file| file.display().to_string()).collect();
    format!("configuration: {}\n", files.join(", "))
}

/// Whether nobody gets through the TLS of a listener without a certificate.
fn wants_certificate(config: &Config, listener: &str) -> bool {
    let found = config
        .listeners
        .iter()
        .find(|one| one.name.as_deref() == Some(listener));
    let tls = found.and_then(|one| one.tls.as_ref());
    tls.is_some_and(|tls| tls.client_certificate == ClientCertificate::Required)
}

fn named(user_name: Option<&str>) -> Identity {
    Identity {
        user_name: user_name.map(Into::into),
        ..Identity::default()
    }
}

/// Whether there is a way in for a user of a password file.
fn explain_user(user: &User, entrance: &Entrance, file: &str) -> (Known, String) {
    let (line, kinds) = (user.line, user.entry.kinds());
    let has_method = user.entry.scram.iter().any(|one| entrance.offers(one.mechanism));
    if user.entry.hash.is_some() || has_method {
        (Known::Allowed, format!("{file}:{line}: {kinds}"))
    } else {
        let why = "and auth.enhanced_methods does not have it here";
        (
            Known::Denied,
            format!("reason={ONLY_SCRAM}: {file}:{line}: {kinds}, {why}"),
        )
    }
}

fn reason(decision: &Decision<'_>) -> String {
    match decision.by {
        DecidedBy::Rule(rule) => line(rule),
        DecidedBy::OnlyPart(rule) if decision.is_allowed => {
            format!(
                "{}; what is not allowed of it is left out when it is delivered",
                line(rule)
            )
        }
        DecidedBy::OnlyPart(rule) => format!("{}; it is wider than that, see auth.wide_subscriptions", line(rule)),
        DecidedBy::NoRule => "no rule allows it".into(),
        DecidedBy::NotConfigured => "no rules are configured for this listener".into(),
        DecidedBy::Sys => "$SYS is for clients of this machine and for the group admin, unless a rule says more".into(),
        DecidedBy::Elsewhere if decision.is_allowed => {
            "no rule denies it: it may be received by whom auth.http lets subscribe".into()
        }
        DecidedBy::Elsewhere => "no rule says it: the broker asks auth.http, which this does not".into(),
        DecidedBy::Granted => "auth.wide_subscriptions = \"grant\": what may not be received is left out".into(),
    }
}

fn line(rule: &Rule) -> String {
    let effect = if rule.effect == Effect::Allow {
        "allows"
    } else {
        "denies"
    };
    let all = [RuleAction::Publish, RuleAction::Subscribe, RuleAction::Receive];
    let actions: Vec<_> = all
        .into_iter()
        .filter(|action| rule.actions.contains(*action))
        .map(RuleAction::name)
        .collect();
    format!(
        "{}: {effect} {} on {}",
        rule.place,
        actions.join(", "),
        rule.topics.as_str()
    )
}

fn list_rules(rules: &Rules, who: &Who<'_>, out: &mut String) {
    if !rules.govern(who) {
        let _ = writeln!(
            out,
            "no rules are configured for this listener: everything is allowed but $SYS from elsewhere"
        );
        return;
    }
    let mut count = 0;
    for (rule, filter) in rules.applying(who) {
        let is_other = *filter != *rule.topics.as_str();
        let here = if is_other {
            format!(", here {filter}")
        } else {
            String::new()
        };
        let _ = writeln!(out, "{}{here}", line(rule));
        count += 1;
    }
    if count == 0 {
        let _ = writeln!(out, "no rule applies: nothing is allowed");
    }
}

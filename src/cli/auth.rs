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
use crate::auth::{Access as Who, Identity};
use crate::backends::token::{Issuers, now_ms};
use crate::config::{self, Layers};
use crate::protocol::qos::QoS;
use crate::protocol::topic::{TopicFilter, TopicName};
use crate::session::peer::{ListenerRules, Peer};

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
/// applies to the client. Exit code 0: allowed. 1: denied.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sundew auth explain --user alice
  sundew auth explain --user alice --topic home/lamp --action publish
  sundew auth explain --token-file token.jwt --topic home/lamp
  sundew auth explain --client sensor-7 --address 10.0.0.7 --topic 'home/#' --action subscribe")]
struct Explain {
    /// The user name; without one: a client that has none
    #[arg(short, long, value_name = "NAME")]
    user: Option<String>,
    /// A file with the token that the client shows; - for standard input
    #[arg(long, value_name = "FILE", conflicts_with = "user")]
    token_file: Option<PathBuf>,
    /// The client id
    #[arg(short = 'i', long, value_name = "ID", default_value = "client")]
    client: String,
    /// Where the client comes from
    #[arg(short, long, value_name = "IP", default_value = "127.0.0.1")]
    address: IpAddr,
    /// The listener that it comes through, by name; otherwise the first one
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
    /// The configuration
    #[arg(short = 'C', long, value_name = "FILE", env = "SUNDEW_CONFIG")]
    config: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum What {
    Publish,
    Subscribe,
    Receive,
}

pub(super) fn run(arguments: &Arguments) -> Exit {
    let Action::Explain(explain) = &arguments.action;
    match explain.answer() {
        Ok((text, is_allowed)) => match output::print(text.as_bytes()) {
            Exit::Done if is_allowed => Exit::Done,
            Exit::Done => Exit::Failed,
            failed => failed,
        },
        Err((exit, message)) => {
            eprintln!("{message}");
            exit
        }
    }
}

impl Explain {
    fn answer(&self) -> Result<(String, bool), (Exit, String)> {
        let lines = |problems: &[config::Problem]| {
            let lines: Vec<_> = problems.iter().map(ToString::to_string).collect();
            (Exit::Config, lines.join("\n"))
        };
        let layers = Layers::new(self.config.clone(), super::serve::environment());
        let loaded = config::load(&layers).map_err(|problems| lines(&problems))?;
        let options = loaded.config.access_options();
        let read = options.read(&foldhash::fast::RandomState::default());
        let access = read.map_err(|problems| {
            let lines: Vec<_> = problems.iter().map(ToString::to_string).collect();
            (Exit::Config, lines.join("\n"))
        })?;
        let mut entrances = access.entrances.iter().zip(&access.issuers);
        let entrance = match &self.listener {
            None => entrances.next(),
            Some(name) => entrances.find(|((known, _), _)| **known == **name),
        };
        let Some(((listener, entrance), issuers)) = entrance else {
            let known: Vec<_> = access.entrances.iter().map(|(name, _)| &**name).collect();
            return Err((
                Exit::Usage,
                format!("there is no such listener; there are: {}", known.join(", ")),
            ));
        };
        let peer = Peer {
            address: self.address.to_string().into(),
            ip: Some(self.address),
            is_secure: false,
            certificate: None,
            rules: Arc::new(ListenerRules {
                name: listener.to_string(),
                ..ListenerRules::default()
            }),
        };
        let mut text = String::new();
        let files = options.listeners.iter().find(|one| one.name == *listener);
        let file = files.and_then(|one| one.password_file.as_ref());
        let (may_enter, identity) = match &self.token_file {
            Some(path) => self.explain_token(path, issuers, &mut text)?,
            None => {
                let file = file.map(|file| file.display().to_string());
                let is_in = self.explain_entrance(entrance, file, &mut text);
                let user_name = self.user.as_deref().map(Into::into);
                (
                    is_in,
                    Identity {
                        user_name,
                        ..Identity::default()
                    },
                )
            }
        };
        let who = Who {
            client_id: &self.client,
            user_name: identity.user_name.as_deref(),
            peer: &peer,
            grants: identity.grants.as_deref(),
        };
        let is_allowed = match &self.topic {
            None => {
                list_rules(&access.rules, &who, &mut text);
                may_enter
            }
            Some(topic) => self.explain_topic(topic, &access.rules, &who, &mut text)? && may_enter,
        };
        Ok((text, is_allowed))
    }

    /// Whether the token that a client shows lets it in, and whom it makes of it.
    fn explain_token(
        &self,
        path: &Path,
        issuers: &Issuers,
        out: &mut String,
    ) -> Result<(bool, Identity), (Exit, String)> {
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
            return Ok((false, Identity::default()));
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
                (false, Identity::default())
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
                (true, identity)
            }
        })
    }

    /// Whether the client gets in at all, its password taken as right.
    fn explain_entrance(&self, entrance: &Entrance, file: Option<String>, out: &mut String) -> bool {
        let file = file.unwrap_or_default();
        let is_asked = entrance.elsewhere.is_some();
        let (is_in, why) = match (&self.user, &entrance.passwords) {
            (Some(name), Some(users)) if !is_asked || users.get(name).is_some() => match users.get(name) {
                Some(user) => explain_user(user, entrance, &file),
                None => (false, format!("reason=unknown_user: not in {file}")),
            },
            (Some(_), None) if entrance.believes_names() => (
                true,
                "there is no password file, and anonymous clients are let in: the name is believed".into(),
            ),
            (None, _) if entrance.allows_anonymous => (true, "anonymous clients are let in".into()),
            _ if is_asked => (
                false,
                "nothing here says so: the broker asks auth.http, which this does not".into(),
            ),
            (Some(_), None) if entrance.tokens.is_some() => (
                false,
                format!("reason={NO_TOKEN}: a token is wanted here; see --token-file"),
            ),
            (Some(_), _) => (false, "reason=unknown_user: there is no password file".into()),
            (None, _) => (false, "reason=anonymous_disabled: see auth.allow_anonymous".into()),
        };
        let name = self.user.as_deref().unwrap_or("a client without a user name");
        let verb = if is_in { "may enter" } else { "may not enter" };
        let _ = writeln!(out, "{name} {verb}: {why}"); // a String takes everything
        is_in
    }

    fn explain_topic(
        &self,
        topic: &str,
        rules: &Rules,
        who: &Who<'_>,
        out: &mut String,
    ) -> Result<bool, (Exit, String)> {
        let wrong = |error| (Exit::Usage, format!("the topic {topic:?} {error}"));
        let qos = QoS::from_bits(self.qos).unwrap_or(QoS::ExactlyOnce);
        let decision = match self.action {
            What::Publish => {
                let topic = TopicName::parse(topic).map_err(wrong)?;
                rules.publish(who, topic.as_str(), qos, self.retain)
            }
            What::Receive => rules.receive(who, TopicName::parse(topic).map_err(wrong)?.as_str()),
            What::Subscribe => rules.subscribe(who, TopicFilter::parse(topic).map_err(wrong)?.filter()),
        };
        let action = match self.action {
            What::Publish => RuleAction::Publish,
            What::Subscribe => RuleAction::Subscribe,
            What::Receive => RuleAction::Receive,
        };
        let word = if decision.is_allowed { "allowed" } else { "denied" };
        let _ = writeln!(out, "{word} to {} {topic}: {}", action.name(), reason(&decision));
        Ok(decision.is_allowed)
    }
}

/// Whether there is a way in for a user of a password file.
fn explain_user(user: &User, entrance: &Entrance, file: &str) -> (bool, String) {
    let (line, kinds) = (user.line, user.entry.kinds());
    let has_method = user.entry.scram.iter().any(|one| entrance.offers(one.mechanism));
    if user.entry.hash.is_some() || has_method {
        (true, format!("{file}:{line}: {kinds}"))
    } else {
        let why = "and auth.enhanced_methods does not have it here";
        (false, format!("reason={ONLY_SCRAM}: {file}:{line}: {kinds}, {why}"))
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

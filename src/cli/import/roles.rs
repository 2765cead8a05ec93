//! What the roles of dynamic security come to: groups and rules.

use std::collections::BTreeMap;

use super::dynamic_security::{About, Acl, Client, DynamicSecurity, Role};
use super::outcome::{Outcome, Table, Weight, all, list, quoted};
use crate::auth::filter::{covers, overlap};

/// What comes of them.
#[derive(Debug, Default)]
pub(super) struct Rules {
    /// `[auth.groups]`, then `[[auth.rules]]`.
    pub(super) tables: Vec<Table>,
    /// For `auth.wide_subscriptions`, with the reason.
    pub(super) wide: Option<(&'static str, String)>,
}

/// The group of all users of the file.
const KNOWN: &str = "dynamic-security";
/// Groups that Sundew has already.
const TAKEN: [&str; 3] = ["admin", "anonymous", "authenticated"];

/// Makes rules; with `listeners` for these only. `is_certified`: others than the users of the file may enter, too.
pub(super) fn carry(read: &DynamicSecurity, listeners: &[String], is_certified: bool, out: &mut Outcome) -> Rules {
    let mut making = Making {
        read,
        listeners,
        groups: Table::new("[auth.groups]", ""),
        rules: Vec::new(),
        wide: None,
    };
    for (number, role) in read.roles.iter().enumerate() {
        making.role(number, role, out);
    }
    if !read.defaults.receive {
        making.readers(out);
    }
    making.defaults(is_certified);
    let Making {
        groups, rules, wide, ..
    } = making;
    Rules {
        tables: [groups].into_iter().chain(rules).collect(),
        wide,
    }
}

struct Making<'a> {
    read: &'a DynamicSecurity,
    listeners: &'a [String],
    groups: Table,
    rules: Vec<Table>,
    wide: Option<(&'static str, String)>,
}

impl Making<'_> {
    fn role(&mut self, number: usize, role: &Role, out: &mut Outcome) {
        let is_member = |client: &&Client| client.roles.contains(&number);
        let members: Vec<_> = self.read.clients.iter().filter(is_member).collect();
        let is_anonymous = self.read.anonymous.contains(&number);
        if members.is_empty() && !is_anonymous {
            let what = format!("role {}: nobody has it", role.name);
            out.remark(Weight::LeftOut, Some(self.read.place(role.line)), what);
            return;
        }
        let kept = self.kept(number, role, &members, out);
        if kept.is_empty() {
            return;
        }
        let unbound: Vec<_> = members
            .iter()
            .filter(|client| client.client_id.is_none())
            .map(|client| client.name.clone())
            .collect();
        let mut groups = Vec::new();
        if !unbound.is_empty() {
            let name = if TAKEN.contains(&role.name.as_str()) {
                format!("role-{}", role.name)
            } else {
                role.name.clone()
            };
            self.groups
                .set(&quoted(&name), all(&unbound), self.read.place(role.line));
            groups.push(name);
        }
        if is_anonymous {
            groups.push("anonymous".to_owned());
        }
        let bound = members.iter().filter(|client| client.client_id.is_some());
        let whom: Vec<_> = bound
            .map(|client| Whom::Bound(client))
            .chain((!groups.is_empty()).then_some(Whom::Groups(&groups)))
            .collect();
        for whom in &whom {
            for (allows, about) in [
                (true, About::Publish),
                (true, About::Subscribe),
                (false, About::Publish),
                (false, About::Subscribe),
                (false, About::Receive),
            ] {
                let acls: Vec<_> = kept
                    .iter()
                    .copied()
                    .filter(|acl| acl.allows == allows && same(acl.about, about))
                    .collect();
                self.rule(allows, about, &acls, whom);
            }
        }
    }

    /// The rules of a role that say something here.
    fn kept<'r>(&mut self, number: usize, role: &'r Role, members: &[&Client], out: &mut Outcome) -> Vec<&'r Acl> {
        let receives = self.read.defaults.receive;
        let mut kept = Vec::new();
        for (index, acl) in role.acls.iter().enumerate() {
            let earlier = role.acls[..index]
                .iter()
                .filter(|other| other.allows && same(other.about, acl.about));
            let say =
                |out: &mut Outcome, weight, what: String| out.remark(weight, Some(self.read.place(acl.line)), what);
            let shown = &acl.topic;
            match (acl.allows, acl.about) {
                // Where receiving is allowed by default, or is asked about with the subscriptions.
                (true, About::Receive) => continue,
                (true, About::Subscribe | About::SubscribeTo) if !receives => continue,
                (true, _) => {}
                (false, _) if earlier.clone().any(|other| covers(&other.topic, shown)) => {
                    say(
                        out,
                        Weight::LeftOut,
                        format!(
                            "role {}: denies {shown}, but a rule before it allows all of that",
                            role.name
                        ),
                    );
                    continue;
                }
                (false, About::SubscribeTo) if acl.topic.contains(['+', '#']) => {
                    let is_allowed = role
                        .acls
                        .iter()
                        .any(|other| other.allows && other.about == About::Subscribe && covers(&other.topic, shown));
                    let what = format!(
                        "role {}: denies the subscription {shown} itself, not what it matches; here rules are about topics",
                        role.name
                    );
                    say(
                        out,
                        if is_allowed {
                            Weight::NotCarried
                        } else {
                            Weight::LeftOut
                        },
                        what,
                    );
                    continue;
                }
                (false, _) => {
                    if earlier.clone().any(|other| overlap(&other.topic, shown)) {
                        let what = format!(
                            "role {}: denies {shown} after a rule that allows a part of it; here all of it is denied",
                            role.name
                        );
                        say(out, Weight::NotCarried, what);
                    }
                    if let Some(client) = members
                        .iter()
                        .find(|client| self.is_allowed_before(client, number, acl))
                    {
                        let what = format!(
                            "role {}: denies {shown}, which another role allows to {:?} before; here it is denied",
                            role.name, client.name
                        );
                        say(out, Weight::NotCarried, what);
                    }
                    if matches!(acl.about, About::Subscribe | About::SubscribeTo) {
                        let from = format!(
                            "{}: a wider subscription is granted, without that",
                            self.read.place(acl.line)
                        );
                        self.wide.get_or_insert(("narrow", from));
                    }
                }
            }
            kept.push(acl);
        }
        kept
    }

    /// Whether a role that is asked earlier for a client allows a part of what is denied.
    fn is_allowed_before(&self, client: &Client, number: usize, denied: &Acl) -> bool {
        let before = client.roles.iter().take_while(|role| **role != number);
        let mut acls = before.flat_map(|role| &self.read.roles[*role].acls);
        acls.any(|acl| acl.allows && same(acl.about, denied.about) && overlap(&acl.topic, &denied.topic))
    }

    /// Who may subscribe to what, where receiving has to be allowed as well: by client, since one role may allow the one and another the
    /// other.
    fn readers(&mut self, out: &mut Outcome) {
        let mut by_topics: BTreeMap<(Vec<String>, Option<String>), (Vec<String>, Vec<u32>)> = BTreeMap::new();
        let clients = self
            .read
            .clients
            .iter()
            .map(|client| (client.name.clone(), &client.roles, client.client_id.clone()));
        let anonymous = (String::new(), &self.read.anonymous, None);
        for (name, roles, client_id) in clients.chain([anonymous]) {
            let acls = || {
                roles
                    .iter()
                    .flat_map(|role| &self.read.roles[*role].acls)
                    .filter(|acl| acl.allows)
            };
            let (mut topics, mut lines) = (Vec::new(), Vec::new());
            let wide = self.read.defaults.subscribe.then_some("#");
            let subscribes = acls()
                .filter(|acl| same(acl.about, About::Subscribe))
                .map(|acl| acl.topic.as_str())
                .chain(wide);
            for filter in subscribes {
                for received in acls().filter(|acl| acl.about == About::Receive && overlap(&acl.topic, filter)) {
                    let narrower = if covers(&received.topic, filter) {
                        filter
                    } else if covers(filter, &received.topic) {
                        let from = format!(
                            "{}: a wider subscription is granted, and this delivered",
                            self.read.place(received.line)
                        );
                        self.wide.get_or_insert(("narrow", from));
                        &received.topic
                    } else {
                        let what = format!(
                            "{name:?} may receive {} of {filter} only, which no rule can say here",
                            received.topic
                        );
                        out.remark(Weight::NotCarried, Some(self.read.place(received.line)), what);
                        continue;
                    };
                    topics.push(narrower.to_owned());
                    lines.push(received.line);
                }
            }
            topics.sort();
            topics.dedup();
            if !topics.is_empty() {
                let entry = by_topics.entry((topics, client_id)).or_default();
                entry.0.push(name);
                entry.1.extend(lines);
            }
        }
        for ((topics, client_id), (names, mut lines)) in by_topics {
            lines.sort_unstable();
            lines.dedup();
            let mut rule = self.begin(true, &["subscribe"]);
            let places: Vec<_> = lines.iter().map(|line| self.read.place(*line).to_string()).collect();
            rule.set("topics", all(&topics), places.join(", "));
            let users: Vec<_> = names.iter().filter(|name| !name.is_empty()).cloned().collect();
            if !users.is_empty() {
                rule.set("users", all(&users), "");
            }
            if users.len() < names.len() {
                rule.text("groups", "anonymous", "");
            }
            if let Some(id) = client_id {
                rule.text("client_ids", &id, "");
            }
            self.rules.push(rule);
        }
    }

    /// What is allowed without a rule: to users of the file and to those without a name. Mostly no others enter.
    fn defaults(&mut self, is_certified: bool) {
        let defaults = self.read.defaults;
        if is_certified && (defaults.publish || defaults.subscribe) {
            let names: Vec<_> = self.read.clients.iter().map(|client| client.name.clone()).collect();
            self.groups.set(KNOWN, all(&names), "those that mosquitto knows");
        }
        for (is_allowed, action) in [
            (defaults.publish, "publish"),
            (defaults.subscribe && defaults.receive, "subscribe"),
        ] {
            if is_allowed {
                let mut rule = self.begin(true, &[action]);
                let topics: &[&str] = if action == "publish" { &["#"] } else { &["#", "$SYS/#"] };
                let topics: Vec<_> = topics.iter().map(|topic| (*topic).to_owned()).collect();
                rule.set("topics", all(&topics), format!("{}: defaultACLAccess", self.read.file));
                if is_certified {
                    rule.set("groups", all(&[KNOWN.to_owned(), "anonymous".to_owned()]), "");
                }
                self.rules.push(rule);
            }
        }
    }

    fn begin(&self, allows: bool, actions: &[&str]) -> Table {
        let mut rule = Table::new("[[auth.rules]]", "");
        rule.text("effect", if allows { "allow" } else { "deny" }, "");
        let actions: Vec<_> = actions.iter().map(|action| (*action).to_owned()).collect();
        rule.set("actions", all(&actions), "");
        if !self.listeners.is_empty() {
            rule.set("listeners", all(self.listeners), "");
        }
        rule
    }

    fn rule(&mut self, allows: bool, about: About, acls: &[&Acl], whom: &Whom<'_>) {
        if acls.is_empty() {
            return;
        }
        let action = match about {
            About::Publish => "publish",
            About::Receive => "receive",
            About::Subscribe | About::SubscribeTo => "subscribe",
        };
        let mut topics: Vec<String> = Vec::new();
        let mut places: Vec<String> = Vec::new();
        for acl in acls {
            if !topics.contains(&acl.topic) {
                topics.push(acl.topic.clone());
                places.push(self.read.place(acl.line).to_string());
            }
        }
        let mut rule = self.begin(allows, &[action]);
        rule.set("topics", all(&topics), places.join(", "));
        match whom {
            Whom::Groups(groups) => rule.set("groups", list(groups), ""),
            Whom::Bound(client) => {
                rule.text("users", &client.name, "");
                if let Some(id) = &client.client_id {
                    rule.text("client_ids", id, self.read.place(client.line));
                }
            }
        }
        self.rules.push(rule);
    }
}

/// To whom a rule applies.
enum Whom<'a> {
    Groups(&'a [String]),
    Bound(&'a Client),
}

/// Both kinds of subscriptions are one here.
fn same(one: About, other: About) -> bool {
    let simple = |about| {
        if about == About::SubscribeTo {
            About::Subscribe
        } else {
            about
        }
    };
    simple(one) == simple(other)
}

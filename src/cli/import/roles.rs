//! What the roles of dynamic security come to: groups and rules.

use std::collections::{BTreeMap, BTreeSet};

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
    for client in read.clients.iter().filter(|client| !can_be_bound(client)) {
        let what = format!(
            "user {:?}: a client id that ends in * stands for all that begin so here; he enters and may do nothing",
            client.name
        );
        out.remark(Weight::NotCarried, Some(read.place(client.line)), what);
    }
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
        let is_member = |client: &&Client| can_be_bound(client) && client.roles.contains(&number);
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
            let is_kept = match (acl.allows, acl.about) {
                // Where receiving is allowed by default, or is asked about with the subscriptions.
                (true, About::Receive) => false,
                (true, About::Subscribe | About::SubscribeTo) => receives,
                (true, About::Publish) => true,
                (false, _) => self.denies(role, index, out),
            };
            if !is_kept {
                continue;
            }
            kept.push(acl);
            let is_allowed = |client: &&&Client| !acl.allows && self.is_allowed_before(client, number, acl);
            if let Some(client) = members.iter().find(is_allowed) {
                let what = format!(
                    "role {}: denies {}, which another role allows to {:?} before; here it is denied",
                    role.name, acl.topic, client.name
                );
                out.remark(Weight::NotCarried, Some(self.read.place(acl.line)), what);
            }
        }
        kept
    }

    /// Whether a rule of a role that denies does so here, too. Says where that is more than in mosquitto, or less.
    fn denies(&mut self, role: &Role, index: usize, out: &mut Outcome) -> bool {
        let acl = &role.acls[index];
        let (topic, place) = (&acl.topic, self.read.place(acl.line));
        let earlier = || {
            role.acls[..index]
                .iter()
                .filter(|other| other.allows && same(other.about, acl.about))
        };
        let mut say = |weight, what: &str| {
            out.remark(
                weight,
                Some(place.clone()),
                format!("role {}: denies {topic}{what}", role.name),
            )
        };
        if earlier().any(|other| covers(&other.topic, topic)) {
            say(Weight::LeftOut, ", but a rule before it allows all of that");
            return false;
        }
        if acl.about == About::SubscribeTo && topic.contains(['+', '#']) {
            let allows = |other: &&Acl| other.allows && other.about == About::Subscribe && covers(&other.topic, topic);
            let is_allowed = role.acls.iter().any(|other| allows(&other));
            let weight = if is_allowed {
                Weight::NotCarried
            } else {
                Weight::LeftOut
            };
            say(
                weight,
                " as a subscription, not what it matches; here rules are about topics",
            );
            return false;
        }
        if earlier().any(|other| overlap(&other.topic, topic)) {
            say(
                Weight::NotCarried,
                " after a rule that allows a part of it; here all of it is denied",
            );
        }
        if same(acl.about, About::Subscribe) {
            let from = format!("{place}: a wider subscription is granted, without that");
            self.wide.get_or_insert(("narrow", from));
        }
        true
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
        let mut by_topics: BTreeMap<(Vec<String>, Option<&str>), Readers> = BTreeMap::new();
        let read = self.read;
        let clients = read.clients.iter().filter(|client| can_be_bound(client));
        let clients = clients.map(|client| (client.name.as_str(), &client.roles, client.client_id.as_deref()));
        for (name, roles, client_id) in clients.chain([("", &read.anonymous, None)]) {
            let readable = self.readable(name, roles, out);
            if readable.is_empty() {
                continue;
            }
            let topics = readable.keys().cloned().collect();
            let readers = by_topics.entry((topics, client_id)).or_default();
            readers.names.push(name.to_owned());
            readers.lines.extend(readable.into_values());
        }
        for ((topics, client_id), readers) in by_topics {
            let mut rule = self.begin(true, &["subscribe"]);
            let places = readers.lines.iter().map(|line| self.read.place(*line).to_string());
            rule.set("topics", all(&topics), places.collect::<Vec<_>>().join(", "));
            let users: Vec<_> = readers.names.iter().filter(|name| !name.is_empty()).cloned().collect();
            if !users.is_empty() {
                rule.set("users", all(&users), "");
            }
            if users.len() < readers.names.len() {
                rule.text("groups", "anonymous", "");
            }
            if let Some(id) = client_id {
                rule.text("client_ids", id, "");
            }
            self.rules.push(rule);
        }
    }

    /// What a client may subscribe to and receive, each with the line that allows to receive it.
    fn readable(&mut self, name: &str, roles: &[usize], out: &mut Outcome) -> BTreeMap<String, u32> {
        let mut readable = BTreeMap::new();
        let read = self.read;
        let acls = || {
            roles
                .iter()
                .flat_map(|role| &read.roles[*role].acls)
                .filter(|acl| acl.allows)
        };
        let by_default = read.defaults.subscribe.then_some("#");
        let subscribes = acls().filter(|acl| same(acl.about, About::Subscribe));
        for filter in subscribes.map(|acl| acl.topic.as_str()).chain(by_default) {
            for received in acls().filter(|acl| acl.about == About::Receive && overlap(&acl.topic, filter)) {
                let narrower = if covers(&received.topic, filter) {
                    filter
                } else if covers(filter, &received.topic) {
                    let place = read.place(received.line);
                    let from = format!("{place}: a wider subscription is granted, and this delivered");
                    self.wide.get_or_insert(("narrow", from));
                    &received.topic
                } else {
                    let what = format!(
                        "{name:?} may receive {} of {filter} only, which no rule can say here",
                        received.topic
                    );
                    out.remark(Weight::NotCarried, Some(read.place(received.line)), what);
                    continue;
                };
                readable.insert(narrower.to_owned(), received.line);
            }
        }
        readable
    }

    /// What is allowed without a rule: to users of the file and to those without a name. Mostly no others enter.
    fn defaults(&mut self, is_certified: bool) {
        let (defaults, read) = (self.read.defaults, self.read);
        // Who may enter with one client id only may do nothing with another.
        let (bound, unbound): (Vec<_>, Vec<_>) = read.clients.iter().partition(|client| client.client_id.is_some());
        let is_grouped = is_certified || !bound.is_empty();
        let mut groups = vec!["anonymous".to_owned()];
        if is_grouped && !unbound.is_empty() && (defaults.publish || defaults.subscribe) {
            let names: Vec<_> = unbound.iter().map(|client| client.name.clone()).collect();
            self.groups.set(KNOWN, all(&names), "those that mosquitto knows");
            groups.insert(0, KNOWN.to_owned());
        }
        for (is_allowed, action) in [
            (defaults.publish, "publish"),
            (defaults.subscribe && defaults.receive, "subscribe"),
        ] {
            if is_allowed {
                let topics: &[&str] = if action == "publish" { &["#"] } else { &["#", "$SYS/#"] };
                let topics: Vec<_> = topics.iter().map(|topic| (*topic).to_owned()).collect();
                let mut begun = self.begin(true, &[action]);
                begun.set("topics", all(&topics), format!("{}: defaultACLAccess", read.file));
                let mut rule = begun.clone();
                if is_grouped {
                    rule.set("groups", all(&groups), "");
                }
                self.rules.push(rule);
                for client in bound.iter().filter(|client| can_be_bound(client)) {
                    let mut rule = begun.clone();
                    bind(&mut rule, client, read);
                    self.rules.push(rule);
                }
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
            Whom::Bound(client) => bind(&mut rule, client, self.read),
        }
        self.rules.push(rule);
    }
}

/// Whether rules can be for a user with its client id only, or it has none that is its own.
fn can_be_bound(client: &Client) -> bool {
    client.client_id.as_ref().is_none_or(|id| !id.ends_with('*'))
}

/// Makes a rule one for a user with its client id only.
fn bind(rule: &mut Table, client: &Client, read: &DynamicSecurity) {
    rule.text("users", &client.name, "");
    if let Some(id) = &client.client_id {
        rule.text("client_ids", id, read.place(client.line));
    }
}

/// Clients that may receive the same.
#[derive(Default)]
struct Readers {
    /// The empty one is for those without a name.
    names: Vec<String>,
    lines: BTreeSet<u32>,
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

#[cfg(test)]
mod tests {
    use crate::cli::import::tests::import;

    /// A user of one of them may be another person in the other.
    #[test]
    fn of_two_files_the_second_closes_its_listener() {
        let file = r#"{"clients": [{"username": "alice", "roles": [{"rolename": "r"}]}], "groups": [{"groupname": "g"}],
            "roles": [{"rolename": "r", "acls": [{"acltype": "publishClientSend", "topic": "a", "allow": true}]}]}"#;
        let plugin = "plugin dynamic_security.so\nplugin_opt_config_file";
        let conf = |other: &str| {
            format!("per_listener_settings true\nlistener 1883\n{plugin} @/d.json\nlistener 1884\n{plugin} @/{other}\n")
        };
        let read = |other: &str| import(&[("mosquitto.conf", &conf(other)), ("d.json", file), ("e.json", file)]);
        let (configuration, remarks, out) = read("e.json");
        assert_eq!(configuration.matches("[auth.groups]").count(), 1, "{configuration}");
        assert!(configuration.contains("acl_file = \"acl\""), "{configuration}");
        assert!(
            remarks
                .iter()
                .any(|remark| remark.starts_with("mosquitto.conf:7: not carried: ")),
            "{remarks:?}"
        );
        assert_eq!(out.files.len(), 2);
        // One file that two lines name is one.
        let (configuration, _, out) = read("d.json");
        assert!(
            !configuration.contains("acl_file") && out.files.len() == 1,
            "{configuration}"
        );
    }

    #[test]
    fn a_client_id_that_would_be_a_pattern_here_is_given_nothing() {
        let conf = "listener 1883\nplugin mosquitto_dynamic_security.so\nplugin_opt_config_file @/d.json\n";
        let json = r#"{"defaultACLAccess": {"publishClientSend": true, "publishClientReceive": true, "subscribe": true},
            "clients": [{"username": "bound", "clientid": "c*", "roles": [{"rolename": "r"}]}],
            "roles": [{"rolename": "r", "acls": [{"acltype": "publishClientSend", "topic": "a", "allow": true}]}]}"#;
        let (configuration, remarks, _) = import(&[("mosquitto.conf", conf), ("d.json", json)]);
        assert!(
            !configuration.contains("c*") && !configuration.contains("bound"),
            "{configuration}"
        );
        let allowing: Vec<_> = configuration.split("[[auth.rules]]").skip(1).collect();
        assert!(
            allowing.iter().all(|rule| rule.contains("groups = ")),
            "not for everybody: {configuration}"
        );
        assert!(remarks.iter().any(|remark| remark.contains("ends in *")), "{remarks:?}");
    }
}

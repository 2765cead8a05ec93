//! The file of mosquitto's dynamic security: users, groups and roles.
//!
//! mosquitto asks roles in the order of their priority, in each its rules likewise, and the first that fits decides. In Sundew a rule that denies
//! wins. So a rule that denies and is never reached is dropped, and one that is reached in part only is stricter here, which is said.
//!
//! mosquitto asks a subscription by what is subscribed to, and again each message that is delivered; in Sundew who may subscribe may receive.

use std::sync::Arc;

use super::grammar::Place;
use super::json::Json;
use super::outcome::{Outcome, Weight};
use crate::auth::password::{PasswordHash, wrong_with_name};
use crate::auth::rule::TopicPattern;

/// What a rule of a role is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum About {
    /// `publishClientSend`
    Publish,
    /// `publishClientReceive`
    Receive,
    /// `subscribePattern`: everything that the filter covers.
    Subscribe,
    /// `subscribeLiteral`: the filter itself.
    SubscribeTo,
}

/// A rule of a role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acl {
    /// Where it stands.
    pub line: u32,
    /// Of what.
    pub about: About,
    /// Topic filter.
    pub topic: String,
    /// Whether it allows.
    pub allows: bool,
    priority: i64,
}

/// A role with its rules, in the order in which they are asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Role {
    /// Where it stands.
    pub line: u32,
    /// Its name.
    pub name: String,
    /// The first that fits decides.
    pub acls: Vec<Acl>,
}

/// A user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// Where it stands.
    pub line: u32,
    /// Its name.
    pub name: String,
    /// What stands in a password file.
    pub hash: Option<String>,
    /// The only client id that it may use.
    pub client_id: Option<String>,
    /// Numbers of its roles in the order in which they are asked, those of its groups included.
    pub roles: Vec<usize>,
}

/// What is allowed where no rule says anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Defaults {
    /// To publish.
    pub publish: bool,
    /// To be sent messages.
    pub receive: bool,
    /// To subscribe.
    pub subscribe: bool,
}

/// A whole file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DynamicSecurity {
    /// As it is to be shown.
    pub file: Arc<str>,
    /// Users that may enter.
    pub clients: Vec<Client>,
    /// Roles.
    pub roles: Vec<Role>,
    /// Numbers of the roles of clients without a user name.
    pub anonymous: Vec<usize>,
    /// Where no rule says anything.
    pub defaults: Defaults,
}

impl DynamicSecurity {
    /// Reads a file. What is strange in it is said.
    ///
    /// # Errors
    /// It is no JSON.
    pub fn parse(file: &str, json: &str, out: &mut Outcome) -> Result<Self, String> {
        let json = Json::parse(json).map_err(|error| format!("{file}:{}: {}", error.line, error.message))?;
        let mut read = Self {
            file: file.into(),
            clients: Vec::new(),
            roles: Vec::new(),
            anonymous: Vec::new(),
            defaults: Defaults::default(),
        };
        if let Some(defaults) = json.get("defaultACLAccess") {
            let is_true = |name| defaults.get(name).and_then(Json::bool) == Some(true);
            read.defaults = Defaults {
                publish: is_true("publishClientSend"),
                receive: is_true("publishClientReceive"),
                subscribe: is_true("subscribe"),
            };
        }
        for role in members(&json, "roles") {
            read.role(role, out);
        }
        let groups: Vec<_> = members(&json, "groups").iter().collect();
        for client in members(&json, "clients") {
            read.client(client, &groups, out);
        }
        if let Some(name) = json.get("anonymousGroup").and_then(Json::text) {
            let group = groups.iter().find(|group| text(group, "groupname") == Some(name));
            read.anonymous = group.map(|group| read.roles_of(group)).unwrap_or_default();
        }
        Ok(read)
    }

    /// A line of the file.
    pub fn place(&self, line: u32) -> Place {
        Place {
            file: Arc::clone(&self.file),
            line,
        }
    }

    fn say(&self, out: &mut Outcome, weight: Weight, line: u32, what: String) {
        out.remark(weight, Some(self.place(line)), what);
    }

    fn role(&mut self, json: &Json, out: &mut Outcome) {
        let is_new = |name: &&str| self.roles.iter().all(|role| role.name != *name);
        let Some(name) = text(json, "rolename").filter(is_new) else {
            let what = "a role without a name of its own; mosquitto passes over it".to_owned();
            return self.say(out, Weight::LeftOut, json.line, what);
        };
        let is_control = |acl: &Json| text(acl, "topic").is_some_and(|topic| topic.starts_with("$CONTROL"));
        let all = members(json, "acls");
        if all.iter().any(is_control) {
            let what = format!(
                "role {name}: rights on $CONTROL: users and rules are changed by `sundew user` and in the files"
            );
            self.say(out, Weight::LeftOut, json.line, what);
        }
        let acls = all.iter().filter(|acl| !is_control(acl));
        let mut acls: Vec<_> = acls.filter_map(|acl| self.acl(acl, out)).collect();
        acls.sort_by_key(|acl| -acl.priority);
        self.roles.push(Role {
            line: json.line,
            name: name.to_owned(),
            acls,
        });
    }

    fn acl(&self, json: &Json, out: &mut Outcome) -> Option<Acl> {
        let (kind, topic) = (text(json, "acltype")?, text(json, "topic")?);
        let allows = json.get("allow").and_then(Json::bool) == Some(true);
        let mut say = |weight, what: &str| self.say(out, weight, json.line, format!("{kind} {topic}: {what}"));
        let about = match kind.to_ascii_lowercase().as_str() {
            "publishclientsend" => About::Publish,
            "publishclientreceive" => About::Receive,
            "subscribepattern" => About::Subscribe,
            "subscribeliteral" => About::SubscribeTo,
            kind if kind.starts_with("unsubscribe") => {
                if !allows {
                    say(Weight::LeftOut, "who is subscribed may always unsubscribe");
                }
                return None;
            }
            _ => {
                say(Weight::NotCarried, "there is no such rule");
                return None;
            }
        };
        if let Err(error) = TopicPattern::parse(topic) {
            say(Weight::NotCarried, &format!("the topic {error}"));
            return None;
        }
        Some(Acl {
            line: json.line,
            about,
            topic: topic.to_owned(),
            allows,
            priority: json.get("priority").and_then(Json::number).unwrap_or(0),
        })
    }

    fn client(&mut self, json: &Json, groups: &[&Json], out: &mut Outcome) {
        let Some(name) = text(json, "username") else { return };
        let wrong = wrong_with_name(name).or(self
            .clients
            .iter()
            .any(|client| client.name == name)
            .then_some("it is there already"));
        if let Some(wrong) = wrong {
            return self.say(out, Weight::NotCarried, json.line, format!("user {name:?}: {wrong}"));
        }
        if json.get("disabled").and_then(Json::bool) == Some(true) {
            return self.say(out, Weight::LeftOut, json.line, format!("user {name:?} is disabled"));
        }
        let hash = hash(json);
        match hash.as_deref().map(PasswordHash::parse) {
            Some(Ok(_)) => {}
            Some(Err(error)) => self.say(out, Weight::NotCarried, json.line, format!("user {name:?}: {error}")),
            None => self.say(
                out,
                Weight::LeftOut,
                json.line,
                format!("user {name:?} has no password, and cannot enter by one"),
            ),
        }
        let client_id = text(json, "clientid").map(str::to_owned);
        if let Some(client_id) = &client_id {
            let what = format!(
                "user {name:?} may enter with the client id {client_id:?} only; here it enters with others, too, and may do nothing then"
            );
            self.say(out, Weight::NotCarried, json.line, what);
        }
        let mut roles = self.roles_of(json);
        let mut own: Vec<_> = groups
            .iter()
            .filter_map(|group| {
                let mut members = members(group, "clients").iter();
                let member = members.find(|member| text(member, "username") == Some(name))?;
                Some((priority(member), *group))
            })
            .chain(members(json, "groups").iter().filter_map(|member| {
                let wanted = text(member, "groupname")?;
                let group = groups.iter().find(|group| text(group, "groupname") == Some(wanted))?;
                Some((priority(member), *group))
            }))
            .collect();
        own.sort_by_key(|(priority, _)| std::cmp::Reverse(*priority));
        for (_, group) in own {
            for role in self.roles_of(group) {
                if !roles.contains(&role) {
                    roles.push(role);
                }
            }
        }
        self.clients.push(Client {
            line: json.line,
            name: name.to_owned(),
            hash: hash.filter(|hash| PasswordHash::parse(hash).is_ok()),
            client_id,
            roles,
        });
    }

    /// Numbers of the roles that a client or a group has, in their order.
    fn roles_of(&self, json: &Json) -> Vec<usize> {
        let named = members(json, "roles").iter();
        let mut roles: Vec<_> = named
            .filter_map(|role| {
                let name = text(role, "rolename")?;
                let number = self.roles.iter().position(|role| role.name == name)?;
                Some((priority(role), number))
            })
            .collect();
        roles.sort_by_key(|(priority, _)| std::cmp::Reverse(*priority));
        roles.into_iter().map(|(_, number)| number).collect()
    }

    /// The lines of a password file.
    pub fn passwords(&self) -> String {
        let lines = self
            .clients
            .iter()
            .filter_map(|client| Some(format!("{}:{}\n", client.name, client.hash.as_ref()?)));
        lines.collect()
    }
}

fn members<'a>(json: &'a Json, name: &str) -> &'a [Json] {
    json.get(name).map_or(&[], Json::list)
}

fn text<'a>(json: &'a Json, name: &str) -> Option<&'a str> {
    json.get(name).and_then(Json::text)
}

fn priority(json: &Json) -> i64 {
    json.get("priority").and_then(Json::number).unwrap_or(-1)
}

/// mosquitto 2.0 has password, salt and rounds of PBKDF2 apart, 2.1 a line as in a password file.
fn hash(json: &Json) -> Option<String> {
    if let Some(encoded) = text(json, "encoded_password") {
        return Some(encoded.to_owned());
    }
    let iterations = json.get("iterations").and_then(Json::number)?;
    Some(format!(
        "$7${iterations}${}${}",
        text(json, "salt")?,
        text(json, "password")?
    ))
}

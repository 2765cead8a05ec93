//! What a client brings with it: the claims of its token, and the rules that it carries.

use std::collections::BTreeMap;

use super::rule::Rule;

/// What whoever let a client in said of it, beside its name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grants {
    /// Claims that are a text, a number or a truth value, by their names; those inside of others as `outer.inner`. What `%{claim}` stands for.
    pub claims: BTreeMap<Box<str>, Box<str>>,
    /// Rules for this client alone, beside those of the configuration; then what none of all these allows is denied. `None`: none were given.
    pub rules: Option<Vec<Rule>>,
    /// The name of the tenant that it belongs to.
    pub tenant: Option<Box<str>>,
}

impl Grants {
    /// The claim of a name.
    pub fn claim(&self, name: &str) -> Option<&str> {
        self.claims.get(name).map(|value| &**value)
    }

    /// Its rules.
    pub fn rules(&self) -> &[Rule] {
        self.rules.as_deref().unwrap_or_default()
    }
}

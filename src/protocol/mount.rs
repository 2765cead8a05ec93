//! Mount points: what stands before every topic of a tenant, put there when it comes in and cut off when it goes out. Its clients never see it.
//!
//! ```text
//!   what a client says          what the broker routes, keeps, records      (mount point `site-a/`)
//!   lamp/on                 ─►  site-a/lamp/on
//!   $queue/x                ─►  $site-a/$queue/x                            no wildcard at the begin of a filter matches it [MQTT-4.7.2-1]
//!   lamp/+                  ─►  site-a/lamp/+
//!   $share/workers/lamp/+   ─►  $share/workers+/site-a/lamp/+               nobody else can name such a group
//! ```
//!
//! A filter matches a topic exactly when the mounted filter matches the mounted topic, and nothing of another tenant, as long as no mount
//! point is the begin of another.

use super::property::{Properties, PropertiesBuf, PropertyId};
use super::topic::{STRING_BYTES_MAX, TopicFilter, TopicName};

/// What stands before every topic of a tenant: whole levels, with the slash behind them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mount<'a>(&'a str);

/// Longest mount point, bytes.
pub const MOUNT_BYTES_MAX: usize = 256;

/// What is wrong with a mount point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MountError {
    /// Nothing, or no level before the slash.
    #[error("has no name before its first slash")]
    Empty,
    /// No slash at its end: `#` below it would be no filter.
    #[error("does not end with a slash")]
    NoSlash,
    /// `+`, `#` or U+0000.
    #[error("contains a wildcard or a null character")]
    Character,
    /// What begins with `$` is where the `$` topics of tenants are.
    #[error("begins with $")]
    Dollar,
    /// What begins with `$SYS` or `$share` when `$` is put before it.
    #[error("begins with SYS or share, names that MQTT brokers have given a meaning")]
    Reserved,
    /// More than [`MOUNT_BYTES_MAX`].
    #[error("is longer than {MOUNT_BYTES_MAX} bytes")]
    TooLong,
}

/// A topic or filter is longer than 65,535 bytes with its mount point [MQTT-4.7.3-3].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is longer than 65,535 bytes with the mount point of its tenant")]
pub struct TooLong;

impl<'a> Mount<'a> {
    /// Parses a mount point; errors say what is wrong with it.
    pub fn parse(text: &'a str) -> Result<Self, MountError> {
        let first = text.split('/').next().unwrap_or_default();
        if first.is_empty() {
            return Err(MountError::Empty);
        }
        if text.len() > MOUNT_BYTES_MAX {
            return Err(MountError::TooLong);
        }
        if text.contains(['+', '#', '\0']) {
            return Err(MountError::Character);
        }
        if first.starts_with('$') {
            return Err(MountError::Dollar);
        }
        if matches!(first, "SYS" | "share") {
            return Err(MountError::Reserved);
        }
        if !text.ends_with('/') {
            return Err(MountError::NoSlash);
        }
        Ok(Self(text))
    }

    /// Takes a text that has been parsed as a mount point before, without looking at it again.
    pub(crate) const fn from_parsed(text: &'a str) -> Self {
        Self(text)
    }

    /// The text, with its slash.
    pub const fn as_str(self) -> &'a str {
        self.0
    }

    /// Whether one of the two is below the other, or both are the same: then they keep nobody apart.
    pub fn overlaps(self, other: Mount<'_>) -> bool {
        self.0.starts_with(other.0) || other.0.starts_with(self.0)
    }

    /// The full name of a topic, or of a filter that is not shared.
    fn full(self, text: &str, before: &str) -> Result<String, TooLong> {
        let dollar = if text.starts_with('$') { "$" } else { "" };
        let full = [before, dollar, self.0, text].concat();
        if full.len() > STRING_BYTES_MAX {
            return Err(TooLong);
        }
        Ok(full)
    }

    /// The full name of a topic.
    ///
    /// # Errors
    /// It is too long for MQTT.
    pub fn topic(self, topic: TopicName<'_>) -> Result<String, TooLong> {
        self.full(topic.as_str(), "")
    }

    /// The full text of a filter, for [`TopicFilter::kept`]: a group gets a name that no client can write, so that it has members of this
    /// tenant only.
    ///
    /// # Errors
    /// It is too long for MQTT.
    pub fn filter(self, filter: TopicFilter<'_>) -> Result<String, TooLong> {
        match filter.group() {
            None => self.full(filter.filter(), ""),
            Some(group) => self.full(filter.filter(), &["$share/", group, "+/"].concat()),
        }
    }

    /// How many bytes of a full name its clients do not see; `None` for what is not theirs, or has no name for them.
    pub fn hidden_bytes(self, full: &str) -> Option<usize> {
        let dollar = usize::from(full.starts_with('$'));
        let own = full[dollar..].strip_prefix(self.0)?;
        // What its clients say with `$` has that again behind the mount point.
        let is_theirs = own.starts_with('$') == (dollar == 1) && !own.is_empty();
        is_theirs.then_some(dollar + self.0.len())
    }

    /// The mount point that stands in what [`Mount::hidden_bytes`] says.
    pub(crate) fn of_hidden(hidden: &'a str) -> Self {
        Self(hidden.strip_prefix('$').unwrap_or(hidden))
    }

    /// Properties of a message as everybody else is to see them: its response topic has its full name. One that is too long is left out.
    pub fn properties_in<'p>(self, properties: Properties<'p>, scratch: &'p mut PropertiesBuf) -> Properties<'p> {
        with_response_topic(properties, scratch, |topic| self.full(topic, "").ok())
    }

    /// Properties of a message as its clients are to see them: the response topic as they say it. One that is none of theirs is left out: they
    /// could not answer there.
    pub fn properties_out<'p>(self, properties: Properties<'p>, scratch: &'p mut PropertiesBuf) -> Properties<'p> {
        with_response_topic(properties, scratch, |topic| {
            Some(topic[self.hidden_bytes(topic)?..].to_owned())
        })
    }
}

/// A copy with another response topic; where there is none, nothing is copied.
fn with_response_topic<'p>(
    properties: Properties<'p>,
    scratch: &'p mut PropertiesBuf,
    change: impl Fn(&str) -> Option<String>,
) -> Properties<'p> {
    let Some(topic) = properties.text(PropertyId::ResponseTopic) else {
        return properties;
    };
    let changed = change(topic);
    *scratch = PropertiesBuf::new();
    for (id, value) in properties.iter() {
        if id != PropertyId::ResponseTopic {
            scratch.push(id, value);
        } else if let Some(changed) = &changed {
            scratch.push_text(id, changed);
        }
    }
    scratch.view()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::protocol::topic::matches;

    fn mount(text: &str) -> Mount<'_> {
        Mount::parse(text).unwrap()
    }

    fn name(text: &str) -> TopicName<'_> {
        TopicName::parse(text).unwrap()
    }

    #[test]
    fn a_mount_point_is_whole_levels_and_none_of_the_brokers_own() {
        for good in ["a/", "site a/", "x/y/", "x//", "SYSTEM/", "x/$y/"] {
            assert!(Mount::parse(good).is_ok(), "{good}");
        }
        for (bad, error) in [
            ("", MountError::Empty),
            ("/", MountError::Empty),
            ("/a/", MountError::Empty),
            ("a", MountError::NoSlash),
            ("a/b", MountError::NoSlash),
            ("a/+/", MountError::Character),
            ("a#/", MountError::Character),
            ("a\0/", MountError::Character),
            ("$a/", MountError::Dollar),
            ("SYS/", MountError::Reserved),
            ("share/x/", MountError::Reserved),
        ] {
            assert_eq!(Mount::parse(bad), Err(error), "{bad}");
        }
        assert_eq!(Mount::parse(&"a/".repeat(129)), Err(MountError::TooLong));
    }

    #[test]
    fn what_is_not_the_tenants_has_no_name_for_it() {
        let mount = mount("a/");
        for (full, seen) in [
            ("a/x", Some("x")),
            ("a//", Some("/")),
            ("$a/$x", Some("$x")),
            ("a", None),
            ("a/", None),
            ("b/x", None),
            ("ab/x", None),
            ("$a/x", None),
            ("a/$x", None),
            ("$a/", None),
            ("$SYS/x", None),
            ("x/a/x", None),
        ] {
            assert_eq!(mount.hidden_bytes(full).map(|bytes| &full[bytes..]), seen, "{full}");
        }
    }

    #[test]
    fn no_topic_becomes_longer_than_mqtt_can_carry() {
        let longest = "x".repeat(STRING_BYTES_MAX - 2);
        assert!(mount("a/").topic(name(&longest)).is_ok());
        assert_eq!(mount("ab/").topic(name(&longest)), Err(TooLong));
        let shared = format!("$share/g/{}", "x".repeat(STRING_BYTES_MAX - 12));
        let filter = TopicFilter::parse(&shared).unwrap();
        assert!(mount("a/").filter(filter).is_ok());
        assert_eq!(mount("ab/").filter(filter), Err(TooLong));
    }

    #[test]
    fn a_response_topic_is_mounted_and_the_rest_stays_as_it_was() {
        let mut said = PropertiesBuf::new();
        said.push_user_property("a", "1")
            .push_text(PropertyId::ResponseTopic, "reply/7")
            .push_text(PropertyId::ContentType, "text");
        let (mut full, mut seen, mut others) = (PropertiesBuf::new(), PropertiesBuf::new(), PropertiesBuf::new());
        let full = mount("a/").properties_in(said.view(), &mut full);
        assert_eq!(full.text(PropertyId::ResponseTopic), Some("a/reply/7"));
        assert_eq!(mount("a/").properties_out(full, &mut seen), said.view());
        // To a tenant that could not answer there it is not shown.
        let others = mount("b/").properties_out(full, &mut others);
        assert_eq!(others.text(PropertyId::ResponseTopic), None);
        assert_eq!(others.text(PropertyId::ContentType), Some("text"));
    }

    fn level() -> impl Strategy<Value = &'static str> {
        prop_oneof![
            Just("a"),
            Just("b"),
            Just(""),
            Just("$a"),
            Just("$"),
            Just("SYS"),
            Just("$SYS")
        ]
    }

    fn topic() -> impl Strategy<Value = String> {
        proptest::collection::vec(level(), 1..4)
            .prop_map(|levels| levels.join("/"))
            .prop_filter("no empty topic", |topic| !topic.is_empty())
    }

    fn filter() -> impl Strategy<Value = String> {
        let wild = prop_oneof![3 => level(), 2 => Just("+")];
        (proptest::collection::vec(wild, 0..4), any::<bool>())
            .prop_map(|(mut levels, ends)| {
                levels.extend(ends.then_some("#"));
                levels.join("/")
            })
            .prop_filter("no empty filter", |filter| !filter.is_empty())
    }

    fn any_mount() -> impl Strategy<Value = &'static str> {
        prop_oneof![Just("a/"), Just("b/"), Just("a/b/"), Just("aa/"), Just("a//")]
    }

    proptest! {
        /// And only its own clients see it.
        #[test]
        fn what_is_mounted_and_unmounted_is_as_it_was(topic in topic(), own in any_mount(), other in any_mount()) {
            let full = mount(own).topic(name(&topic)).unwrap();
            let hidden = mount(own).hidden_bytes(&full).unwrap();
            prop_assert_eq!(&full[hidden..], &topic);
            if !mount(own).overlaps(mount(other)) {
                prop_assert_eq!(mount(other).hidden_bytes(&full), None);
            }
        }

        /// Wildcards and `$` mean in a tenant what they mean without one, and nothing of it is matched from another.
        #[test]
        fn filters_match_in_a_tenant_what_they_match_without(
            topic in topic(), filter in filter(), own in any_mount(), other in any_mount(),
        ) {
            let full = mount(own).topic(name(&topic)).unwrap();
            let parsed = TopicFilter::parse(&filter).unwrap();
            let inside = mount(own).filter(parsed).unwrap();
            prop_assert_eq!(matches(&inside, &full), matches(&filter, &topic), "{} {}", inside, full);
            prop_assert!(TopicFilter::parse(&inside).is_ok());
            if !mount(own).overlaps(mount(other)) {
                let outside = mount(other).filter(parsed).unwrap();
                prop_assert!(!matches(&outside, &full), "{} {}", outside, full);
            }
        }

        /// Whatever matches in a tenant is the tenant's, or has no name for it.
        #[test]
        fn what_a_tenants_filter_matches_is_seen_by_a_name_that_it_matches(full in topic(), filter in filter(), own in any_mount()) {
            let inside = mount(own).filter(TopicFilter::parse(&filter).unwrap()).unwrap();
            if matches(&inside, &full) && let Some(hidden) = mount(own).hidden_bytes(&full) {
                prop_assert!(matches(&filter, &full[hidden..]), "{} {}", inside, full);
            }
        }

        /// A group of a tenant has a name of its own, and reads as one.
        #[test]
        fn groups_of_a_tenant_are_nobody_elses(filter in filter(), own in any_mount()) {
            let said = format!("$share/g/{filter}");
            let text = mount(own).filter(TopicFilter::parse(&said).unwrap()).unwrap();
            prop_assert!(TopicFilter::parse(&text).is_err());
            let kept = TopicFilter::kept(&text).unwrap();
            prop_assert_eq!(kept.group(), Some("g+"));
            let alone = mount(own).filter(TopicFilter::parse(&filter).unwrap()).unwrap();
            prop_assert_eq!(kept.filter(), alone);
        }
    }
}

//! Topic names and topic filters: parsed once, at the edge; nothing behind the codec checks them again.

use std::fmt;

/// What is wrong with a topic name or filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// No characters at all [MQTT-4.7.3-1].
    #[error("is empty")]
    Empty,
    /// Contains U+0000 [MQTT-4.7.3-2].
    #[error("contains a null character")]
    Null,
    /// A topic name with `+` or `#` [MQTT-3.3.2-2].
    #[error("contains a wildcard")]
    Wildcard,
    /// `#` that is not the whole last level [MQTT-4.7.1-1].
    #[error("has a # that is not its whole last level")]
    MultiLevelWildcard,
    /// `+` that is not a whole level [MQTT-4.7.1-2].
    #[error("has a + that is not a whole level")]
    SingleLevelWildcard,
    /// `$share` without a group or without a filter, or a group with a wildcard [MQTT-4.8.2-1] [MQTT-4.8.2-2].
    #[error("is not of the form $share/group/filter")]
    Share,
    /// More than 65,535 bytes [MQTT-4.7.3-3].
    #[error("is longer than 65,535 bytes")]
    TooLong,
}

/// The longest string that MQTT can carry, in bytes.
pub const STRING_BYTES_MAX: usize = 65_535;

/// A topic name: what a message is published to. No wildcards, not empty.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicName<'a>(&'a str);

impl<'a> TopicName<'a> {
    /// Stands where a kept name turns out not to be one; no filter of a client names it.
    pub(crate) const BROKEN: TopicName<'static> = TopicName("$broken");

    /// Takes a text that has been parsed as a topic name before, without looking at it again.
    #[inline]
    pub(crate) const fn from_parsed(text: &'a str) -> Self {
        Self(text)
    }

    /// Parses a topic name; errors say what is wrong with it.
    pub fn parse(text: &'a str) -> Result<Self, TopicError> {
        if text.is_empty() {
            return Err(TopicError::Empty);
        }
        if text.len() > STRING_BYTES_MAX {
            return Err(TopicError::TooLong);
        }
        match memchr::memchr3(b'+', b'#', 0, text.as_bytes()) {
            None => Ok(Self(text)),
            Some(at) if text.as_bytes()[at] == 0 => Err(TopicError::Null),
            Some(_) => Err(TopicError::Wildcard),
        }
    }

    /// The text.
    #[inline]
    pub const fn as_str(self) -> &'a str {
        self.0
    }

    /// The bytes of the text.
    #[inline]
    pub const fn as_bytes(self) -> &'a [u8] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for TopicName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.0, f)
    }
}

/// A topic filter: what a client subscribes to, `$share/group/` taken apart.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicFilter<'a> {
    /// The filter without `$share/group/`.
    filter: &'a str,
    /// The group of a shared subscription.
    group: Option<&'a str>,
    /// The whole text as the client wrote it.
    text: &'a str,
}

impl<'a> TopicFilter<'a> {
    /// Stands where a kept filter turns out not to be one; it matches no topic.
    pub(crate) const NONE: TopicFilter<'static> = TopicFilter {
        filter: "$none",
        group: None,
        text: "$none",
    };

    /// Parses a topic filter, shared or not; errors say what is wrong with it.
    pub fn parse(text: &'a str) -> Result<Self, TopicError> {
        Self::parse_with(text, |group| group)
    }

    /// Parses a filter as the broker keeps it: a group of a tenant has a `+` at the end of its name, see [`super::mount`]. What a client sent is
    /// for [`TopicFilter::parse`].
    pub fn kept(text: &'a str) -> Result<Self, TopicError> {
        Self::parse_with(text, |group| group.strip_suffix('+').unwrap_or(group))
    }

    fn parse_with(text: &'a str, name_of: impl Fn(&str) -> &str) -> Result<Self, TopicError> {
        if text.len() > STRING_BYTES_MAX {
            return Err(TopicError::TooLong);
        }
        let (group, filter) = match text.strip_prefix("$share/") {
            Some(rest) => {
                let (group, filter) = rest.split_once('/').ok_or(TopicError::Share)?;
                let name = name_of(group);
                if name.is_empty() || filter.is_empty() || name.contains(['+', '#']) {
                    return Err(TopicError::Share);
                }
                (Some(group), filter)
            }
            None if text == "$share" => return Err(TopicError::Share),
            None => (None, text),
        };
        check_filter(filter)?;
        if group.is_some_and(|group| group.contains('\0')) {
            return Err(TopicError::Null);
        }
        Ok(Self { filter, group, text })
    }

    /// The filter itself, without `$share/group/`.
    pub const fn filter(self) -> &'a str {
        self.filter
    }

    /// The group of a shared subscription.
    pub const fn group(self) -> Option<&'a str> {
        self.group
    }

    /// The text as the client wrote it.
    pub const fn as_str(self) -> &'a str {
        self.text
    }

    /// True when the filter has a `+` or a `#`.
    pub fn has_wildcard(self) -> bool {
        memchr::memchr2(b'+', b'#', self.filter.as_bytes()).is_some()
    }
}

impl fmt::Debug for TopicFilter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.text, f)
    }
}

fn check_filter(filter: &str) -> Result<(), TopicError> {
    if filter.is_empty() {
        return Err(TopicError::Empty);
    }
    if memchr::memchr(0, filter.as_bytes()).is_some() {
        return Err(TopicError::Null);
    }
    let mut levels = levels(filter).peekable();
    while let Some(level) = levels.next() {
        if level.contains('#') && (level != "#" || levels.peek().is_some()) {
            return Err(TopicError::MultiLevelWildcard);
        }
        if level.contains('+') && level != "+" {
            return Err(TopicError::SingleLevelWildcard);
        }
    }
    Ok(())
}

/// The levels of a topic name or filter, in order; empty levels count (section 4.7.1.1).
pub fn levels(text: &str) -> impl Iterator<Item = &str> {
    text.split('/')
}

/// Whether a filter (without `$share/group/`) matches a topic name, by the letter of MQTT 5 section 4.7.
///
/// Slow and plain on purpose: it is the oracle the trie is tested against, and serves where speed does not matter.
pub fn matches(filter: &str, topic: &str) -> bool {
    if topic.starts_with('$') && (filter.starts_with('+') || filter.starts_with('#')) {
        return false; // [MQTT-4.7.2-1]
    }
    let mut filter = levels(filter);
    let mut topic = levels(topic);
    loop {
        match (filter.next(), topic.next()) {
            (Some("#"), _) => return true, // the parent level too (section 4.7.1.2)
            (Some("+"), Some(_)) => {}
            (Some(f), Some(t)) if f == t => {}
            (None, None) => return true,
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_standard_parse_and_wildcards_do_not() {
        for good in [
            "/",
            "a",
            "a//b",
            "/finance",
            "Accounts payable",
            "$SYS/a",
            "a\tb",
            "é/ü",
        ] {
            assert!(TopicName::parse(good).is_ok(), "{good:?}");
        }
        for (bad, error) in [
            ("", TopicError::Empty),
            ("a/+", TopicError::Wildcard),
            ("a#", TopicError::Wildcard),
            ("a\0", TopicError::Null),
        ] {
            assert_eq!(TopicName::parse(bad), Err(error), "{bad:?}");
        }
    }

    #[test]
    fn filters_of_the_standard_parse_and_misplaced_wildcards_do_not() {
        for good in [
            "#",
            "+",
            "+/tennis/#",
            "sport/+/player1",
            "/+",
            "+/+",
            "sport/#",
            "$SYS/#",
            "$share/g/a",
            "$share/g//",
            "$shared/a",
        ] {
            assert!(TopicFilter::parse(good).is_ok(), "{good:?}");
        }
        for (bad, error) in [
            ("", TopicError::Empty),
            ("sport/tennis#", TopicError::MultiLevelWildcard),
            ("sport/#/ranking", TopicError::MultiLevelWildcard),
            ("sport+", TopicError::SingleLevelWildcard),
            ("a\0", TopicError::Null),
            ("$share", TopicError::Share),
            ("$share/g", TopicError::Share),
            ("$share//a", TopicError::Share),
            ("$share/g/", TopicError::Share),
            ("$share/+/a", TopicError::Share),
            ("$share/g#/a", TopicError::Share),
        ] {
            assert_eq!(TopicFilter::parse(bad), Err(error), "{bad:?}");
        }
    }

    #[test]
    fn examples_of_section_4_7_match_as_written() {
        let table: &[(&str, &str, bool)] = &[
            ("sport/tennis/player1/#", "sport/tennis/player1", true),
            ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", true),
            ("sport/#", "sport", true),
            ("sport/tennis/+", "sport/tennis/player1/ranking", false),
            ("sport/+", "sport", false),
            ("sport/+", "sport/", true),
            ("+/+", "/finance", true),
            ("/+", "/finance", true),
            ("+", "/finance", false),
            ("#", "$SYS/x", false),
            ("+/monitor/Clients", "$SYS/monitor/Clients", false),
            ("$SYS/#", "$SYS/x", true),
            ("$SYS/monitor/+", "$SYS/monitor/Clients", true),
            ("#", "/", true),
        ];
        for (filter, topic, expected) in table {
            assert_eq!(matches(filter, topic), *expected, "{filter} against {topic}");
        }
    }
}

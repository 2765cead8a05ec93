//! Topic filters compared with each other: does one cover another, do two overlap?
//!
//! A filter stands for the set of topics it matches (MQTT 5 section 4.7); a leading wildcard stands for no topic that begins with `$`.

use crate::protocol::topic::levels;

/// Whether every topic that `narrow` matches is matched by `wide`.
pub fn covers(wide: &str, narrow: &str) -> bool {
    if begins_with_dollar(narrow) && begins_with_wildcard(wide) {
        return false; // [MQTT-4.7.2-1]
    }
    // Every topic has a first level, so `+/#` matches what `#` does.
    let wide = if wide == "+/#" { "#" } else { wide };
    let (mut wide, mut narrow) = (levels(wide), levels(narrow));
    loop {
        match (wide.next(), narrow.next()) {
            (Some("#"), _) | (None, None) => return true,
            (_, Some("#")) => return false,
            (Some("+"), Some(_)) => {}
            (Some(wide), Some(narrow)) if wide == narrow => {}
            _ => return false,
        }
    }
}

/// Whether some topic is matched by both.
pub fn overlap(one: &str, other: &str) -> bool {
    let apart = |one: &str, other: &str| begins_with_dollar(one) && begins_with_wildcard(other);
    if apart(one, other) || apart(other, one) {
        return false; // [MQTT-4.7.2-1]
    }
    let (mut one, mut other) = (levels(one), levels(other));
    loop {
        match (one.next(), other.next()) {
            (Some("#"), _) | (_, Some("#")) | (None, None) => return true,
            (Some("+"), Some(_)) | (Some(_), Some("+")) => {}
            (Some(one), Some(other)) if one == other => {}
            _ => return false,
        }
    }
}

fn begins_with_dollar(filter: &str) -> bool {
    filter.starts_with('$')
}

fn begins_with_wildcard(filter: &str) -> bool {
    filter.starts_with(['+', '#'])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::protocol::topic::matches;

    #[test]
    fn filters_cover_and_overlap_as_their_topics_do() {
        let table: &[(&str, &str, bool, bool)] = &[
            ("a/#", "a/b", true, true),
            ("a/#", "a", true, true),
            ("a/#", "a/+", true, true),
            ("a/+", "a/#", false, true),
            ("a/+", "a/b", true, true),
            ("a/+", "b/+", false, false),
            ("+/b", "a/+", false, true),
            ("#", "$SYS/#", false, false),
            ("$SYS/#", "#", false, false),
            ("$SYS/#", "$SYS/a", true, true),
            ("+/#", "#", true, true),
            ("a/+/#", "a/#", false, true),
            ("a/b", "a/b/c", false, false),
            ("#", "+/+", true, true),
        ];
        for (one, other, covered, overlapping) in table {
            assert_eq!(covers(one, other), *covered, "{one} covers {other}");
            assert_eq!(overlap(one, other), *overlapping, "{one} overlaps {other}");
            assert_eq!(overlap(other, one), *overlapping, "{other} overlaps {one}");
        }
    }

    /// Every topic of up to four levels over two names, a strange name that no filter says, and `$a`.
    fn universe() -> Vec<String> {
        let names = ["a", "b", "other", ""];
        let mut all: Vec<String> = ["a", "b", "other", "$a", ""].map(str::to_owned).into();
        let mut last = all.clone();
        for _ in 0..3 {
            last = last
                .iter()
                .flat_map(|topic| names.map(|name| format!("{topic}/{name}")))
                .collect();
            all.extend_from_slice(&last);
        }
        all.retain(|topic| !topic.is_empty());
        all
    }

    fn filter() -> impl Strategy<Value = String> {
        let level = prop_oneof![Just("a"), Just("b"), Just("+"), Just("")];
        let first = prop_oneof![Just("a"), Just("b"), Just("+"), Just("$a")];
        (first, prop::collection::vec(level, 0..3), any::<bool>()).prop_map(|(first, rest, ends_in_hash)| {
            let mut filter = first.to_owned();
            for level in rest {
                filter.push('/');
                filter.push_str(level);
            }
            if ends_in_hash { filter + "/#" } else { filter }
        })
    }

    proptest! {
        #[test]
        fn what_is_said_of_filters_is_true_of_their_topics(one in filter(), other in filter()) {
            let (mut is_covered, mut overlaps) = (true, false);
            for topic in universe() {
                let (by_one, by_other) = (matches(&one, &topic), matches(&other, &topic));
                is_covered &= by_one || !by_other;
                overlaps |= by_one && by_other;
            }
            prop_assert_eq!(covers(&one, &other), is_covered, "{} covers {}", one, other);
            prop_assert_eq!(overlap(&one, &other), overlaps, "{} overlaps {}", one, other);
        }
    }
}

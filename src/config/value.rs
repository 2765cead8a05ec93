//! The types that options have: numbers with units as people write them.

use core::time::Duration;
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use ::config::{Value, ValueKind};

use crate::{auth::rule::TopicPattern, transport};

use super::{
    option::{Reading, Section, Setting, found, join},
    problem::split_place,
    suggest,
};

/// A value that is one word: read from its text, whether it stands in a file (`7`, `"7"`) or in the environment.
pub(super) trait Scalar: Sized {
    /// Parses it.
    fn from_text(text: &str) -> Option<Self>;
    /// The value as TOML.
    fn to_toml(&self) -> String;
    /// What may be written there, as the end of "expected …".
    fn expected() -> String;
    /// The words that may be written there.
    fn words() -> &'static [&'static str] {
        &[]
    }
    /// Whether the value lies between both, inclusive.
    fn is_within(&self, _least: &Self, _most: &Self) -> bool {
        true
    }
}

impl<T: Scalar> Setting for T {
    fn read(value: Value, path: &str, reading: &mut Reading) -> Option<Self> {
        let text = match &value.kind {
            ValueKind::String(text) => text.trim().to_owned(),
            ValueKind::Boolean(_) | ValueKind::I64(_) | ValueKind::Float(_) => value.kind.to_string(),
            _ => String::new(),
        };
        let read = T::from_text(&text);
        if read.is_none() {
            let message = format!("expected {}, found {}", <T as Scalar>::expected(), found(&value.kind));
            reading.0.error(path, message + &suggest::word(&text, T::words()));
        }
        read
    }

    fn write(&self) -> Option<String> {
        Some(self.to_toml())
    }

    fn expected() -> String {
        <T as Scalar>::expected()
    }

    fn is_within(&self, least: &Self, most: &Self) -> bool {
        Scalar::is_within(self, least, most)
    }
}

/// `["a", "b", "c"]` → `"a", "b" or "c"`.
pub(super) fn one_of(words: &[&str]) -> String {
    let quoted: Vec<_> = words.iter().map(|word| format!("{word:?}")).collect();
    match quoted.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, others)) => format!("{} or {last}", others.join(", ")),
        None => String::new(),
    }
}

impl Scalar for bool {
    fn from_text(text: &str) -> Option<Self> {
        text.parse().ok()
    }
    fn to_toml(&self) -> String {
        self.to_string()
    }
    fn expected() -> String {
        "true or false".to_owned()
    }
    fn words() -> &'static [&'static str] {
        &["true", "false"]
    }
}

macro_rules! whole_number {
    ($($Number:ty),+) => { $(
        impl Scalar for $Number {
            fn from_text(text: &str) -> Option<Self> {
                text.parse().ok()
            }
            fn to_toml(&self) -> String {
                self.to_string()
            }
            fn expected() -> String {
                format!("a whole number up to {}", Self::MAX)
            }
            fn is_within(&self, least: &Self, most: &Self) -> bool {
                (least..=most).contains(&self)
            }
        }
    )+ };
}
whole_number!(u8, u16, u32);

impl Scalar for String {
    fn from_text(text: &str) -> Option<Self> {
        (!text.is_empty()).then(|| text.to_owned())
    }
    fn to_toml(&self) -> String {
        toml::Value::from(self.as_str()).to_string()
    }
    fn expected() -> String {
        "a text".to_owned()
    }
}

/// A number of bytes, written `"32MiB"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(pub u64);

const UNITS: [(&str, u64); 10] = [
    ("", 1),
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1000),
    ("KB", 1000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
];

impl Scalar for Bytes {
    fn from_text(text: &str) -> Option<Self> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit.trim())?;
        number.parse::<u64>().ok()?.checked_mul(*factor).map(Self)
    }
    fn to_toml(&self) -> String {
        let largest = UNITS[1..6]
            .iter()
            .rev()
            .find(|(_, factor)| self.0 >= *factor && self.0.is_multiple_of(*factor));
        match largest {
            Some((name, factor)) => format!("\"{}{name}\"", self.0 / factor),
            None => "\"0B\"".to_owned(),
        }
    }
    fn expected() -> String {
        "a size such as \"32MiB\"".to_owned()
    }
    fn is_within(&self, least: &Self, most: &Self) -> bool {
        (least..=most).contains(&self)
    }
}

/// A number of things, or `"unlimited"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Limit(pub u64);

impl Limit {
    /// As many as memory holds.
    pub const UNLIMITED: Self = Self(u64::MAX);
}

impl Scalar for Limit {
    fn from_text(text: &str) -> Option<Self> {
        if text == "unlimited" {
            Some(Self::UNLIMITED)
        } else {
            text.parse().ok().map(Self)
        }
    }
    fn to_toml(&self) -> String {
        if *self == Self::UNLIMITED {
            "\"unlimited\"".to_owned()
        } else {
            self.0.to_string()
        }
    }
    fn expected() -> String {
        "a number or \"unlimited\"".to_owned()
    }
    fn words() -> &'static [&'static str] {
        &["unlimited"]
    }
    fn is_within(&self, least: &Self, most: &Self) -> bool {
        (least..=most).contains(&self)
    }
}

impl Scalar for Duration {
    fn from_text(text: &str) -> Option<Self> {
        humantime::parse_duration(text).ok()
    }
    fn to_toml(&self) -> String {
        format!("\"{}\"", humantime::format_duration(*self).to_string().replace(' ', ""))
    }
    fn expected() -> String {
        "a duration such as \"30s\"".to_owned()
    }
    fn is_within(&self, least: &Self, most: &Self) -> bool {
        (least..=most).contains(&self)
    }
}

/// How long something is kept: a duration, or `"never"` forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Expiry {
    /// Forgotten after this time.
    After(Duration),
    /// Kept for ever.
    Never,
}

impl Expiry {
    /// In seconds; [`Expiry::Never`] is 0xFFFFFFFF as in MQTT 5, section 3.1.2.11.2.
    pub fn seconds(self) -> u32 {
        match self {
            Self::After(time) => u32::try_from(time.as_secs()).unwrap_or(u32::MAX),
            Self::Never => u32::MAX,
        }
    }
}

impl Scalar for Expiry {
    fn from_text(text: &str) -> Option<Self> {
        if text == "never" {
            Some(Self::Never)
        } else {
            Duration::from_text(text).map(Self::After)
        }
    }
    fn to_toml(&self) -> String {
        match self {
            Self::After(time) => time.to_toml(),
            Self::Never => "\"never\"".to_owned(),
        }
    }
    fn expected() -> String {
        "a duration such as \"14days\", or \"never\"".to_owned()
    }
    fn words() -> &'static [&'static str] {
        &["never"]
    }
}

/// A number, or `"auto"`: chosen by the broker when it starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Auto {
    /// Chosen by the broker.
    Auto,
    /// As the operator says.
    Fixed(u32),
}

impl Scalar for Auto {
    fn from_text(text: &str) -> Option<Self> {
        if text == "auto" {
            Some(Self::Auto)
        } else {
            text.parse().ok().map(Self::Fixed)
        }
    }
    fn to_toml(&self) -> String {
        match self {
            Self::Auto => "\"auto\"".to_owned(),
            Self::Fixed(number) => number.to_string(),
        }
    }
    fn expected() -> String {
        "a number or \"auto\"".to_owned()
    }
    fn words() -> &'static [&'static str] {
        &["auto"]
    }
    fn is_within(&self, least: &Self, most: &Self) -> bool {
        *self == Self::Auto || (least..=most).contains(&self)
    }
}

/// Where a listener accepts connections.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// An IPv4 or IPv6 address with its port.
    Tcp(SocketAddr),
    /// The path of a Unix socket, written `unix:/run/sundew.sock`.
    Unix(PathBuf),
}

impl Address {
    /// Whether only programs of this machine can reach it.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().to_canonical().is_loopback(),
            Self::Unix(_) => true,
        }
    }
}

impl core::fmt::Display for Address {
    fn fmt(&self, out: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(out),
            Self::Unix(path) => write!(out, "unix:{}", path.display()),
        }
    }
}

impl Scalar for Address {
    fn from_text(text: &str) -> Option<Self> {
        match text.strip_prefix("unix:") {
            Some("") => None,
            Some(path) => Some(Self::Unix(PathBuf::from(path))),
            None => text.parse().ok().map(Self::Tcp),
        }
    }
    fn to_toml(&self) -> String {
        self.to_string().to_toml()
    }
    fn expected() -> String {
        "an address with a port such as \"0.0.0.0:1883\" or \"[::]:1883\", or \"unix:/path\"".to_owned()
    }
}

/// A block of addresses such as `10.0.0.0/8`, or one address, as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    text: String,
    network: transport::options::Network,
}

impl Network {
    /// What the listeners understand.
    pub const fn network(&self) -> transport::options::Network {
        self.network
    }
}

impl Scalar for Network {
    fn from_text(text: &str) -> Option<Self> {
        let network = text.parse().ok()?;
        Some(Self {
            text: text.to_owned(),
            network,
        })
    }
    fn to_toml(&self) -> String {
        self.text.to_toml()
    }
    fn expected() -> String {
        "an address or a block of them such as \"10.0.0.0/8\"".to_owned()
    }
}

/// Topic filters of a rule, each checked on its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Topics(pub Vec<TopicPattern>);

impl Setting for Topics {
    fn read(value: Value, path: &str, reading: &mut Reading) -> Option<Self> {
        let mut topics = Vec::new();
        for (index, text) in Vec::<String>::read(value, path, reading)?.iter().enumerate() {
            match TopicPattern::parse(text) {
                Ok(pattern) => topics.push(pattern),
                Err(error) => reading
                    .0
                    .error(&format!("{path}[{index}]"), format!("{text:?} {error}")),
            }
        }
        Some(Self(topics))
    }

    fn write(&self) -> Option<String> {
        let topics: Vec<_> = self.0.iter().map(|topic| topic.as_str().to_owned().to_toml()).collect();
        Some(format!("[{}]", topics.join(", ")))
    }

    fn expected() -> String {
        "a topic filter such as \"home/%u/#\", or a list of such".to_owned()
    }
}

/// Permission bits of a file, written in octal: `"660"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mode(pub u32);

impl Scalar for Mode {
    fn from_text(text: &str) -> Option<Self> {
        let digits = text.trim_start_matches("0o").trim_start_matches('0');
        (!digits.is_empty() && digits.len() <= 3)
            .then(|| u32::from_str_radix(digits, 8).ok())
            .flatten()
            .map(Self)
    }
    fn to_toml(&self) -> String {
        format!("\"{:o}\"", self.0)
    }
    fn expected() -> String {
        "permissions in octal such as \"660\"".to_owned()
    }
}

/// A section that knows where it stands: `file:line`.
#[derive(Clone, Debug, PartialEq)]
pub struct Placed<T> {
    /// The section.
    pub value: T,
    /// Where it stands.
    pub place: String,
}

impl<T: Setting> Setting for Placed<T> {
    fn read(value: Value, path: &str, reading: &mut Reading) -> Option<Self> {
        let value = T::read(value, path, reading)?;
        let place = reading.0.place(path);
        // A line is enough to find a rule by.
        let place = match split_place(&place) {
            Some((file, line, _)) => format!("{file}:{line}"),
            None => place,
        };
        Some(Self { value, place })
    }

    fn write(&self) -> Option<String> {
        self.value.write()
    }

    fn expected() -> String {
        T::expected()
    }

    fn section() -> Section {
        T::section()
    }
}

/// The path of a file. One that is not absolute is looked for beside the file it is written in, not where the broker was started.
impl Setting for PathBuf {
    fn read(value: Value, path: &str, reading: &mut Reading) -> Option<Self> {
        let folder = value
            .origin()
            .and_then(split_place)
            .and_then(|(file, ..)| Path::new(file).parent().map(Path::to_owned));
        let written = String::read(value, path, reading)?;
        Some(folder.map_or_else(|| Self::from(&written), |folder| folder.join(&written)))
    }

    fn write(&self) -> Option<String> {
        (!self.as_os_str().is_empty()).then(|| self.display().to_string().to_toml())
    }

    fn expected() -> String {
        "the path of a file".to_owned()
    }
}

impl<T: Setting> Setting for Option<T> {
    fn read(value: Value, path: &str, reading: &mut Reading) -> Option<Self> {
        T::read(value, path, reading).map(Some)
    }

    fn write(&self) -> Option<String> {
        self.as_ref().and_then(T::write)
    }

    fn expected() -> String {
        T::expected()
    }

    fn is_within(&self, least: &Self, most: &Self) -> bool {
        match (self, least, most) {
            (Some(value), Some(least), Some(most)) => value.is_within(least, most),
            _ => true,
        }
    }

    fn section() -> Section {
        match T::section() {
            Section::One(options) => Section::Optional(options),
            other => other,
        }
    }
}

/// A list. One value alone is a list of one; in the environment commas separate.
impl<T: Setting> Setting for Vec<T> {
    fn read(value: Value, path: &str, reading: &mut Reading) -> Option<Self> {
        let origin = value.origin().map(str::to_owned);
        let is_section = !matches!(T::section(), Section::None);
        let values = match value.kind {
            ValueKind::Array(values) => values,
            ValueKind::String(text) if !is_section => text
                .split(',')
                .map(|part| Value::new(origin.as_ref(), part.trim()))
                .collect(),
            kind => vec![Value::new(origin.as_ref(), kind)],
        };
        let mut list = Self::with_capacity(values.len());
        let mut whole = true;
        for (index, value) in values.into_iter().enumerate() {
            let path = format!("{path}[{index}]");
            reading.0.set_place(&path, value.origin());
            match T::read(value, &path, reading) {
                Some(value) => list.push(value),
                None => whole = false,
            }
        }
        whole.then_some(list)
    }

    fn write(&self) -> Option<String> {
        if !matches!(T::section(), Section::None) {
            return None;
        }
        let parts: Vec<_> = self.iter().filter_map(T::write).collect();
        Some(format!("[{}]", parts.join(", ")))
    }

    fn expected() -> String {
        format!("{}, or a list of such", T::expected())
    }

    fn section() -> Section {
        match T::section() {
            Section::One(options) => Section::Many(options),
            other => other,
        }
    }
}

/// Names chosen by the operator, each with a value.
impl<T: Setting> Setting for BTreeMap<String, T> {
    fn read(value: Value, path: &str, reading: &mut Reading) -> Option<Self> {
        let ValueKind::Table(table) = value.kind else {
            reading.0.error(
                path,
                format!(
                    "expected {}, found {}",
                    <Self as Setting>::expected(),
                    found(&value.kind)
                ),
            );
            return None;
        };
        let mut map = Self::new();
        for (name, value) in table {
            let path = join(path, &name);
            reading.0.set_place(&path, value.origin());
            if let Some(value) = T::read(value, &path, reading) {
                map.insert(name, value);
            }
        }
        Some(map)
    }

    fn write(&self) -> Option<String> {
        None
    }

    fn expected() -> String {
        format!("a section of names, each with {}", T::expected())
    }

    fn section() -> Section {
        Section::Named
    }
}

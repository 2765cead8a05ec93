//! How an option is declared and read. serde stops at the first mistake; an operator wants all of them, so the sections of
//! [`super::schema`] read themselves, one option at a time, from the tree that the `config` crate has layered.

use ::config::{Map, Value, ValueKind};

use super::{problem::Problems, suggest};

/// A type that an option can have.
pub(super) trait Setting: Sized {
    /// Reads a value, or records what is wrong with it.
    fn read(value: Value, path: &str, problems: &mut Reading) -> Option<Self>;

    /// The value as TOML; `None` where the option is absent.
    fn write(&self) -> Option<String>;

    /// What may be written there, as the end of "expected …".
    fn expected() -> String;

    /// Whether the value lies between both, inclusive. Types without an order answer true: they are declared without a range.
    fn is_within(&self, _least: &Self, _most: &Self) -> bool {
        true
    }

    /// The options inside, when this is a section.
    fn section() -> Section {
        Section::None
    }
}

/// Opaque to everybody but this folder: the problems found while reading.
#[derive(Debug, Default)]
pub(super) struct Reading(pub(super) Problems);

/// How the options inside an option are written.
#[derive(Debug)]
pub(super) enum Section {
    /// It has none.
    None,
    /// `[name]`
    One(Vec<OptionInfo>),
    /// `[name]`, and absent by default.
    Optional(Vec<OptionInfo>),
    /// `[[name]]`
    Many(Vec<OptionInfo>),
    /// `[name]` with names chosen by the operator.
    Named,
}

impl Section {
    /// The options inside, none where there are none.
    pub(super) fn into_options(self) -> Vec<OptionInfo> {
        match self {
            Self::None | Self::Named => Vec::new(),
            Self::One(options) | Self::Optional(options) | Self::Many(options) => options,
        }
    }
}

/// All there is to know about one option.
#[derive(Debug)]
pub(super) struct OptionInfo {
    /// Its key.
    pub name: &'static str,
    /// The lines of its doc comment.
    pub doc: &'static [&'static str],
    /// What may be written there.
    pub expected: String,
    /// The smallest and largest value, where there is a range.
    pub range: Option<String>,
    /// Its default as TOML; `None`: absent by default.
    pub default: Option<String>,
    /// What is inside.
    pub section: Section,
}

/// A section that is being read: what was not taken in the end is unknown.
pub(super) struct Table {
    path: String,
    values: Map<String, Value>,
}

impl Table {
    pub(super) fn open(value: Value, path: &str, reading: &mut Reading) -> Option<Self> {
        let problems = &mut reading.0;
        problems.set_place_of(path, &value);
        match value.kind {
            ValueKind::Table(values) => Some(Self {
                path: path.to_owned(),
                values,
            }),
            _ => {
                problems.error(
                    path,
                    format!(
                        "expected a section, found {}; write [{path}] above its options",
                        found(&value.kind)
                    ),
                );
                None
            }
        }
    }

    /// Reads the option `name`; its default where it is absent or wrong.
    pub(super) fn take<T: Setting>(
        &mut self,
        name: &str,
        default: fn() -> T,
        range: Option<(T, T)>,
        reading: &mut Reading,
    ) -> T {
        let Some(value) = self.values.remove(name) else {
            return default();
        };
        let path = join(&self.path, name);
        reading.0.set_place_of(&path, &value);
        let Some(value) = T::read(value, &path, reading) else {
            return default();
        };
        if let Some((least, most)) = &range
            && !value.is_within(least, most)
        {
            let shown = |value: &T| value.write().unwrap_or_default();
            reading.0.error(
                &path,
                format!(
                    "{} is out of range, expected {} to {}",
                    shown(&value),
                    shown(least),
                    shown(most)
                ),
            );
            return default();
        }
        value
    }

    /// Reports what is left: names nobody knows.
    pub(super) fn finish(self, known: &[&'static str], reading: &mut Reading) {
        let mut unknown: Vec<_> = self.values.into_iter().collect();
        unknown.sort_by(|a, b| a.0.cmp(&b.0));
        for (name, value) in unknown {
            let path = join(&self.path, &name);
            reading.0.set_place_of(&path, &value);
            let place = reading.0.place(&path);
            let mut message = format!("unknown key {path}");
            if let Some(hint) = suggest::nearest(&name, known) {
                message.push_str(&format!(" (did you mean {hint}?)"));
            }
            // Other programs put variables into our environment; a file is ours alone.
            if place.starts_with(super::load::ENVIRONMENT_PLACE) {
                reading.0.warning_at(place, message + "; it is ignored");
            } else {
                reading.0.error_at(place, message);
            }
        }
    }
}

/// `a` and `b` → `a.b`.
pub(super) fn join(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}

/// What stands where something else was expected, for a message.
pub(super) fn found(kind: &ValueKind) -> String {
    match kind {
        ValueKind::Nil => "nothing".to_owned(),
        ValueKind::String(text) => format!("{text:?}"),
        ValueKind::Table(_) => "a section".to_owned(),
        ValueKind::Array(_) => "a list".to_owned(),
        other => other.to_string(),
    }
}

/// Declares a section: the structure, its defaults, how it is read and what the reference says of it, from one place.
///
/// `name: Type = default;` or `name: Type = default, in least => most;`
macro_rules! section {
    (
        $(#[doc = $section_doc:literal])+
        pub struct $Section:ident {
            $(
                $(#[doc = $doc:literal])+
                $name:ident : $Type:ty = $default:expr $(, in $least:expr => $most:expr)? ;
            )*
        }
    ) => {
        $(#[doc = $section_doc])+
        #[derive(Clone, Debug, PartialEq)]
        pub struct $Section {
            $( $(#[doc = $doc])+ pub $name: $Type, )*
        }

        impl Default for $Section {
            fn default() -> Self {
                Self { $( $name: $default, )* }
            }
        }

        impl $crate::config::option::Setting for $Section {
            fn read(
                value: ::config::Value,
                path: &str,
                reading: &mut $crate::config::option::Reading,
            ) -> Option<Self> {
                let mut table = $crate::config::option::Table::open(value, path, reading)?;
                let section = Self {
                    $( $name: {
                        let range: Option<($Type, $Type)> = None $( .or(Some(($least, $most))) )?;
                        table.take(stringify!($name), || $default, range, reading)
                    }, )*
                };
                table.finish(&[$( stringify!($name), )*], reading);
                Some(section)
            }

            fn write(&self) -> Option<String> {
                None
            }

            fn expected() -> String {
                "a section".to_owned()
            }

            fn section() -> $crate::config::option::Section {
                use $crate::config::option::{OptionInfo, Section, Setting};
                Section::One(vec![
                    $( OptionInfo {
                        name: stringify!($name),
                        doc: &[$( $doc ),+],
                        expected: <$Type as Setting>::expected(),
                        range: {
                            let range: Option<($Type, $Type)> = None $( .or(Some(($least, $most))) )?;
                            range.map(|(least, most)| {
                                format!("{} to {}", least.write().unwrap_or_default(), most.write().unwrap_or_default())
                            })
                        },
                        default: { let default: $Type = $default; default.write() },
                        section: <$Type as Setting>::section(),
                    }, )*
                ])
            }
        }
    };
}

/// Declares an option that is one of a few words.
macro_rules! choice {
    (
        $(#[doc = $choice_doc:literal])+
        pub enum $Choice:ident {
            $( $(#[doc = $doc:literal])+ $Variant:ident = $word:literal, )+
        }
    ) => {
        $(#[doc = $choice_doc])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $Choice {
            $( $(#[doc = $doc])+ $Variant, )+
        }

        impl $crate::config::value::Scalar for $Choice {
            fn from_text(text: &str) -> Option<Self> {
                match text {
                    $( $word => Some(Self::$Variant), )+
                    _ => None,
                }
            }

            fn to_toml(&self) -> String {
                match self {
                    $( Self::$Variant => format!("{:?}", $word), )+
                }
            }

            fn expected() -> String {
                $crate::config::value::one_of(<Self as $crate::config::value::Scalar>::words())
            }

            fn words() -> &'static [&'static str] {
                &[$( $word ),+]
            }
        }
    };
}

pub(super) use {choice, section};

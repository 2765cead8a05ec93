//! The memory budget as it is written.

use super::value::{Bytes, Scalar};

/// A budget of memory: a size, `"auto"`, or `"unlimited"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    /// Three quarters of what there is.
    Auto,
    /// So much.
    Fixed(Bytes),
    /// Any amount.
    Unlimited,
}

impl Memory {
    /// In bytes, `u64::MAX` for any amount, where there are `available`, if that is known.
    pub fn bytes_max(self, available: Option<u64>) -> u64 {
        match self {
            Self::Auto => available.map_or(u64::MAX, |bytes| bytes / 4 * 3),
            Self::Fixed(bytes) => bytes.0,
            Self::Unlimited => u64::MAX,
        }
    }
}

impl Scalar for Memory {
    fn from_text(text: &str) -> Option<Self> {
        match text {
            "auto" => Some(Self::Auto),
            "unlimited" => Some(Self::Unlimited),
            size => Bytes::from_text(size).map(Self::Fixed),
        }
    }
    fn to_toml(&self) -> String {
        match self {
            Self::Auto => "\"auto\"".to_owned(),
            Self::Fixed(bytes) => bytes.to_toml(),
            Self::Unlimited => "\"unlimited\"".to_owned(),
        }
    }
    fn expected() -> String {
        "a size such as \"512MiB\", \"auto\" or \"unlimited\"".to_owned()
    }
    fn words() -> &'static [&'static str] {
        &["auto", "unlimited"]
    }
    fn is_within(&self, least: &Self, most: &Self) -> bool {
        match (self, least, most) {
            (Self::Fixed(bytes), Self::Fixed(least), Self::Fixed(most)) => (least..=most).contains(&bytes),
            (Self::Fixed(bytes), Self::Fixed(least), _) => bytes >= least,
            _ => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_a_size_or_a_word() {
        for text in ["auto", "unlimited", "512MiB"] {
            assert_eq!(Memory::from_text(text).unwrap().to_toml(), format!("{text:?}"));
        }
        assert_eq!(Memory::from_text("much"), None);
        assert_eq!(Memory::Auto.bytes_max(Some(8 << 30)), 6 << 30);
        assert_eq!(Memory::Auto.bytes_max(None), u64::MAX);
        assert_eq!(Memory::Fixed(Bytes(7)).bytes_max(Some(5)), 7);
    }
}

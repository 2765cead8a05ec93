//! Time as an argument: the protocol half never reads a clock.

/// A moment on a monotonic clock, in milliseconds since some fixed start. The I/O half makes them from the machine's clock,
/// the simulation from a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Time(pub u64);

impl Time {
    /// The last moment there is; used for "never".
    pub const NEVER: Self = Self(u64::MAX);

    /// This moment `seconds` later, saturating at [`Time::NEVER`].
    #[must_use]
    pub const fn plus_secs(self, seconds: u64) -> Self {
        Self(self.0.saturating_add(seconds.saturating_mul(1000)))
    }

    /// This moment `millis` milliseconds later, saturating at [`Time::NEVER`].
    #[must_use]
    pub const fn plus_millis(self, millis: u64) -> Self {
        Self(self.0.saturating_add(millis))
    }

    /// Milliseconds from `earlier` to this moment, 0 when `earlier` is later.
    pub const fn millis_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// Whole seconds from this moment to `later`, rounded up, 0 when it has passed.
    pub const fn secs_until(self, later: Self) -> u64 {
        later.0.saturating_sub(self.0).div_ceil(1000)
    }
}

//! A token bucket: so much in a second, and a second's worth at once.

use super::time::Time;

/// One second, in the unit that debts are counted in.
const SECOND_NS: u64 = 1_000_000_000;

/// What has been taken of a rate, as time: each thing taken is a debt of as long as the rate allows for it, and time pays it back. While
/// the debt is less than a second more may be taken, even something that is larger than what is left: a message of a megabyte
/// passes at a kilobyte a second, and then nothing does for a long time.
///
/// ```
/// # use sundew::protocol::{bucket::Bucket, time::Time};
/// let mut bucket = Bucket::default();
/// assert!((0..10).all(|_| bucket.take(1, 10, Time(0)).is_ok()));
/// assert_eq!(bucket.take(1, 10, Time(0)), Err(Time(1))); // the next moment that there is any room
/// assert_eq!(bucket.take(1, 10, Time(1)), Ok(()));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bucket {
    debt_ns: u64,
    at: Time,
}

impl Bucket {
    /// Takes `count` where `per_second` (at least 1) are allowed.
    ///
    /// # Errors
    /// Nothing was taken; when something may be.
    pub fn take(&mut self, count: u64, per_second: u64, now: Time) -> Result<(), Time> {
        self.may_take(now)?;
        let cost_ns = u128::from(count) * u128::from(SECOND_NS) / u128::from(per_second.max(1));
        self.debt_ns = self.debt_ns.saturating_add(u64::try_from(cost_ns).unwrap_or(u64::MAX));
        Ok(())
    }

    /// Whether something may be taken; nothing is.
    ///
    /// # Errors
    /// When something may be.
    pub fn may_take(&mut self, now: Time) -> Result<(), Time> {
        self.pay(now);
        self.free_at().map_or(Ok(()), Err)
    }

    /// When the next may be taken; `None`: now. As of the last time that something was taken, or tried to be.
    pub fn free_at(&self) -> Option<Time> {
        let over_ns = self.debt_ns.checked_sub(SECOND_NS)?;
        // A debt of a second exactly is none too many a moment later.
        Some(self.at.plus_millis(over_ns / 1_000_000 + 1))
    }

    /// True when everything is paid back by now: as good as a new one.
    pub fn is_full(&self, now: Time) -> bool {
        now.millis_since(self.at).saturating_mul(1_000_000) >= self.debt_ns
    }

    fn pay(&mut self, now: Time) {
        let paid_ns = now.millis_since(self.at).saturating_mul(1_000_000);
        self.debt_ns = self.debt_ns.saturating_sub(paid_ns);
        self.at = self.at.max(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Things taken, one at a time, from a flood of them that lasts so long.
    fn taken(per_second: u64, seconds: u64) -> u64 {
        let (mut bucket, mut taken) = (Bucket::default(), 0);
        for now in (0..seconds * 1000).map(|now| Time(500 + now)) {
            while bucket.take(1, per_second, now).is_ok() {
                taken += 1;
            }
        }
        taken
    }

    #[test]
    fn over_time_a_flood_gets_its_rate_and_a_seconds_worth() {
        for per_second in [1, 3, 10, 1000, 7919, 1_000_000] {
            let (taken, fair) = (taken(per_second, 20), 21 * per_second);
            assert!(
                taken <= fair + 1 && taken * 1000 >= fair * 990 - 1000,
                "{taken} of {fair}"
            );
        }
    }

    #[test]
    fn what_is_larger_than_the_bucket_passes_and_is_paid_for() {
        let mut bucket = Bucket::default();
        assert_eq!(bucket.take(5000, 1000, Time(9)), Ok(()));
        assert_eq!(bucket.take(1, 1000, Time(4008)), Err(Time(4010)));
        assert_eq!(bucket.take(1, 1000, Time(4010)), Ok(()));
        assert!(!bucket.is_full(Time(5009)) && bucket.is_full(Time(5010)));
    }

    #[test]
    fn a_moment_that_it_names_is_one_at_which_it_gives() {
        let mut bucket = Bucket::default();
        let mut now = Time(1);
        for _ in 0..1000 {
            if let Err(at) = bucket.take(1, 7, now) {
                assert!(at > now);
                now = at;
                assert_eq!(bucket.take(1, 7, now), Ok(()));
            }
        }
    }
}

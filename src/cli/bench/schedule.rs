//! When each message of an open loop is due: the schedule does not wait for the broker, so that a slow one cannot hide it.

/// Messages at even distances, the publishers in turn.
#[derive(Clone, Copy, Debug)]
pub(super) struct Schedule {
    /// Nanoseconds of the run's clock.
    start: u64,
    /// Nanoseconds between two messages, of whichever publisher.
    gap: f64,
    publishers: u32,
}

impl Schedule {
    /// `rate` messages a second, of all publishers together.
    pub(super) fn new(start: u64, rate: f64, publishers: u32) -> Self {
        Self {
            start,
            gap: 1e9 / rate,
            publishers: publishers.max(1),
        }
    }

    /// The moment of the message with this number among those of all publishers.
    pub(super) fn time_of(&self, number: u64) -> u64 {
        self.start + (number as f64 * self.gap) as u64
    }

    /// The moment of a publisher's message.
    #[inline]
    pub(super) fn time_of_publisher(&self, publisher: u32, sequence: u64) -> u64 {
        self.time_of(sequence * u64::from(self.publishers) + u64::from(publisher))
    }

    /// Whose the message with this number is.
    pub(super) fn publisher_of(&self, number: u64) -> u32 {
        (number % u64::from(self.publishers)) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn publishers_take_turns_at_even_distances() {
        let schedule = Schedule::new(1_000, 1_000_000.0, 3);
        let times: Vec<_> = (0..4).map(|number| schedule.time_of(number)).collect();
        assert_eq!(times, [1_000, 2_000, 3_000, 4_000]);
        assert_eq!(schedule.publisher_of(5), 2);
        assert_eq!(schedule.time_of_publisher(2, 1), schedule.time_of(5));
    }

    #[test]
    fn an_hour_does_not_let_the_schedule_drift() {
        let schedule = Schedule::new(0, 30_000.0, 7);
        let hour = schedule.time_of(30_000 * 3600);
        assert!(hour.abs_diff(3_600_000_000_000) < 1_000, "{hour}");
    }
}

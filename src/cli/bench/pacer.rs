//! Wakes publishers when their messages are due, to the microsecond: a runtime's own timer counts milliseconds.

use std::io;
use std::time::Duration;

use super::schedule::Schedule;
use super::shared::Shared;

/// Wakes the publishers of one thread when the schedule says so, for ever.
pub(super) async fn pace(shared: &Shared, schedule: Schedule, thread: usize) -> io::Result<()> {
    let alarm = Alarm::new()?;
    let threads = shared.workload.threads;
    // Who never sleeps is not let in ahead of others when it has something to do: on a machine that is not idle that costs more.
    let gap = schedule.time_of(1) - schedule.time_of(0);
    let spin = (u64::from(shared.workload.spin) * 1000).min(gap / 4);
    let mut number = 0;
    loop {
        let publisher = schedule.publisher_of(number) as usize;
        if publisher % threads != thread {
            number += 1;
            continue;
        }
        let due = schedule.time_of(number);
        let now = shared.now();
        if due > now {
            if due - now > spin {
                alarm.sleep(Duration::from_nanos(due - now - spin)).await?;
            } else {
                tokio::task::yield_now().await; // the reactor is asked in between
            }
            continue;
        }
        shared.publishers[publisher].wake();
        number += 1;
        if number.is_multiple_of(64) {
            tokio::task::yield_now().await; // far behind: those who were woken must run
        }
    }
}

/// A timer of the kernel's that the reactor watches.
#[cfg(target_os = "linux")]
struct Alarm(tokio::io::unix::AsyncFd<std::os::fd::OwnedFd>);

#[cfg(target_os = "linux")]
impl Alarm {
    fn new() -> io::Result<Self> {
        use rustix::time::{TimerfdClockId, TimerfdFlags, timerfd_create};
        let timer = timerfd_create(
            TimerfdClockId::Monotonic,
            TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC,
        )?;
        // Deprecated because it takes what changes its descriptor behind the reactor's back; an `OwnedFd` does not.
        #[allow(deprecated, reason = "the other way is unsafe")]
        Ok(Self(tokio::io::unix::AsyncFd::new(timer)?))
    }

    async fn sleep(&self, time: Duration) -> io::Result<()> {
        use rustix::time::{Itimerspec, TimerfdTimerFlags, Timespec, timerfd_settime};
        let once = Itimerspec {
            it_interval: Timespec::default(),
            it_value: Timespec {
                tv_sec: time.as_secs() as i64,
                tv_nsec: i64::from(time.subsec_nanos().max(1)),
            },
        };
        timerfd_settime(self.0.get_ref(), TimerfdTimerFlags::empty(), &once)?;
        let mut ready = self.0.readable().await?;
        let mut expirations = [0; 8];
        match rustix::io::read(self.0.get_ref(), &mut expirations) {
            Ok(_) | Err(rustix::io::Errno::AGAIN) => {}
            Err(error) => return Err(error.into()),
        }
        ready.clear_ready();
        Ok(())
    }
}

/// Elsewhere milliseconds have to do.
#[cfg(not(target_os = "linux"))]
struct Alarm;

#[cfg(not(target_os = "linux"))]
impl Alarm {
    fn new() -> io::Result<Self> {
        Ok(Self)
    }

    async fn sleep(&self, time: Duration) -> io::Result<()> {
        tokio::time::sleep(time).await;
        Ok(())
    }
}

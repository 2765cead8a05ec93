//! How commands end, in the numbers of sysexits.h, so that a service manager and a script can tell why.

use std::process::ExitCode;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// As asked.
    Done,
    /// `sundew pub` and `sundew sub`: it did not work. The number that mosquitto's tools have.
    Failed,
    /// `sundew pub` and `sundew sub`: the broker refused the connection with this return code (before MQTT 5) or reason code. The
    /// numbers that mosquitto's tools have.
    Refused(u8),
    /// `sundew import`: it is done, but not everything could be carried.
    NotAllCarried,
    /// `sundew auth explain`: it depends on what a program says, which is not asked.
    NotKnown,
    /// `sundew sub -W`: the time is over. The number that mosquitto's tools have.
    TimedOut,
    /// The command line is wrong (EX_USAGE).
    Usage,
    /// An address is in use or not there, or the other side does not answer (EX_UNAVAILABLE).
    Unavailable,
    /// A file's contents are damaged, or of a newer version (EX_DATAERR).
    Data,
    /// A fault of our own (EX_SOFTWARE).
    Software,
    /// A file or socket cannot be made (EX_CANTCREAT).
    CannotCreate,
    /// The system does not allow it (EX_NOPERM).
    NotAllowed,
    /// The configuration is wrong (EX_CONFIG).
    Config,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::NotAllCarried => 2,
            Exit::NotKnown => 3,
            Exit::TimedOut => 27,
            Exit::Usage => 64,
            Exit::Data => 65,
            Exit::Unavailable => 69,
            Exit::Software => 70,
            Exit::CannotCreate => 73,
            Exit::NotAllowed => 77,
            Exit::Config => 78,
            Exit::Refused(code) => code,
        })
    }
}

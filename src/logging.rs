//! Layer 6: where log lines go. Workers hand a line over and go on; one thread writes, and says how many lines it lost.
//!
//! Payloads are never logged. Every line is one event with `key=value` behind it:
//! `2026-11-20T21:57:00+01:00 INFO client connected client="z2m" addr=192.168.1.7:53122 listener=mqtt`

use std::{
    fmt,
    fs::OpenOptions,
    io::{self, Write},
    path::PathBuf,
    sync::{Arc, OnceLock},
};

use time::{OffsetDateTime, UtcOffset, format_description::well_known::Rfc3339};
use tracing::{Event, Level, Subscriber};
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::{
    EnvFilter,
    fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter, format::Writer, time::OffsetTime},
    registry::LookupSpan,
};

/// How and where to log.
#[derive(Clone, Debug)]
pub struct LogOptions {
    /// Least important level, or such as `info,sundew::session=debug`. Default `info`. Debug costs several lines a connection.
    pub filter: String,
    /// Default text. JSON costs twice the bytes.
    pub format: LogFormat,
    /// Default standard error.
    pub target: LogTarget,
    /// Lines that wait for the writing thread; those beyond are lost and counted. Default 16,384, about 200 bytes each.
    pub lines_max: usize,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            filter: "info".to_owned(),
            format: LogFormat::Text,
            target: LogTarget::Stderr,
            lines_max: 16_384,
        }
    }
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people: time, level, event, `key=value`.
    Text,
    /// For machines: one object a line.
    Json,
}

/// Where log lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogTarget {
    /// Standard error; under systemd without the time, which the journal knows, and with the priority, which it wants.
    Stderr,
    /// Standard output.
    Stdout,
    /// A file, appended to.
    File(PathBuf),
}

/// Why the log cannot start.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The file cannot be opened.
    #[error(
        "cannot write the log file {path}: {source}; create its folder and let the user that runs sundew write there"
    )]
    File {
        /// The file.
        path: String,
        /// What the system says.
        source: io::Error,
    },
    /// The filter means nothing.
    #[error("the log level {filter:?} is not understood: {reason}; write info, or info,sundew::session=debug")]
    Filter {
        /// What was written.
        filter: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A log runs already in this process.
    #[error("a log runs already in this process")]
    Running,
}

/// Writes what is still waiting when it is dropped: keep it until the end of `main`.
#[derive(Debug)]
pub struct LogGuard {
    lost: ErrorCounter,
    _writer: WorkerGuard,
}

impl LogGuard {
    /// Lines lost so far because they came faster than they could be written.
    pub fn lost_lines(&self) -> usize {
        self.lost.dropped_lines()
    }
}

/// Starts the log of this process. Call it before there are other threads: only then can the local time be asked for safely;
/// otherwise times are in UTC.
///
/// # Errors
/// [`LogError`], in one line that says what to do.
pub fn start(options: &LogOptions) -> Result<LogGuard, LogError> {
    let filter = EnvFilter::try_new(&options.filter).map_err(|error| LogError::Filter {
        filter: options.filter.clone(),
        reason: error.to_string(),
    })?;
    let clock = match options.target {
        LogTarget::Stderr if is_journal() => Clock::Journal,
        _ => Clock::Local(UtcOffset::current_local_offset().unwrap_or(UtcOffset::UTC)),
    };
    let line = Line {
        clock,
        format: options.format,
    };
    let target: Box<dyn Write + Send> = match &options.target {
        LogTarget::Stderr => Box::new(io::stderr()),
        LogTarget::Stdout => Box::new(io::stdout()),
        LogTarget::File(path) => {
            let opened = OpenOptions::new().create(true).append(true).open(path);
            Box::new(opened.map_err(|source| LogError::File {
                path: path.display().to_string(),
                source,
            })?)
        }
    };
    let counter = Arc::new(OnceLock::new());
    let target = Counted {
        target,
        line,
        counter: Arc::clone(&counter),
        reported: 0,
    };
    let (writer, guard) = NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(options.lines_max)
        .thread_name("log")
        .finish(target);
    let lost = writer.error_counter();
    let _ = counter.set(lost.clone());
    tracing::subscriber::set_global_default(subscriber(line, filter, writer)).map_err(|_| LogError::Running)?;
    Ok(LogGuard { lost, _writer: guard })
}

fn subscriber<W>(line: Line, filter: EnvFilter, writer: W) -> Box<dyn Subscriber + Send + Sync>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        .with_writer(writer);
    match line.format {
        LogFormat::Text => Box::new(builder.event_format(line).finish()),
        LogFormat::Json => {
            let offset = if let Clock::Local(offset) = line.clock {
                offset
            } else {
                UtcOffset::UTC
            };
            let time = OffsetTime::new(offset, Rfc3339);
            Box::new(
                builder
                    .json()
                    .flatten_event(true)
                    .with_target(false)
                    .with_timer(time)
                    .finish(),
            )
        }
    }
}

/// Whether standard error is the journal: systemd names its device and inode, so that a shell started by a service is not fooled.
fn is_journal() -> bool {
    use std::os::unix::fs::MetadataExt;
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else {
        return false;
    };
    std::fs::metadata("/proc/self/fd/2").is_ok_and(|stderr| stream == format!("{}:{}", stderr.dev(), stderr.ino()))
}

/// How one line begins.
#[derive(Clone, Copy, Debug)]
struct Line {
    clock: Clock,
    format: LogFormat,
}

#[derive(Clone, Copy, Debug)]
enum Clock {
    /// Local time as it was when the broker started: summer time begins with the next start.
    Local(UtcOffset),
    /// The journal adds the time.
    Journal,
}

impl Line {
    /// Time or priority, then the level.
    fn begin(self, level: Level, out: &mut dyn fmt::Write) -> fmt::Result {
        match self.clock {
            Clock::Local(offset) => {
                // Whole seconds: the fraction makes lines longer and tells people nothing.
                let now = OffsetDateTime::now_utc().to_offset(offset);
                let now = now.replace_nanosecond(0).unwrap_or(now);
                write!(out, "{} ", now.format(&Rfc3339).map_err(|_| fmt::Error)?)?;
            }
            Clock::Journal => {
                let priority = match level {
                    Level::ERROR => 3,
                    Level::WARN => 4,
                    Level::INFO => 6,
                    _ => 7,
                };
                write!(out, "<{priority}>")?;
            }
        }
        write!(out, "{level} ")
    }
}

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        self.begin(*event.metadata().level(), &mut out)?;
        context.field_format().format_fields(out.by_ref(), event)?;
        writeln!(out)
    }
}

/// The target, which learns from the counter that lines were lost before the one it is writing.
struct Counted {
    target: Box<dyn Write + Send>,
    line: Line,
    counter: Arc<OnceLock<ErrorCounter>>,
    reported: usize,
}

impl Counted {
    fn report_lost(&mut self) -> io::Result<()> {
        let lost = self.counter.get().map_or(0, ErrorCounter::dropped_lines);
        if lost == self.reported {
            return Ok(());
        }
        let lines = lost - self.reported;
        self.reported = lost;
        let event = "log lines lost, they came faster than they could be written";
        let mut text = String::new();
        let formatted = match self.line.format {
            LogFormat::Text => self
                .line
                .begin(Level::WARN, &mut text)
                .and_then(|()| fmt::Write::write_fmt(&mut text, format_args!("{event} lost={lines}\n"))),
            LogFormat::Json => {
                let object = format_args!("{{\"level\":\"WARN\",\"message\":\"{event}\",\"lost\":{lines}}}\n");
                fmt::Write::write_fmt(&mut text, object)
            }
        };
        formatted.map_err(io::Error::other)?;
        self.target.write_all(text.as_bytes())
    }
}

impl Write for Counted {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.report_lost()?;
        self.target.write_all(line)?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.target.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, mpsc};

    use super::*;

    /// What was written so far; blocks while the gate is closed.
    #[derive(Clone, Default)]
    struct Paper(Arc<Mutex<Vec<u8>>>);

    impl Paper {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl Write for Paper {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn log(line: Line, filter: &str) -> String {
        let paper = Paper::default();
        let writer = paper.clone();
        let subscriber = subscriber(line, EnvFilter::new(filter), move || writer.clone());
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(client = "z2m", addr = %"192.168.1.7:53122", clean = true, "client connected");
            tracing::debug!("nobody reads this");
        });
        paper.text()
    }

    #[test]
    fn a_line_is_time_level_event_and_what_belongs_to_it() {
        let clock = Clock::Local(UtcOffset::from_hms(1, 0, 0).unwrap());
        let text = log(
            Line {
                clock,
                format: LogFormat::Text,
            },
            "info",
        );
        let (time, rest) = text.split_once(' ').unwrap();
        assert_eq!(
            rest,
            "INFO client connected client=\"z2m\" addr=192.168.1.7:53122 clean=true\n"
        );
        assert_eq!(time.len(), "2026-11-20T21:57:00+01:00".len(), "{time}");
        assert!(time.ends_with("+01:00") && time.as_bytes()[10] == b'T', "{time}");
    }

    #[test]
    fn under_the_journal_there_is_a_priority_and_no_time() {
        let text = log(
            Line {
                clock: Clock::Journal,
                format: LogFormat::Text,
            },
            "debug",
        );
        assert_eq!(
            text,
            "<6>INFO client connected client=\"z2m\" addr=192.168.1.7:53122 clean=true\n<7>DEBUG nobody reads this\n"
        );
    }

    #[test]
    fn json_is_one_object_a_line() {
        let text = log(
            Line {
                clock: Clock::Local(UtcOffset::UTC),
                format: LogFormat::Json,
            },
            "info",
        );
        let object: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(object["message"], "client connected");
        assert_eq!(object["client"], "z2m");
        assert_eq!(object["level"], "INFO");
        assert!(object["timestamp"].is_string());
    }

    #[test]
    fn a_slow_target_loses_lines_and_says_how_many() {
        struct Gate(mpsc::Receiver<()>, Paper);
        impl Write for Gate {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                let _ = self.0.recv(); // an error says that the gate is open for good
                self.1.write(bytes)
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let paper = Paper::default();
        let (open, gate) = mpsc::sync_channel(1);
        let counter = Arc::new(OnceLock::new());
        let line = Line {
            clock: Clock::Journal,
            format: LogFormat::Text,
        };
        let target = Gate(gate, paper.clone());
        let counted = Counted {
            target: Box::new(target),
            line,
            counter: Arc::clone(&counter),
            reported: 0,
        };
        let (mut writer, guard) = NonBlockingBuilder::default()
            .lossy(true)
            .buffered_lines_limit(2)
            .finish(counted);
        counter.set(writer.error_counter()).unwrap();
        for _ in 0..100 {
            writer.write_all(b"line\n").unwrap();
        }
        let lost = writer.error_counter().dropped_lines();
        assert!(lost >= 97, "one is being written and two wait: {lost} lost");
        drop(open);
        drop(guard);
        let text = paper.text();
        assert!(
            text.contains(&format!(
                "<4>WARN log lines lost, they came faster than they could be written lost={lost}\n"
            )),
            "{text}"
        );
        assert_eq!(text.matches("line\n").count(), 100 - lost);
    }

    #[test]
    fn what_cannot_start_says_what_to_do() {
        let file = LogOptions {
            target: LogTarget::File("/nowhere/sundew.log".into()),
            ..LogOptions::default()
        };
        assert_eq!(
            start(&file).unwrap_err().to_string(),
            "cannot write the log file /nowhere/sundew.log: No such file or directory (os error 2); \
             create its folder and let the user that runs sundew write there"
        );
    }
}

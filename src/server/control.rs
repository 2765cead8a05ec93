//! The control socket: how a command talks to the running broker. It is in the data directory, so that it is found by what the command
//! and the broker both know, and only the broker's own user may open it. One line of JSON each way, then it is closed.

use std::fs;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use socket2::{Domain, SockAddr, Socket, Type};

use super::ban_file::{BanFile, BanLine, Kind};
use super::reload::{OnReload, Reloaded, Reloader};
use crate::broker::Broker;
use crate::protocol::time::Time;
use crate::transport::worker::Clock;

#[cfg(test)]
mod tests;

/// The socket's name in the data directory.
const SOCKET: &str = "control";
/// How long the other side may take for its whole line: requests are answered one after the other.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long the broker may take to answer: there may be somebody slow before us.
const ANSWER_PATIENCE: Duration = Duration::from_secs(15);
/// How long it may take to read everything again: key sets are fetched, and large files of users are parsed.
const RELOAD_PATIENCE: Duration = Duration::from_secs(120);
/// How long the broker that stops waits for a request that is being answered.
const STOP_PATIENCE: Duration = Duration::from_secs(1);
/// The longest request, bytes.
const REQUEST_BYTES_MAX: u64 = 64 * 1024;
/// The longest answer, bytes: every ban that can be counted.
const ANSWER_BYTES_MAX: u64 = 1 << 30;

/// What is asked of the broker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Who is banned?
    ListBans,
    /// Ban somebody.
    AddBan {
        /// Of what.
        kind: Kind,
        /// Address or block of them, user name, client id.
        value: String,
        /// How long; for ever where it is not said.
        seconds: Option<u64>,
        /// Why, for who reads the list.
        note: String,
    },
    /// Lift every ban of somebody.
    LiftBan {
        /// Of what.
        kind: Kind,
        /// As above.
        value: String,
    },
    /// Read users, rules and certificates again.
    Reload,
}

/// What the broker says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Response {
    /// Who is banned.
    Bans(Vec<BanLine>),
    /// It is done; so many bans were made or lifted.
    Done(usize),
    /// What became of it.
    Reloaded(Reloaded),
    /// It is not, or not wholly.
    Failed(String),
}

/// Why nothing was heard from a broker.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Nobody is there.
    #[error("no broker is at work here: {}: {error}", path.display())]
    NoBroker {
        /// The socket.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// It did not go on.
    #[error("the broker did not answer: {}: {error}", path.display())]
    NoAnswer {
        /// The socket.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
}

/// Asks the broker that is at work in a data directory.
///
/// # Errors
/// [`ControlError`].
pub fn ask(directory: &Path, request: &Request) -> Result<Response, ControlError> {
    let path = directory.join(SOCKET);
    let stream = UnixStream::connect(&path).map_err(|error| ControlError::NoBroker {
        path: path.clone(),
        error,
    })?;
    let answer = exchange(&stream, request);
    answer.map_err(|error| ControlError::NoAnswer { path, error })
}

fn exchange(stream: &UnixStream, request: &Request) -> io::Result<Response> {
    let patience = match request {
        Request::Reload => RELOAD_PATIENCE,
        _ => ANSWER_PATIENCE,
    };
    write_line(stream, request, PATIENCE)?;
    let mut line = String::new();
    let answer = Until::patience(stream, patience).take(ANSWER_BYTES_MAX);
    BufReader::new(answer).read_line(&mut line)?;
    Ok(serde_json::from_str(&line)?)
}

fn write_line(stream: &UnixStream, what: &impl Serialize, patience: Duration) -> io::Result<()> {
    let mut line = serde_json::to_vec(what)?;
    line.push(b'\n');
    Until::patience(stream, patience).write_all(&line)
}

/// A stream that fails from some moment on, however little by little it is read or written.
struct Until<'s> {
    stream: &'s UnixStream,
    end: Instant,
}

impl<'s> Until<'s> {
    fn patience(stream: &'s UnixStream, patience: Duration) -> Self {
        let end = Instant::now() + patience;
        Self { stream, end }
    }

    fn left(&self) -> io::Result<Duration> {
        let left = self.end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "it took too long"));
        }
        Ok(left)
    }
}

impl io::Read for Until<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(Some(self.left()?))?;
        self.stream.read(buf)
    }
}

impl io::Write for Until<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(Some(self.left()?))?;
        self.stream.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

/// The thread that listens on the socket. It ends, and the socket goes, when this is dropped.
pub(super) struct Control {
    path: PathBuf,
    is_over: Arc<AtomicBool>,
    /// Closed when the thread has ended. Behind a lock, so that a server may be shared between threads.
    end: Mutex<mpsc::Receiver<()>>,
}

impl Control {
    /// Bans whom an administrator has banned before, and listens in a data directory, which is this broker's own. Asked to read everything
    /// again it does `on_reload`, or reads all files where there is none.
    ///
    /// # Errors
    /// The socket cannot be made, or the system gives no thread.
    pub(super) fn start(
        directory: &Path,
        reloader: Reloader,
        on_reload: Option<OnReload>,
        clock: Clock,
    ) -> io::Result<Self> {
        Self::start_with(PATIENCE, directory, reloader, on_reload, clock)
    }

    fn start_with(
        patience: Duration,
        directory: &Path,
        reloader: Reloader,
        on_reload: Option<OnReload>,
        clock: Clock,
    ) -> io::Result<Self> {
        let office = Office {
            file: BanFile::new(directory),
            broker: Arc::clone(&reloader.broker),
            clock,
            reloader,
            on_reload,
            patience,
        };
        office.restore();
        let path = directory.join(SOCKET);
        let listener = listen(&path)?;
        let is_over = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&is_over);
        let (ends, end) = mpsc::sync_channel::<()>(0); // nothing is ever sent
        let serve = move || {
            office.serve_all(&listener, &over);
            // What it holds of the broker goes before whoever waits for the end is told: the data directory is free then.
            drop(office);
            drop(ends);
        };
        std::thread::Builder::new().name("control".to_owned()).spawn(serve)?;
        Ok(Self {
            path,
            is_over,
            end: Mutex::new(end),
        })
    }
}

impl core::fmt::Debug for Control {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Control")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Release);
        let is_woken = wake(&self.path);
        let _ = fs::remove_file(&self.path);
        if is_woken {
            let end = self.end.lock().unwrap_or_else(PoisonError::into_inner);
            let _ = end.recv_timeout(STOP_PATIENCE); // it has ended, or somebody is slow: he is nobody's reason not to stop
        }
    }
}

/// The thread waits for the next connection: this is one, unless nobody can connect any more. Where its line is full it is awake.
fn wake(path: &Path) -> bool {
    let connect = || {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        socket.connect(&SockAddr::unix(path)?)
    };
    match connect() {
        Ok(()) => true,
        Err(error) => error.kind() == io::ErrorKind::WouldBlock,
    }
}

/// A socket that only this user may open. Whoever holds the lock of the directory owns what is left in it.
fn listen(path: &Path) -> io::Result<UnixListener> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    socket.listen(16)?; // until now nobody could connect
    Ok(socket.into())
}

/// Does what is asked.
struct Office {
    file: BanFile,
    broker: Arc<Broker>,
    clock: Clock,
    reloader: Reloader,
    on_reload: Option<OnReload>,
    /// For a request, and for its answer.
    patience: Duration,
}

impl Office {
    fn serve_all(&self, listener: &UnixListener, over: &AtomicBool) {
        for stream in listener.incoming() {
            if over.load(Ordering::Acquire) {
                return;
            }
            match stream {
                Ok(stream) => self.serve(stream),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept on the control socket");
                    std::thread::sleep(PATIENCE);
                }
            }
        }
    }

    fn serve(&self, stream: UnixStream) {
        let read = || -> io::Result<Request> {
            let mut line = String::new();
            let request = Until::patience(&stream, self.patience).take(REQUEST_BYTES_MAX);
            BufReader::new(request).read_line(&mut line)?;
            Ok(serde_json::from_str(&line)?)
        };
        let response = match read() {
            Ok(request) => self.answer(request),
            Err(error) => Response::Failed(format!("the request is not understood: {error}")),
        };
        if let Err(error) = write_line(&stream, &response, self.patience) {
            tracing::debug!(%error, "nobody waits for the answer on the control socket");
        }
    }

    fn answer(&self, request: Request) -> Response {
        let now = self.clock.now();
        let done = match request {
            Request::ListBans => {
                let bans = self.broker.bans.list(now);
                return Response::Bans(bans.iter().map(|ban| BanLine::of(ban, now)).collect());
            }
            Request::Reload => {
                let told = match &self.on_reload {
                    Some(OnReload(reload)) => reload(&self.reloader),
                    None => self.reloader.files(),
                };
                return Response::Reloaded(told);
            }
            Request::AddBan {
                kind,
                value,
                seconds,
                note,
            } => kind.subject(&value).and_then(|subject| {
                let until = seconds.map_or(Time::NEVER, |seconds| now.plus_secs(seconds));
                let made = self.broker.ban(subject, until, &note, now);
                made.map(|()| 1).map_err(|error| error.to_string())
            }),
            Request::LiftBan { kind, value } => {
                kind.subject(&value).map(|subject| self.broker.bans.lift(&subject, now))
            }
        };
        match done.and_then(|count| self.keep(now).map(|()| count)) {
            Ok(count) => Response::Done(count),
            Err(message) => Response::Failed(message),
        }
    }

    fn keep(&self, now: Time) -> Result<(), String> {
        let bans = self.broker.bans.orders();
        let kept = self.file.write(&bans, now);
        kept.map_err(|error| {
            let path = self.file.path().display();
            format!("it is done, but will not outlive the broker: cannot write {path}: {error}")
        })
    }

    fn restore(&self) {
        let now = self.clock.now();
        match self.file.read(now) {
            Ok(bans) => {
                for (subject, until, note) in bans {
                    if let Err(error) = self.broker.ban(subject, until, &note, now) {
                        tracing::warn!(%error, "bans are left out");
                    }
                }
            }
            Err(message) => tracing::error!("{message}"),
        }
    }
}

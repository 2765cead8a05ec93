//! Carries a [`Client`] over network connections: reads, writes, keeps time, and connects again where that is asked for.

use std::future::{Future, poll_fn};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use super::client_stream::{self, ConnectError, ConnectOptions};
use super::stream::Stream;
use super::worker::Clock;
use crate::client::{Client, ClientOptions, Connected, Event, Fault, Outgoing, RequestError, RequestId};
use crate::protocol::packet::SubscriptionOptions;
use crate::protocol::property::Properties;
use crate::protocol::reason::ReasonCode;
use crate::protocol::time::Time;

/// Bytes read at once.
const READ_BYTES: usize = 64 * 1024;
/// For the last bytes of a connection that is closed in order.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// A connection that is being opened.
pub type Dialing = Pin<Box<dyn Future<Output = Result<Stream, ConnectError>> + Send>>;

/// Opens connections to one server.
pub struct Dialer(Box<dyn Fn() -> Dialing + Send + Sync>);

impl Dialer {
    /// Connects in any way that gives a stream.
    pub fn new(dial: impl Fn() -> Dialing + Send + Sync + 'static) -> Self {
        Self(Box::new(dial))
    }

    /// Connects over TCP, TLS, WebSocket or a Unix socket.
    pub fn network(options: ConnectOptions) -> Self {
        Self::new(move || {
            let options = options.clone();
            Box::pin(async move { client_stream::connect(&options).await })
        })
    }
}

impl std::fmt::Debug for Dialer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Dialer")
    }
}

/// How a lost connection comes back. The pause doubles from `first` to `longest`, and a random part of up to a half is taken off,
/// so that many clients do not come back at once.
#[derive(Clone, Copy, Debug)]
pub struct Reconnect {
    /// The first pause. Default: 1 s.
    pub first: Duration,
    /// The longest. Default: 30 s.
    pub longest: Duration,
}

impl Default for Reconnect {
    fn default() -> Self {
        Self {
            first: Duration::from_secs(1),
            longest: Duration::from_secs(30),
        }
    }
}

impl Reconnect {
    /// The pause before the attempt of this number, from 0. `random` is any number.
    fn pause(&self, attempt: u32, random: u64) -> Duration {
        let whole = self.first.saturating_mul(1 << attempt.min(20)).min(self.longest);
        whole.mul_f64(1.0 - (random % 1024) as f64 / 2048.0)
    }
}

/// Why a client has come to its end.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// There is no network connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The connection is over.
    #[error("{0}")]
    Fault(Fault),
    /// [`ClientDriver::disconnect`] was called, and everything is written.
    #[error("disconnected")]
    Done,
}

/// A client with a connection, or on its way to one. Nothing happens but within [`ClientDriver::next_event`], which may be dropped
/// at any time and called again. Needs a tokio runtime with I/O and time.
#[derive(Debug)]
pub struct ClientDriver {
    client: Client,
    dialer: Dialer,
    reconnect: Option<Reconnect>,
    attempts: u32,
    link: Link,
    clock: Clock,
    unread: Vec<u8>,
    buffer: Box<[u8]>,
    timer: Pin<Box<Sleep>>,
    random: RandomState,
}

enum Link {
    /// Connects when the timer ends.
    Paused,
    Dialing(Dialing),
    Up(Stream),
    /// Writes what is left, until the timer ends.
    Closing(Stream),
    Ended,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Paused => "Paused",
            Self::Dialing(_) => "Dialing",
            Self::Up(_) => "Up",
            Self::Closing(_) => "Closing",
            Self::Ended => "Ended",
        })
    }
}

impl ClientDriver {
    /// A client that connects when its first event is asked for. Without `reconnect` the end of the connection is its end.
    ///
    /// # Panics
    /// Outside of a tokio runtime with time.
    pub fn new(dialer: Dialer, options: ClientOptions, reconnect: Option<Reconnect>) -> Self {
        Self {
            client: Client::new(options),
            link: Link::Dialing((dialer.0)()),
            dialer,
            reconnect,
            attempts: 0,
            clock: Clock::start(Time::default(), Instant::now().into_std()),
            unread: Vec::new(),
            buffer: vec![0; READ_BYTES].into(),
            timer: Box::pin(tokio::time::sleep(Duration::ZERO)),
            random: RandomState::new(),
        }
    }

    /// The machine, to look at.
    pub const fn client(&self) -> &Client {
        &self.client
    }

    /// Changes what follows the loss of a connection.
    pub const fn set_reconnect(&mut self, reconnect: Option<Reconnect>) {
        self.reconnect = reconnect;
    }

    /// See [`Client::publish`].
    ///
    /// # Errors
    /// See [`Client::publish`].
    pub fn publish(&mut self, message: Outgoing) -> Result<RequestId, RequestError> {
        self.client.publish(message, self.clock.now())
    }

    /// See [`Client::subscribe`].
    ///
    /// # Errors
    /// See [`Client::subscribe`].
    pub fn subscribe(
        &mut self,
        filters: &[(&str, SubscriptionOptions)],
        properties: Properties<'_>,
    ) -> Result<RequestId, RequestError> {
        self.client.subscribe(filters, properties, self.clock.now())
    }

    /// See [`Client::unsubscribe`].
    ///
    /// # Errors
    /// See [`Client::unsubscribe`].
    pub fn unsubscribe(&mut self, filters: &[&str], properties: Properties<'_>) -> Result<RequestId, RequestError> {
        self.client.unsubscribe(filters, properties, self.clock.now())
    }

    /// See [`Client::auth`].
    ///
    /// # Errors
    /// See [`Client::auth`].
    pub fn auth(&mut self, reason: ReasonCode, properties: Properties<'_>) -> Result<(), RequestError> {
        self.client.auth(reason, properties, self.clock.now())
    }

    /// Ends the connection in order; [`ClientDriver::next_event`] writes what is left and then says [`ClientError::Done`].
    pub fn disconnect(&mut self, reason: ReasonCode, properties: Properties<'_>) {
        self.client.disconnect(reason, properties, self.clock.now());
        self.reconnect = None;
        if !matches!(self.link, Link::Up(_) | Link::Closing(_)) {
            self.link = Link::Ended;
        }
    }

    /// Connects; events before that are dropped.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn connected(&mut self) -> Result<Connected, ClientError> {
        loop {
            if let Event::Connected(connected) = self.next_event().await? {
                return Ok(connected);
            }
        }
    }

    /// Waits until every message is sent, and acknowledged where that is due, then disconnects. Messages that come meanwhile are
    /// dropped.
    ///
    /// # Errors
    /// [`ClientError`], but not [`ClientError::Done`].
    pub async fn finish(mut self) -> Result<(), ClientError> {
        while !self.client.is_idle() {
            self.next_event().await?;
        }
        self.disconnect(ReasonCode::Success, Properties::EMPTY);
        loop {
            match self.next_event().await {
                Ok(_) => {}
                Err(ClientError::Done) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    /// Carries the client until it has something to say.
    ///
    /// # Errors
    /// [`ClientError`]: it is over. With `reconnect` only for what does not pass with time; a lost connection is an event.
    pub async fn next_event(&mut self) -> Result<Event, ClientError> {
        poll_fn(|cx| self.poll_event(cx)).await
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Result<Event, ClientError>> {
        loop {
            match self.client.next_event() {
                Some(Event::Disconnected(fault)) => {
                    self.close();
                    if self.reconnect.is_none() || !fault.is_passing() {
                        self.reconnect = None;
                        return Poll::Ready(Err(ClientError::Fault(fault)));
                    }
                    return Poll::Ready(Ok(Event::Disconnected(fault)));
                }
                Some(event) => {
                    if matches!(event, Event::Connected(_)) {
                        self.attempts = 0;
                    }
                    return Poll::Ready(Ok(event));
                }
                None => ready!(self.poll_link(cx))?,
            }
        }
    }

    /// Goes on with the link; ready when there may be an event.
    fn poll_link(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ClientError>> {
        loop {
            match &mut self.link {
                Link::Ended => return Poll::Ready(Err(ClientError::Done)),
                Link::Paused => {
                    ready!(self.timer.as_mut().poll(cx));
                    self.link = Link::Dialing((self.dialer.0)());
                }
                Link::Dialing(dialing) => match ready!(dialing.as_mut().poll(cx)) {
                    Ok(stream) => {
                        self.unread.clear();
                        self.client.connect(self.clock.now());
                        self.link = Link::Up(stream);
                    }
                    Err(error) => self.pause_after(error)?,
                },
                Link::Up(stream) => match ready!(poll_up(
                    stream,
                    &mut self.client,
                    self.clock,
                    &mut self.buffer,
                    &mut self.unread,
                    &mut self.timer,
                    cx
                )) {
                    Ok(()) if self.client.is_closing() => {
                        self.close();
                        return Poll::Ready(Ok(()));
                    }
                    Ok(()) => return Poll::Ready(Ok(())),
                    Err(error) => {
                        self.client.lost(&error.to_string());
                        self.close();
                        return Poll::Ready(Ok(()));
                    }
                },
                Link::Closing(stream) => {
                    let is_over = poll_last_words(stream, &mut self.client, self.clock, cx).is_ready();
                    if !is_over {
                        ready!(self.timer.as_mut().poll(cx));
                    }
                    self.client.lost("closed");
                    self.pause_or_end();
                }
            }
        }
    }

    /// The machine is done with this connection.
    fn close(&mut self) {
        self.link = match std::mem::replace(&mut self.link, Link::Ended) {
            Link::Up(stream) => {
                self.timer.as_mut().reset(Instant::now() + LAST_WORDS);
                Link::Closing(stream)
            }
            link => link,
        };
    }

    fn pause_after(&mut self, error: ConnectError) -> Result<(), ClientError> {
        if self.reconnect.is_none() || matches!(error, ConnectError::Files(_) | ConnectError::NoAuthority) {
            self.link = Link::Ended;
            return Err(error.into());
        }
        tracing::debug!(%error, "cannot connect, trying again");
        self.pause_or_end();
        Ok(())
    }

    fn pause_or_end(&mut self) {
        self.link = match self.reconnect {
            None => Link::Ended,
            Some(reconnect) => {
                let pause = reconnect.pause(self.attempts, self.random.hash_one(self.attempts));
                self.attempts = self.attempts.saturating_add(1);
                self.timer.as_mut().reset(Instant::now() + pause);
                Link::Paused
            }
        };
    }
}

/// Writes, reads and keeps time until the machine has something to say or the connection breaks.
fn poll_up(
    stream: &mut Stream,
    client: &mut Client,
    clock: Clock,
    buffer: &mut [u8],
    unread: &mut Vec<u8>,
    timer: &mut Pin<Box<Sleep>>,
    cx: &mut Context<'_>,
) -> Poll<io::Result<()>> {
    loop {
        if !unread.is_empty() {
            let taken = client.receive(unread, clock.now());
            unread.drain(..taken);
        }
        // A peer that does not read must not keep us from reading.
        if let Poll::Ready(Err(error)) = poll_write(stream, client, clock, cx) {
            return Poll::Ready(Err(error));
        }
        if client.is_closing() || client.has_events() {
            return Poll::Ready(Ok(()));
        }
        match stream.poll_read(cx, buffer) {
            Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::Error::other("closed by the server"))),
            Poll::Ready(Ok(count)) => {
                unread.extend_from_slice(&buffer[..count]);
                continue;
            }
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Pending => {}
        }
        let Some(deadline) = client.next_deadline() else {
            return Poll::Pending;
        };
        if clock.time(timer.deadline().into()) != deadline {
            let left = Duration::from_millis(deadline.millis_since(clock.now()));
            timer.as_mut().reset(Instant::now() + left);
        }
        ready!(timer.as_mut().poll(cx));
        client.tick(clock.now().max(deadline));
    }
}

/// Writes the machine's output, and what comes behind it as it makes room.
fn poll_write(stream: &mut Stream, client: &mut Client, clock: Clock, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
    while !client.output().is_empty() {
        let count = ready!(stream.poll_write(cx, &[IoSlice::new(client.output())]))?;
        if count == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        client.sent(count, clock.now());
    }
    if stream.has_buffered_output() {
        stream.poll_flush(cx)
    } else {
        Poll::Ready(Ok(()))
    }
}

fn poll_last_words(stream: &mut Stream, client: &mut Client, clock: Clock, cx: &mut Context<'_>) -> Poll<()> {
    let written = ready!(poll_write(stream, client, clock, cx));
    if written.is_ok() {
        let _ = ready!(stream.poll_shutdown(cx)); // it is closed all the same
    }
    Poll::Ready(())
}

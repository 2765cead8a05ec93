//! The driver: one task for each connection, the one place where `await` meets the protocol.
//!
//! Reads what is there into the worker's buffer, gives it to the broker, writes what the broker has put into this connection's
//! output, and wakes the tasks of other connections whose output has grown. One read and one write for each time the task runs; since
//! a task that is woken runs after those that are already in line, what several publishers have for one subscriber leaves in
//! one write.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::mem;
use std::os::fd::RawFd;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::Sleep;

use super::classify::{NotMqtt, classify};
use super::listener::Slot;
use super::stream::Stream;
use super::worker::{Arrival, HandedOver, Local};
use crate::broker::Status;
use crate::protocol::ids::{ConnectionKey, WorkerId};
use crate::protocol::packet::PacketType;

/// Pieces of output that go into one write at most.
const PIECES_MAX: usize = 64;
/// Reads in one turn of the task, before others have theirs.
const READS_PER_TURN: usize = 4;
/// Bytes that are read of a client that waits to be let in: enough to see that it is there.
const EARLY_BYTES_MAX: usize = 1024;
/// Bytes read after which a turn ends, and the network is looked at before the next one: else what has come for others meanwhile is found only after
/// some sixty turns, a tenth of a second beside a flood. The look costs a microsecond, the bytes some hundred.
const TURN_BYTES: usize = 128 * 1024;
/// How long a connection that is closing may take to send what it was told.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// How long a connection is not read while another worker catches up with its mail, or the store with its records: at first, and twice as long
/// each time.
const PAUSE: Duration = Duration::from_millis(1);
/// The longest of these pauses.
const PAUSE_MAX: Duration = Duration::from_millis(32);
/// How long its peer may go on sending before the socket is closed: closed with bytes unread, it would lose the last words.
const LINGER: Duration = Duration::from_millis(500);

/// One connection on this worker. What an idle one costs beside its session: a future written by hand, since one made of `async` would
/// stand in memory several times over, once for every function that it is moved through.
pub(super) struct Driver {
    here: Presence,
    stream: Stream,
    /// Bytes of a packet that is not complete, or that waits for an answer.
    unread: Vec<u8>,
    /// There may be something to do with `unread`: bytes or an answer have come.
    is_fresh: bool,
    /// While another worker, or the store, catches up.
    pause: Option<Box<Pause>>,
    /// Its place among the connections of its listener, given back at the end.
    slot: Slot,
}

/// A pause that runs, and its length.
struct Pause {
    sleep: Pin<Box<Sleep>>,
    length: Duration,
}

/// The task of a connection.
pub(super) enum Task {
    /// It is served.
    Serving(Driver),
    /// It says goodbye, or is on its way to another worker. Rare and large.
    Ending(Pin<Box<dyn Future<Output = ()>>>),
    /// It is over.
    Over,
}

/// How serving a connection ended.
enum Served {
    /// The network connection is gone.
    Lost,
    /// The broker is done with it: what is in the output goes out, then it is closed.
    Closing,
    /// Its session lives on another worker.
    HandOver(WorkerId),
    /// It has been silent for long.
    Park,
}

impl Driver {
    /// Drives a connection that the worker knows by `key`. `unread` are bytes that were read before.
    pub(super) fn new(local: Rc<Local>, key: ConnectionKey, stream: Stream, slot: Slot, unread: Vec<u8>) -> Self {
        Self {
            here: Presence::begin(local, key),
            stream,
            is_fresh: !unread.is_empty(),
            unread,
            pause: None,
            slot,
        }
    }

    /// Drives the connection to its end.
    pub(super) const fn run(self) -> Task {
        Task::Serving(self)
    }

    fn poll_serve(&mut self, cx: &mut Context<'_>) -> Poll<Served> {
        let mut was_silent = self.here.local.parking.turn(self.here.key, cx.waker());
        let mut turn_bytes = 0;
        for _ in 0..READS_PER_TURN {
            if self.is_fresh {
                self.is_fresh = false;
                self.receive_unread();
            }
            let wrote = self.poll_write(cx);
            if let Poll::Ready(Err(error)) = &wrote {
                return Poll::Ready(self.lost(&format!("write failed: {error}")));
            }
            let status = self.here.local.broker.borrow().status(self.here.key);
            match status {
                Status::Open => {}
                Status::Waiting => {
                    self.is_fresh = true;
                    match ready!(self.poll_stay(cx)) {
                        Ok(()) => continue,
                        Err(why) => return Poll::Ready(self.lost(&why)),
                    }
                }
                Status::HandOver(to) => return Poll::Ready(Served::HandOver(to)),
                Status::Closing => return Poll::Ready(Served::Closing),
                Status::Gone => return Poll::Ready(Served::Lost),
            }
            // Whoever does not take the answers to what it sent is not read any further.
            if wrote.is_pending() && !self.here.local.broker.borrow().may_read(self.here.key) {
                return Poll::Pending;
            }
            ready!(self.poll_pause(cx));
            let Poll::Ready(read) = self.poll_read(cx) else {
                if was_silent && wrote.is_ready() && self.unread.is_empty() && self.socket().is_some() {
                    return Poll::Ready(Served::Park);
                }
                return Poll::Pending;
            };
            was_silent = false;
            match read {
                Ok(0) => return Poll::Ready(self.lost("connection closed by the client without DISCONNECT")),
                Ok(count) => turn_bytes += count,
                Err(error) => return Poll::Ready(self.lost(&format!("read failed: {error}"))),
            }
            // What it sent goes to its receivers first: they were woken before. Then come its own acknowledgements, with what others have caused
            // meanwhile: with QoS 1 and 2 that is an eighth fewer cycles for a message than to answer each read at once.
            let mut broker = self.here.local.broker.borrow_mut();
            if turn_bytes >= TURN_BYTES || broker.output(self.here.key).is_some_and(|output| !output.is_empty()) {
                break;
            }
        }
        // It still has something to read, or to send: others first. What was read last may wait for an answer that comes before the next turn.
        self.is_fresh = !self.unread.is_empty();
        if turn_bytes < TURN_BYTES {
            cx.waker().wake_by_ref();
        } else {
            // Polled once, it wakes this task when the runtime has looked at the network.
            let _ = pin!(tokio::task::yield_now()).poll(cx);
        }
        Poll::Pending
    }

    /// Looks whether a client that has not entered yet, or whose SUBSCRIBE waits, is still there, so that nobody checks passwords for, asks about
    /// and keeps a place for one that has gone. Only where nothing is behind what waits: who has sent more may have gone and what it sent
    /// counts. Ready when more has come.
    ///
    /// # Errors
    /// It is not there any more: how.
    fn poll_stay(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), String>> {
        let local = Rc::clone(&self.here.local);
        if !self.unread.is_empty() || !local.broker.borrow().waits_for_itself(self.here.key) {
            return Poll::Pending;
        }
        let mut buffer = local.read_buffer.borrow_mut();
        match ready!(self.stream.poll_read(cx, &mut buffer[..EARLY_BYTES_MAX])) {
            Ok(0) => Poll::Ready(Err("connection closed by the client before it was answered".into())),
            Ok(count) => {
                self.unread.extend_from_slice(&buffer[..count]);
                Poll::Ready(Ok(()))
            }
            Err(error) => Poll::Ready(Err(format!("read failed before it was answered: {error}"))),
        }
    }

    /// Ready unless another worker, or the store, has to catch up first.
    fn poll_pause(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.here.local.broker.borrow().is_backed_up() {
            let pause = self.pause.get_or_insert_with(|| Box::new(Pause::new(PAUSE)));
            ready!(pause.sleep.as_mut().poll(cx));
            **pause = Pause::new(PAUSE_MAX.min(pause.length * 2));
        }
        self.pause = None;
        Poll::Ready(())
    }

    /// One read into the worker's buffer, and all packets that are complete.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let local = Rc::clone(&self.here.local);
        let mut buffer = local.read_buffer.borrow_mut();
        let kept = self.unread.len();
        // A packet that is larger than the buffer is gathered in `unread`, which grows as its bytes come.
        if kept >= buffer.len() / 2 {
            let count = ready!(self.stream.poll_read(cx, &mut buffer))?;
            self.unread.extend_from_slice(&buffer[..count]);
            drop(buffer);
            self.receive_unread();
            return Poll::Ready(Ok(count));
        }
        buffer[..kept].copy_from_slice(&self.unread);
        let count = ready!(self.stream.poll_read(cx, &mut buffer[kept..]))?;
        if count > 0 {
            let bytes = &buffer[..kept + count];
            let taken = local.receive(self.here.key, bytes);
            self.explain_if_not_mqtt(bytes, taken);
            self.unread.clear();
            self.unread.extend_from_slice(&bytes[taken..]);
            if self.unread.is_empty() && self.unread.capacity() > 4096 {
                self.unread = Vec::new();
            }
        }
        Poll::Ready(Ok(count))
    }

    fn receive_unread(&mut self) {
        let unread = std::mem::take(&mut self.unread);
        let taken = self.here.local.receive(self.here.key, &unread);
        self.explain_if_not_mqtt(&unread, taken);
        self.unread = unread;
        if taken == self.unread.len() {
            self.unread = Vec::new();
        } else {
            self.unread.drain(..taken);
        }
    }

    /// A connection that began with something else than MQTT gets a line that says what it was.
    fn explain_if_not_mqtt(&mut self, bytes: &[u8], taken: usize) {
        let mut broker = self.here.local.broker.borrow_mut();
        let Some(addr) = broker.failed_to_open(self.here.key).filter(|_| taken == bytes.len()) else {
            return;
        };
        let found = classify(bytes);
        // A CONNECT that could not be read has been explained by who read it.
        if found.is_none()
            && bytes
                .first()
                .is_some_and(|first| first >> 4 == PacketType::Connect as u8)
        {
            return;
        }
        self.slot.listener().log_not_mqtt(found, addr);
        if let (Some(answer), Some(output)) = (found.and_then(NotMqtt::answer), broker.output(self.here.key)) {
            output.tail().extend_from_slice(answer);
        }
    }

    /// Writes what is in the output, and what comes behind it as it makes room.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let local = Rc::clone(&self.here.local);
        loop {
            let mut broker = local.broker.borrow_mut();
            let Some(output) = broker.output(self.here.key).filter(|output| !output.is_empty()) else {
                break;
            };
            let mut pieces = [IoSlice::new(&[]); PIECES_MAX];
            let mut count = 0;
            for (piece, chunk) in pieces.iter_mut().zip(output.chunks()) {
                *piece = IoSlice::new(chunk);
                count += 1;
            }
            let written = ready!(self.stream.poll_write(cx, &pieces[..count]))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            broker.sent(self.here.key, written, local.clock.now());
        }
        let broker = local.broker.borrow();
        let (has_more, must_wait) = (
            broker.has_walks() || broker.has_records(),
            broker.must_wait_to_send(self.here.key),
        );
        drop(broker);
        if has_more {
            local.dispatch();
        }
        if self.stream.has_buffered_output() {
            ready!(self.stream.poll_flush(cx))?;
        }
        if must_wait {
            return Poll::Pending; // it is touched when the store has told
        }
        Poll::Ready(Ok(()))
    }

    fn lost(&self, why: &str) -> Served {
        self.here.local.lost(self.here.key, why);
        Served::Lost
    }

    /// Sends the last words, says goodbye, and lets the peer read before the socket goes.
    async fn close(mut self) {
        let last_words = poll_fn(|cx| {
            ready!(self.poll_write(cx))?;
            self.stream.poll_shutdown(cx)
        });
        let _ = tokio::time::timeout(LAST_WORDS, last_words).await;
        self.here.local.remove(self.here.key);
        let linger = poll_fn(|cx| {
            for _ in 0..READS_PER_TURN {
                // A buffer of its own would stand in every connection's task from its start.
                let mut rest = self.here.local.read_buffer.borrow_mut();
                if !matches!(ready!(self.stream.poll_read(cx, &mut rest)), Ok(1..)) {
                    return Poll::Ready(());
                }
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        });
        let _ = tokio::time::timeout(LINGER, linger).await;
    }

    /// The socket, if the connection can do without a task: plain TCP, where nothing stands in between.
    pub(super) fn socket(&self) -> Option<RawFd> {
        match &self.stream {
            Stream::Plain(socket) => socket.tcp(),
            Stream::Tls(_) | Stream::WebSocket(_) | Stream::SecureWebSocket(_) => None,
        }
    }

    /// Goes on without a task.
    fn park(mut self) {
        let (local, key) = (Rc::clone(&self.here.local), self.here.key);
        match (self.stream.detach(), self.socket()) {
            (Ok(()), Some(socket)) => {
                self.unread = Vec::new();
                local.parking.park(key, Box::new(self), socket);
            }
            _ => local.lost(key, "the socket could not be taken off the runtime"),
        }
    }

    /// Goes on with a task.
    pub(super) fn unpark(mut self) {
        if self.stream.attach().is_ok() {
            tokio::task::spawn_local(self.run());
        } else {
            let (local, key) = (Rc::clone(&self.here.local), self.here.key);
            local.lost(key, "the socket could not be put on the runtime");
        }
    }

    /// Gives the connection to the worker that has its session, with what has been read of it.
    async fn hand_over(mut self, to: WorkerId) {
        let Some(connection) = self.here.local.release(self.here.key) else {
            return;
        };
        if self.stream.detach().is_err() {
            return;
        }
        let arrival = HandedOver {
            connection,
            stream: self.stream,
            slot: self.slot,
            unread: self.unread,
        };
        self.here
            .local
            .send_arrival(to, Arrival::HandedOver(Box::new(arrival)))
            .await;
    }
}

impl Future for Task {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let task = self.get_mut();
        if let Self::Serving(driver) = task {
            let served = ready!(driver.poll_serve(cx));
            let Self::Serving(driver) = mem::replace(task, Self::Over) else {
                return Poll::Ready(());
            };
            driver.here.local.parking.forget(driver.here.key);
            *task = match served {
                Served::Lost => return Poll::Ready(()),
                Served::Park => {
                    driver.park();
                    return Poll::Ready(());
                }
                Served::Closing => Self::Ending(Box::pin(driver.close())),
                Served::HandOver(to) => Self::Ending(Box::pin(driver.hand_over(to))),
            };
        }
        match task {
            Self::Ending(ending) => ending.as_mut().poll(cx),
            Self::Serving(_) | Self::Over => Poll::Ready(()),
        }
    }
}

impl Pause {
    fn new(length: Duration) -> Self {
        Self {
            sleep: Box::pin(tokio::time::sleep(length)),
            length,
        }
    }
}

/// A connection's being on a worker: counted, and ended if its task panics, since its session would be online for ever.
struct Presence {
    local: Rc<Local>,
    key: ConnectionKey,
}

impl Presence {
    fn begin(local: Rc<Local>, key: ConnectionKey) -> Self {
        local.connections.fetch_add(1, Ordering::Relaxed);
        Self { local, key }
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        if std::thread::panicking() && self.local.broker.try_borrow_mut().is_ok() {
            self.local
                .lost(self.key, "internal error: the connection's task panicked");
        }
        self.local.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What an idle connection costs beside its session: a buffer in the task would be paid by every one of them.
    #[test]
    fn the_task_of_a_connection_is_small() {
        // With what tokio keeps of a task these are two blocks of 128 bytes, the step in which it allocates.
        assert!(size_of::<Task>() <= 144, "{} bytes", size_of::<Task>());
    }
}

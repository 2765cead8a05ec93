//! The ceiling: the least that can stand between a publisher and its subscribers, as a broker to compare brokers with.
//!
//! One thread, one epoll instance; one read of a connection that has something to read, one look-up of the topic's bytes, one copy into each receiver's output, one
//! write of each output at the end of a round. It acknowledges everything at once and keeps nothing: no session, no window, no right, no limit, no retained message, no
//! filter with `+`. What it costs is the kernel's; a broker's own work is what it costs beyond.

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};

use foldhash::fast::RandomState;
use mio::event::Event;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

/// Bytes that are read at once, at most.
const READ_BYTES: usize = 256 * 1024;
/// Sockets that are looked at in one round.
const EVENTS_PER_ROUND: usize = 1024;
/// Bytes that wait for a receiver above which nothing more is read.
const OUT_BYTES_MAX: usize = 16 << 20;
/// Bytes that have been written above which their room is used again.
const WRITTEN_BYTES_MAX: usize = 1 << 20;
const LISTENER: Token = Token(usize::MAX);

/// A forwarder that listens.
#[derive(Debug)]
pub(super) struct Ceiling {
    poll: Poll,
    listener: TcpListener,
    lines: Vec<Option<Line>>,
    free: Vec<usize>,
    filters: Filters,
    /// Lines whose last read filled the buffer, or that are over: there is no event for the rest.
    unread: Vec<usize>,
    /// Lines with something to write.
    touched: Vec<usize>,
    /// Lines with more to write than [`OUT_BYTES_MAX`].
    long: usize,
    scratch: Vec<u8>,
}

/// A connection.
#[derive(Debug)]
struct Line {
    stream: TcpStream,
    /// The beginning of a packet.
    tail: Vec<u8>,
    out: Vec<u8>,
    written: usize,
    is_touched: bool,
    is_unread: bool,
    is_long: bool,
    is_v5: bool,
    packet_id: u16,
}

/// Who gets what.
#[derive(Debug, Default)]
struct Filters {
    exact: HashMap<Vec<u8>, Vec<usize>, RandomState>,
    /// What stands before `#`.
    prefixes: Vec<(Vec<u8>, usize)>,
    /// One group for all.
    shared: Vec<usize>,
    turn: usize,
    /// Of the message that is being forwarded.
    receivers: Vec<usize>,
}

impl Ceiling {
    /// Listens on this port of 127.0.0.1; 0: on a free one.
    ///
    /// # Errors
    /// The operating system's.
    pub(super) fn bind(port: u16) -> io::Result<Self> {
        let mut listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
        let poll = Poll::new()?;
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        Ok(Self {
            poll,
            listener,
            lines: Vec::new(),
            free: Vec::new(),
            filters: Filters::default(),
            unread: Vec::new(),
            touched: Vec::new(),
            long: 0,
            scratch: vec![0; READ_BYTES],
        })
    }

    /// Where it listens.
    pub(super) fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Forwards until waiting for events fails.
    pub(super) fn run(mut self) -> io::Error {
        let mut events = Events::with_capacity(EVENTS_PER_ROUND);
        loop {
            let pause = if self.unread.is_empty() || self.long > 0 {
                None
            } else {
                Some(std::time::Duration::ZERO)
            };
            match self.poll.poll(&mut events, pause) {
                Err(error) if error.kind() != ErrorKind::Interrupted => return error,
                _ => {}
            }
            for at in std::mem::take(&mut self.unread) {
                if let Some(line) = &mut self.lines[at] {
                    line.is_unread = false;
                    self.read(at);
                }
            }
            for event in &events {
                if event.token() == LISTENER {
                    self.accept();
                } else {
                    self.take(event);
                }
            }
            for at in std::mem::take(&mut self.touched) {
                self.write(at);
            }
        }
    }

    fn accept(&mut self) {
        // The next event comes only when there is nobody left. What fails is the client's to notice.
        while let Ok((mut stream, _)) = self.listener.accept() {
            let at = self.free.pop().unwrap_or(self.lines.len());
            let interest = Interest::READABLE | Interest::WRITABLE;
            if stream.set_nodelay(true).is_err()
                || self.poll.registry().register(&mut stream, Token(at), interest).is_err()
            {
                continue;
            }
            let line = Some(Line {
                stream,
                tail: Vec::new(),
                out: Vec::new(),
                written: 0,
                is_touched: false,
                is_unread: false,
                is_long: false,
                is_v5: false,
                packet_id: 0,
            });
            match self.lines.get_mut(at) {
                Some(place) => *place = line,
                None => self.lines.push(line),
            }
        }
    }

    fn take(&mut self, event: &Event) {
        let Token(at) = event.token();
        let Some(line) = self.lines.get_mut(at).and_then(Option::as_mut) else {
            return; // closed in this round
        };
        if event.is_read_closed() && !line.is_unread {
            line.is_unread = true; // until the read that says so
            self.unread.push(at);
        }
        if (event.is_writable() || event.is_read_closed()) && !line.out.is_empty() {
            touch(line, at, &mut self.touched);
        }
        if event.is_readable() {
            self.read(at);
        }
    }

    /// Reads once: what is less than the buffer was everything. Later, while somebody has too much to take.
    fn read(&mut self, at: usize) {
        let Some(line) = &mut self.lines[at] else { return };
        if self.long > 0 {
            if !line.is_unread {
                line.is_unread = true;
                self.unread.push(at);
            }
            return;
        }
        let kept = line.tail.len();
        if self.scratch.len() < kept + READ_BYTES {
            self.scratch.resize(kept + READ_BYTES, 0);
        }
        let read = match line.stream.read(&mut self.scratch[kept..kept + READ_BYTES]) {
            Ok(read) if read > 0 => read,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => return,
            _ => return self.close(at),
        };
        if read == READ_BYTES && !line.is_unread {
            line.is_unread = true;
            self.unread.push(at);
        }
        self.scratch[..kept].copy_from_slice(&line.tail);
        line.tail.clear();
        let scratch = std::mem::take(&mut self.scratch);
        let mut bytes = &scratch[..kept + read];
        while let Some((head, length)) = frame(bytes) {
            let (packet, rest) = bytes.split_at(head + length);
            if self.forward(at, packet, head).is_none() {
                self.close(at); // DISCONNECT, or not MQTT
                break;
            }
            bytes = rest;
        }
        if let Some(line) = &mut self.lines[at] {
            line.tail.extend_from_slice(bytes);
        }
        self.scratch = scratch;
    }

    /// Does what a packet says; its body begins at `head`. `None` where the connection is over.
    #[inline]
    fn forward(&mut self, at: usize, packet: &[u8], head: usize) -> Option<()> {
        let body = &packet[head..];
        let line = self.lines[at].as_mut()?;
        let answer: &[u8] = match packet[0] >> 4 {
            3 => return self.publish(at, packet, head),
            1 => {
                let name_bytes = usize::from(u16::from_be_bytes(*body.first_chunk()?));
                line.is_v5 = *body.get(2 + name_bytes)? == 5;
                if line.is_v5 {
                    &[0x20, 3, 0, 0, 0]
                } else {
                    &[0x20, 2, 0, 0]
                }
            }
            4 | 7 => return Some(()), // PUBACK, PUBCOMP
            5 => &[0x62, 2, *body.first()?, *body.get(1)?],
            6 => &[0x70, 2, *body.first()?, *body.get(1)?],
            8 => &subscribe(at, body, line.is_v5, &mut self.filters)?,
            // What is unsubscribed are filters with `+`, which nobody has.
            10 if line.is_v5 => &[0xB0, 4, *body.first()?, *body.get(1)?, 0, 0],
            10 => &[0xB0, 2, *body.first()?, *body.get(1)?],
            12 => &[0xD0, 0],
            _ => return None,
        };
        line.out.extend_from_slice(answer);
        touch(line, at, &mut self.touched);
        Some(())
    }

    #[inline]
    fn publish(&mut self, at: usize, packet: &[u8], head: usize) -> Option<()> {
        let qos = packet[0] >> 1 & 3;
        let topic_bytes = usize::from(u16::from_be_bytes(*packet[head..].first_chunk()?));
        let behind_topic = head + 2 + topic_bytes;
        let topic = packet.get(head + 2..behind_topic)?;
        let id: [u8; 2] = if qos > 0 {
            *packet.get(behind_topic..)?.first_chunk()?
        } else {
            [0; 2]
        };
        self.filters.find(topic);
        for &receiver in &self.filters.receivers {
            let Some(line) = &mut self.lines[receiver] else {
                continue;
            };
            let start = line.out.len();
            line.out.extend_from_slice(packet);
            if qos > 0 {
                line.packet_id = line.packet_id.checked_add(1).unwrap_or(1);
                line.out[start + behind_topic..][..2].copy_from_slice(&line.packet_id.to_be_bytes());
            }
            if line.out.len() > OUT_BYTES_MAX && !line.is_long {
                line.is_long = true;
                self.long += 1;
            }
            touch(line, receiver, &mut self.touched);
        }
        if qos > 0 {
            let line = self.lines[at].as_mut()?;
            line.out
                .extend_from_slice(&[if qos == 1 { 0x40 } else { 0x50 }, 2, id[0], id[1]]);
            touch(line, at, &mut self.touched);
        }
        Some(())
    }

    fn write(&mut self, at: usize) {
        let Some(line) = &mut self.lines[at] else { return };
        line.is_touched = false;
        while line.written < line.out.len() {
            match line.stream.write(&line.out[line.written..]) {
                Ok(written) if written > 0 => line.written += written,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if line.written > WRITTEN_BYTES_MAX {
                        line.out.drain(..line.written);
                        line.written = 0;
                    }
                    if line.is_long && line.out.len() <= OUT_BYTES_MAX {
                        line.is_long = false;
                        self.long -= 1;
                    }
                    return; // an event says when
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                _ => return self.close(at),
            }
        }
        line.out.clear();
        line.written = 0;
        if std::mem::take(&mut line.is_long) {
            self.long -= 1;
        }
    }

    fn close(&mut self, at: usize) {
        if let Some(line) = self.lines[at].take() {
            self.long -= usize::from(line.is_long);
            self.filters.forget(at);
            self.free.push(at);
        }
    }
}

#[inline]
fn touch(line: &mut Line, at: usize, touched: &mut Vec<usize>) {
    if !line.is_touched {
        line.is_touched = true;
        touched.push(at);
    }
}

/// Where the body of the packet at the front begins, and its length; `None` where it is not there as a whole.
#[inline]
fn frame(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut length = 0;
    for at in 0..4 {
        let byte = *bytes.get(1 + at)?;
        length |= usize::from(byte & 0x7F) << (7 * at);
        if byte & 0x80 == 0 {
            return (bytes.len() >= 2 + at + length).then_some((2 + at, length));
        }
    }
    None
}

/// Enters the filters of a SUBSCRIBE; its SUBACK. Filters with `+` are refused.
fn subscribe(at: usize, body: &[u8], is_v5: bool, filters: &mut Filters) -> Option<Vec<u8>> {
    let (id, mut rest) = body.split_at_checked(2)?;
    let mut answer = id.to_vec();
    if is_v5 {
        let (&properties, behind) = rest.split_first()?; // shorter than 128 bytes: our generator sends none
        rest = behind.get(usize::from(properties)..)?;
        answer.push(0);
    }
    while !rest.is_empty() {
        let filter_bytes = usize::from(u16::from_be_bytes(*rest.first_chunk()?));
        let filter = rest.get(2..2 + filter_bytes)?;
        let options = *rest.get(2 + filter_bytes)?;
        answer.push(if filters.add(at, filter) { options & 3 } else { 0x80 });
        rest = &rest[3 + filter_bytes..];
    }
    let mut packet = vec![0x90];
    let mut length = answer.len();
    while length > 0x7F {
        packet.push((length & 0x7F) as u8 | 0x80);
        length >>= 7;
    }
    packet.push(length as u8);
    packet.append(&mut answer);
    Some(packet)
}

impl Filters {
    fn add(&mut self, at: usize, filter: &[u8]) -> bool {
        if filter.starts_with(b"$share/") {
            self.shared.push(at);
        } else if let Some(prefix) = filter.strip_suffix(b"#") {
            self.prefixes.push((prefix.to_vec(), at));
        } else if !filter.contains(&b'+') {
            self.exact.entry(filter.to_vec()).or_default().push(at);
        } else {
            return false;
        }
        true
    }

    #[inline]
    fn find(&mut self, topic: &[u8]) {
        self.receivers.clear();
        if let Some(receivers) = self.exact.get(topic) {
            self.receivers.extend_from_slice(receivers);
        }
        for (prefix, at) in &self.prefixes {
            if topic.starts_with(prefix) {
                self.receivers.push(*at);
            }
        }
        if !self.shared.is_empty() {
            self.turn = (self.turn + 1) % self.shared.len();
            self.receivers.push(self.shared[self.turn]);
        }
    }

    fn forget(&mut self, at: usize) {
        self.exact.retain(|_, receivers| {
            receivers.retain(|receiver| *receiver != at);
            !receivers.is_empty()
        });
        self.prefixes.retain(|(_, receiver)| *receiver != at);
        self.shared.retain(|receiver| *receiver != at);
    }
}

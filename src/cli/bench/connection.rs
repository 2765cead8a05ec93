//! One connection of the generator: opens it, and carries its publisher or subscriber.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use hdrhistogram::Histogram;

use super::link::{Failure, Link};
use super::publisher::{Answers, Publisher};
use super::shared::{Counters, Shared, add};
use super::subscriber::{Reading, Subscriber};
use crate::protocol::packet::{Connect, Disconnect, Packet};
use crate::protocol::property::{Properties, PropertiesBuf, PropertyId};
use crate::protocol::reason::ReasonCode;
use crate::protocol::version::Version;

/// Seconds. Connections that say nothing ping in half of it.
pub(super) const KEEP_ALIVE: u16 = 600;
/// For CONNACK, in seconds.
const CONNACK_SECONDS: u64 = 30;
/// Seconds that a session outlives its connection with --keep-session (5.0).
const SESSION_EXPIRY: u32 = 3600;
/// Reads of one connection before others have their turn.
const ROUNDS: usize = 4;

/// What one thread has, and its connections share.
#[derive(Debug)]
pub(super) struct Local {
    pub(super) shared: Arc<Shared>,
    pub(super) thread: usize,
    pub(super) scratch: RefCell<Vec<u8>>,
    /// Nanoseconds from a message's stamp to its delivery.
    pub(super) latency: RefCell<Histogram<u64>>,
    /// Nanoseconds from a message's stamp to its PUBACK or PUBCOMP.
    pub(super) acknowledging: RefCell<Histogram<u64>>,
    /// Nanoseconds from the first packet of TCP to CONNACK.
    pub(super) connecting: RefCell<Histogram<u64>>,
}

impl Local {
    /// Of a thread that has done nothing.
    pub(super) fn counters(&self) -> &Counters {
        &self.shared.counters[self.thread]
    }
}

/// Which connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// It only is there.
    Idle(u32),
    /// It subscribes and unsubscribes.
    Churner(u32),
    /// Index of the plan.
    Publisher(u32),
    /// Index of the plan.
    Subscriber(u32),
}

impl Part {
    const fn index(self) -> u32 {
        match self {
            Self::Idle(index) | Self::Churner(index) | Self::Publisher(index) | Self::Subscriber(index) => index,
        }
    }

    /// At most 23 letters and digits, which every broker takes [MQTT-3.1.3-5].
    fn client_id(self, run: u32) -> String {
        let letter = match self {
            Self::Idle(_) => 'i',
            Self::Churner(_) => 'c',
            Self::Publisher(_) => 'p',
            Self::Subscriber(_) => 's',
        };
        format!("bench{run:08x}{letter}{}", self.index())
    }
}

/// A connection that the broker has let in.
#[derive(Debug)]
pub(super) struct Connection {
    link: Link,
    pub(super) role: Role,
    waker: Option<Waker>,
}

#[derive(Debug)]
pub(super) enum Role {
    Idle,
    Publisher(Publisher),
    Subscriber(Subscriber),
}

impl Connection {
    /// Connects, and subscribes where that is the part.
    pub(super) async fn open(part: Part, local: &Local) -> Result<Rc<RefCell<Self>>, Failure> {
        let shared = &local.shared;
        let began = shared.now();
        let (link, receive_maximum) = connect(part, local, !shared.workload.keep_session).await?;
        local.connecting.borrow_mut().saturating_record(shared.now() - began);
        add(&local.counters().opened, 1);
        let role = match part {
            Part::Idle(_) | Part::Churner(_) => Role::Idle,
            Part::Publisher(index) => Role::Publisher(Publisher::new(index, shared, receive_maximum)?),
            Part::Subscriber(index) => Role::Subscriber(Subscriber::new(index as usize, shared)),
        };
        let mut connection = Self {
            link,
            role,
            waker: None,
        };
        if let Role::Subscriber(subscriber) = &mut connection.role {
            subscriber.subscribe(shared, &mut connection.link.out)?;
        }
        let is_ready = |connection: &Self| match &connection.role {
            Role::Subscriber(subscriber) => subscriber.is_subscribed(shared),
            _ => true,
        };
        std::future::poll_fn(|cx| {
            while !is_ready(&connection) {
                match connection.poll(cx, local) {
                    Poll::Ready(failure) => return Poll::Ready(Err(failure)),
                    Poll::Pending if is_ready(&connection) => {}
                    Poll::Pending => return Poll::Pending,
                }
            }
            Poll::Ready(Ok(()))
        })
        .await?;
        Ok(Rc::new(RefCell::new(connection)))
    }

    /// Reads, answers, publishes and writes until there is nothing to do. Ready when the connection is over.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, local: &Local) -> Poll<Failure> {
        if self.waker.as_ref().is_none_or(|waker| !waker.will_wake(cx.waker())) {
            self.waker = Some(cx.waker().clone());
        }
        for _ in 0..ROUNDS {
            let read = match self.poll_read(cx, local) {
                Poll::Ready(Err(failure)) => return Poll::Ready(failure),
                read => read.is_ready(),
            };
            if let Role::Publisher(publisher) = &mut self.role {
                let waiting = self.link.waiting();
                publisher.publish(&local.shared, local.counters(), waiting, &mut self.link.out, cx.waker());
            }
            let is_writing = self.link.waiting() > 0;
            match self.link.poll_write(cx) {
                Poll::Ready(Err(error)) => return Poll::Ready(error.into()),
                Poll::Ready(Ok(())) if is_writing => {}
                _ if !read => return Poll::Pending,
                _ => {}
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, local: &Local) -> Poll<Result<(), Failure>> {
        let (shared, counters) = (&*local.shared, local.counters());
        let mut scratch = local.scratch.borrow_mut();
        let Self { link, role, .. } = self;
        let mut latency = local.latency.borrow_mut();
        let mut acknowledging = local.acknowledging.borrow_mut();
        let mut answers = Answers::new(shared, counters, &mut acknowledging);
        let mut reading = None;
        if matches!(role, Role::Subscriber(_)) {
            reading = Some(Reading::new(shared, counters, &mut latency));
        }
        let read = link.poll_read(cx, &mut scratch, |packet, out| {
            match (packet, &mut *role, &mut reading) {
                (Packet::PingResp, ..) => Ok(()),
                (Packet::Disconnect(disconnect), ..) => Err(Failure::Disconnected(disconnect.reason)),
                (packet, Role::Subscriber(subscriber), Some(reading)) => subscriber.receive(packet, reading, out),
                (packet, Role::Publisher(publisher), _) => publisher.receive(packet, &mut answers, out),
                (packet, ..) => Err(Failure::Unexpected(packet.packet_type().name())),
            }
        });
        answers.end();
        if let Some(reading) = reading {
            reading.end();
        }
        read
    }

    /// Says that it is alive.
    pub(super) fn ping(&mut self) {
        // Nothing can go wrong with a packet of two bytes.
        if self.link.put(&Packet::PingReq).is_ok() {
            self.wake();
        }
    }

    /// Lets it be polled.
    pub(super) fn wake(&self) {
        if let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
    }

    /// Says goodbye; what does not fit into the socket is not waited for.
    pub(super) fn leave(&mut self) {
        if self.link.put(&goodbye()).is_ok() {
            let _ = self.link.poll_write(&mut Context::from_waker(Waker::noop())); // we are leaving anyway
        }
    }
}

const fn goodbye() -> Packet<'static> {
    Packet::Disconnect(Disconnect {
        reason: ReasonCode::Success,
        properties: Properties::EMPTY,
    })
}

/// Ends the session that --keep-session has left.
pub(super) async fn forget(part: Part, local: &Local) -> Result<(), Failure> {
    let (mut link, _) = connect(part, local, true).await?;
    link.put(&goodbye())?;
    link.close().await;
    Ok(())
}

/// Opens a connection; what the broker takes at once stands in CONNACK.
pub(super) async fn connect(part: Part, local: &Local, is_clean: bool) -> Result<(Link, u16), Failure> {
    let shared = &local.shared;
    let access = &shared.server;
    let version = shared.workload.version;
    let connector = &access.connectors[part.index() as usize % access.connectors.len()];
    let mut link = Link::new(connector.connect().await?, version);
    let mut properties = PropertiesBuf::new();
    if version == Version::V5 && !is_clean {
        properties.push_u32(PropertyId::SessionExpiryInterval, SESSION_EXPIRY);
    }
    link.put(&Packet::Connect(Connect {
        version,
        is_bridge: false,
        clean_start: is_clean,
        keep_alive: KEEP_ALIVE,
        client_id: &part.client_id(shared.run),
        will: None,
        user_name: access.user_name.as_deref(),
        password: access.password.as_deref(),
        properties: properties.view(),
    }))?;
    let connack = link.answer(&local.scratch, |packet| match packet {
        Packet::ConnAck(ack) if ack.reason.is_error() => Err(Failure::Refused(ack.reason)),
        Packet::ConnAck(ack) => Ok(Some(ack.properties.u16(PropertyId::ReceiveMaximum).unwrap_or(u16::MAX))),
        other => Err(Failure::Unexpected(other.packet_type().name())),
    });
    let answer = tokio::time::timeout(Duration::from_secs(CONNACK_SECONDS), connack).await;
    let receive_maximum = answer.map_err(|_| Failure::Silent(CONNACK_SECONDS))??;
    Ok((link, receive_maximum))
}

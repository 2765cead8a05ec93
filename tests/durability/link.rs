//! One connection of a client: bytes out, packets in, and the end of it as an ordinary answer, since brokers die here.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use sundew::protocol::version::Version;

use crate::wire::{self, Connect, PINGREQ, Packet};

/// How long one look at the socket may wait.
const LOOK: Duration = Duration::from_millis(2);
/// An answer that takes longer is a fault.
const PATIENCE: Duration = Duration::from_secs(30);

/// The connection is gone, or never was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gone;

/// One connection.
pub(crate) struct Link {
    stream: TcpStream,
    version: Version,
    received: Vec<u8>,
}

impl Link {
    /// Connects and sends a CONNECT. Session present, if the broker says yes.
    pub(crate) fn open(to: SocketAddr, version: Version, connect: &Connect<'_>) -> Result<(Self, bool), Gone> {
        let stream = TcpStream::connect(to).map_err(|_| Gone)?;
        stream.set_nodelay(true).map_err(|_| Gone)?;
        stream.set_read_timeout(Some(LOOK)).map_err(|_| Gone)?;
        stream.set_write_timeout(Some(PATIENCE)).map_err(|_| Gone)?;
        let mut link = Self {
            stream,
            version,
            received: Vec::new(),
        };
        link.send(&connect.encode(version))?;
        match link.wait()? {
            Packet::ConnAck {
                session_present,
                reason: 0,
                ..
            } => Ok((link, session_present)),
            _ => Err(Gone),
        }
    }

    /// Sends bytes.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> Result<(), Gone> {
        self.stream.write_all(bytes).map_err(|_| Gone)
    }

    /// The next packet, if one comes soon.
    pub(crate) fn look(&mut self) -> Result<Option<Packet>, Gone> {
        if let Some(packet) = self.decode() {
            return Ok(Some(packet));
        }
        let mut chunk = [0; 16 * 1024];
        match self.stream.read(&mut chunk) {
            Ok(0) => Err(Gone),
            Ok(length) => {
                self.received.extend_from_slice(&chunk[..length]);
                Ok(self.decode())
            }
            Err(error) if is_in_vain(&error) => Ok(None),
            Err(_) => Err(Gone),
        }
    }

    /// The next packet.
    pub(crate) fn wait(&mut self) -> Result<Packet, Gone> {
        let give_up = Instant::now() + PATIENCE;
        loop {
            if let Some(packet) = self.look()? {
                return Ok(packet);
            }
            assert!(Instant::now() < give_up, "no packet within {PATIENCE:?}");
        }
    }

    /// Everything that comes before the answer to a PINGREQ.
    pub(crate) fn until_pong(&mut self) -> Result<Vec<Packet>, Gone> {
        self.send(&PINGREQ)?;
        let mut packets = Vec::new();
        loop {
            match self.wait()? {
                Packet::PingResp => return Ok(packets),
                packet => packets.push(packet),
            }
        }
    }

    fn decode(&mut self) -> Option<Packet> {
        let (packet, length) = wire::decode(self.version, &self.received)?;
        self.received.drain(..length);
        Some(packet)
    }
}

fn is_in_vain(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
    )
}

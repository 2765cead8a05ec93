//! A small blocking client of MQTT 3.1.1: many of them fit into one test.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

/// An answer that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// One client. Its packet ids are 16 bits, never 0.
pub(crate) struct Client {
    socket: TcpStream,
    last_id: u16,
}

impl Client {
    /// Connects from the loopback address `127.0.0.from` with a clean session and no keep alive. `Ok(None)`: closed unanswered.
    pub(crate) fn connect(to: SocketAddr, from: u8, client_id: &str) -> io::Result<Option<Self>> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.bind(&SocketAddr::from((Ipv4Addr::new(127, 0, 0, from), 0)).into())?;
        socket.connect(&to.into())?;
        let mut client = Self {
            socket: socket.into(),
            last_id: 0,
        };
        client.socket.set_read_timeout(Some(PATIENCE))?;
        client.socket.set_nodelay(true)?;
        let mut body = b"\x00\x04MQTT\x04\x02\x00\x00".to_vec();
        body.extend(text(client_id));
        let answer = client.send(0x10, &body).and_then(|()| client.receive());
        match answer {
            Ok((0x20, answer)) if answer == [0, 0] => Ok(Some(client)),
            Ok(answer) => Err(io::Error::other(format!("CONNACK expected: {answer:?}"))),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(error),
            Err(_) => Ok(None),
        }
    }

    pub(crate) fn subscribe(&mut self, filter: &str, qos: u8) {
        let mut body = self.next_id().to_be_bytes().to_vec();
        body.extend(text(filter));
        body.push(qos);
        self.send(0x82, &body).unwrap();
        let (kind, answer) = self.receive().unwrap();
        assert_eq!((kind, answer.last()), (0x90, Some(&qos)), "{answer:?}");
    }

    /// Sends a message at QoS 0, 1 or 2 and does not wait.
    pub(crate) fn publish(&mut self, topic: &str, payload: &[u8], qos: u8) -> u16 {
        let mut body = text(topic);
        let id = self.next_id();
        if qos > 0 {
            body.extend(id.to_be_bytes());
        }
        body.extend(payload);
        self.send(0x30 | qos << 1, &body).unwrap();
        id
    }

    pub(crate) fn ping(&mut self) -> io::Result<()> {
        self.send(0xC0, &[])?;
        match self.receive()? {
            (0xD0, _) => Ok(()),
            other => Err(io::Error::other(format!("PINGRESP expected: {other:?}"))),
        }
    }

    /// A message at QoS 2 to itself, all the way: it must have subscribed to `topic` at QoS 2.
    pub(crate) fn round_trip(&mut self, topic: &str, payload: &[u8]) -> io::Result<()> {
        let sent = self.publish(topic, payload, 2).to_be_bytes();
        let mut delivered = Vec::new();
        let (mut is_received, mut is_complete, mut is_released) = (false, false, false);
        while !(is_received && is_complete && is_released) {
            let (kind, body) = self.receive()?;
            match kind {
                0x50 if body == sent => self.send(0x62, &sent)?,
                0x70 if body == sent => is_complete = true,
                0x34 => {
                    let at = 2 + topic.len();
                    delivered = body[at..at + 2].to_vec();
                    is_received = body[2..at] == *topic.as_bytes() && body[at + 2..] == *payload;
                    self.send(0x50, &delivered)?;
                }
                0x62 if body == delivered => {
                    is_released = true;
                    self.send(0x70, &delivered)?;
                }
                _ => return Err(io::Error::other(format!("unexpected {kind:#x} {body:?}"))),
            }
        }
        Ok(())
    }

    /// The next packet: its first byte, its body.
    pub(crate) fn receive(&mut self) -> io::Result<(u8, Vec<u8>)> {
        let mut byte = [0];
        self.socket.read_exact(&mut byte)?;
        let kind = byte[0];
        let (mut length, mut shift) = (0usize, 0);
        loop {
            self.socket.read_exact(&mut byte)?;
            length |= usize::from(byte[0] & 0x7F) << shift;
            shift += 7;
            if byte[0] & 0x80 == 0 {
                break;
            }
        }
        let mut body = vec![0; length];
        self.socket.read_exact(&mut body)?;
        Ok((kind, body))
    }

    fn send(&mut self, kind: u8, body: &[u8]) -> io::Result<()> {
        let mut packet = vec![kind];
        let mut length = body.len();
        loop {
            let more = length > 0x7F;
            packet.push((length & 0x7F) as u8 | u8::from(more) << 7);
            length >>= 7;
            if !more {
                break;
            }
        }
        packet.extend_from_slice(body);
        self.socket.write_all(&packet)
    }

    const fn next_id(&mut self) -> u16 {
        self.last_id = if self.last_id == u16::MAX { 1 } else { self.last_id + 1 };
        self.last_id
    }
}

fn text(text: &str) -> Vec<u8> {
    let mut bytes = (text.len() as u16).to_be_bytes().to_vec();
    bytes.extend_from_slice(text.as_bytes());
    bytes
}

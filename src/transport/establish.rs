//! From an accepted socket to the MQTT bytes of a known peer: PROXY header, TLS handshake, WebSocket upgrade.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use rustls::ServerConfig;
use rustls::server::Acceptor;
use time::OffsetDateTime;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_rustls::{LazyConfigAcceptor, TlsStream};

use super::classify::{NotMqtt, classify, is_connect};
use super::listener::{Accepted, ListenerShared, Slot};
use super::options::{ListenerOptions, WebSocketOptions};
use super::peer::{Address, ClientCertificate, Peer};
use super::proxy_protocol::{self, ProxyError};
use super::socket::Socket;
use super::stream::Stream;
use super::upgrade::{self, Rejection};
use super::websocket::WebSocket;
use super::{listener, tls};

#[cfg(test)]
mod tests;

/// TLS handshakes that one worker computes before it looks after its connections again. A fleet that returns at once
/// would otherwise stop the messages of everybody who is connected.
const HANDSHAKES_PER_ROUND: usize = 8;

thread_local! {
    static HANDSHAKES: Arc<Semaphore> = Arc::new(Semaphore::new(HANDSHAKES_PER_ROUND));
}

/// A connection whose next bytes are MQTT, or should be.
#[derive(Debug)]
pub struct Established {
    /// Its bytes, attached to the runtime that established it.
    pub stream: Stream,
    /// Who is at the other end.
    pub peer: Peer,
    /// MQTT bytes that were read already; most often none.
    pub first_bytes: Vec<u8>,
    /// When the CONNECT must be complete.
    pub deadline: Instant,
    /// The place it takes in its listener; keep it as long as the connection.
    pub slot: Slot,
}

/// A connection that came to nothing before its first MQTT byte. It is closed.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
pub struct Refused {
    /// Who it was.
    pub peer: Peer,
    /// Why.
    pub reason: RefusedReason,
    listener: Arc<ListenerShared>,
}

/// Why a connection came to nothing before its first MQTT byte.
#[derive(Debug, thiserror::Error)]
pub enum RefusedReason {
    /// The peer closed before it sent a byte: a health check or port scan.
    #[error("closed before a byte")]
    Closed,
    /// The peer took too long.
    #[error("timeout: no {0} within the connect timeout")]
    Timeout(&'static str),
    /// MQTT without TLS on a listener with TLS.
    #[error("plaintext MQTT on a TLS port; turn TLS on in the client, or use the listener without TLS")]
    PlaintextOnTls,
    /// HTTP without TLS on a listener with TLS.
    #[error("plaintext HTTP on a TLS port; the address must begin with wss:// (https://)")]
    HttpOnTls,
    /// Neither TLS nor anything known on a listener with TLS.
    #[error("not TLS on a TLS port")]
    NotTls,
    /// The TLS handshake failed; one of the words `no_client_cert`, `unknown_ca`, `cert_expired`, `cert_revoked`,
    /// `no_shared_version`, `no_shared_cipher`, `no_shared_alpn`, `client_closed`, `peer_alert:NAME`, or a sentence.
    #[error("TLS handshake failed: {0}")]
    Handshake(String),
    /// MQTT without WebSocket on a WebSocket listener.
    #[error("MQTT without WebSocket on a WebSocket port; use the listener without WebSocket")]
    MqttOnWebSocket,
    /// Something else that is known, on a WebSocket listener.
    #[error("{0}")]
    NotMqtt(NotMqtt),
    /// The HTTP request opens no WebSocket.
    #[error("{0}")]
    Http(Rejection),
    /// The peer is not one of the proxies that may connect here.
    #[error("not a trusted proxy; this listener is for the networks of proxy_protocol only")]
    UntrustedProxy,
    /// The PROXY header is missing or bad.
    #[error("{0}")]
    Proxy(ProxyError),
    /// A proxy brought somebody who is banned, or has too much already. Whoever kept it out has counted it, and told what is to be told.
    #[error("kept out")]
    KeptOut,
    /// The socket failed.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Whether nothing comes before MQTT on a connection, so that [`establish_plain`] does.
pub fn is_plain(accepted: &Accepted) -> bool {
    let options = accepted.slot.listener().options();
    options.tls.is_none() && options.websocket.is_none() && options.proxy_protocol.is_none()
}

/// [`establish`] where [`is_plain`]: there is nothing to wait for.
///
/// # Errors
/// [`Refused`], where the operating system does not watch the socket for us.
pub fn establish_plain(accepted: Accepted) -> Result<Established, Refused> {
    let Accepted { mut socket, peer, slot } = accepted;
    let deadline = Instant::now() + slot.listener().options().connect_timeout;
    let attached = socket.attach();
    let stream = attached.map(|()| Stream::Plain(socket)).map_err(RefusedReason::Io);
    finish(stream, peer, deadline, slot)
}

/// Does what comes before MQTT on `accepted`: PROXY header, TLS handshake, WebSocket upgrade, as its listener is set.
/// Attaches a detached socket to the runtime of the calling thread. Returns at once for a plain TCP or Unix listener.
///
/// Where a proxy says who the client is, `keeps_out` is asked about it at once: before the handshake, which is what costs, and before a request
/// is answered.
///
/// # Errors
/// [`Refused`], which the caller logs with [`Refused::log`]; the connection is closed.
pub async fn establish(
    accepted: Accepted,
    mut keeps_out: impl FnMut(&Peer, &mut Slot) -> bool,
) -> Result<Established, Refused> {
    if is_plain(&accepted) {
        return establish_plain(accepted);
    }
    let Accepted {
        mut socket,
        mut peer,
        mut slot,
    } = accepted;
    let deadline = Instant::now() + slot.listener().options().connect_timeout;
    let result = match socket.attach() {
        Ok(()) => {
            let listener = Arc::clone(slot.listener());
            let mut keeps_out = |peer: &Peer| keeps_out(peer, &mut slot);
            within(deadline, &listener, &mut peer, socket, &mut keeps_out).await
        }
        Err(error) => Err(error.into()),
    };
    finish(result, peer, deadline, slot)
}

fn finish(
    result: Result<Stream, RefusedReason>,
    peer: Peer,
    deadline: Instant,
    slot: Slot,
) -> Result<Established, Refused> {
    match result {
        Ok(stream) => Ok(Established {
            stream,
            peer,
            first_bytes: Vec::new(),
            deadline,
            slot,
        }),
        Err(reason) => Err(Refused {
            peer,
            reason,
            listener: Arc::clone(slot.listener()),
        }),
    }
}

impl Refused {
    /// Writes the one line about it; repeats from one address within a minute become one. A connection without a byte
    /// is DEBUG only: load balancers and watchdogs make them all day.
    pub fn log(&self) {
        let (listener, addr) = (self.listener.name(), &self.peer.address);
        if matches!(self.reason, RefusedReason::KeptOut) {
            return;
        }
        if matches!(
            self.reason,
            RefusedReason::Closed | RefusedReason::Proxy(ProxyError::Closed)
        ) {
            tracing::debug!(listener, %addr, reason = %self.reason, "connection without a byte");
            return;
        }
        let reason = self.reason.to_string();
        match self.listener.record_refusal(&(&reason, addr.ip())) {
            None => {}
            Some(0) => tracing::warn!(listener, %addr, reason, "connection refused"),
            Some(repeated) => tracing::warn!(listener, %addr, reason, repeated, "connection refused"),
        }
    }
}

async fn within(
    deadline: Instant,
    listener: &ListenerShared,
    peer: &mut Peer,
    socket: Socket,
    keeps_out: &mut dyn FnMut(&Peer) -> bool,
) -> Result<Stream, RefusedReason> {
    let mut step = "PROXY header";
    let steps = steps(listener, peer, socket, keeps_out, &mut step);
    match tokio::time::timeout_at(deadline, steps).await {
        Ok(result) => result,
        Err(_) => Err(RefusedReason::Timeout(step)),
    }
}

/// `step` names what is waited for.
async fn steps(
    listener: &ListenerShared,
    peer: &mut Peer,
    mut socket: Socket,
    keeps_out: &mut dyn FnMut(&Peer) -> bool,
    step: &mut &'static str,
) -> Result<Stream, RefusedReason> {
    let options = listener.options();
    if options.proxy_protocol.is_some() {
        read_proxy_header(&mut socket, options, peer).await?;
        // A WebSocket proxy behind this one says itself whom it brings.
        if peer.proxy.is_some() && !options.forwards_for(&peer.address) && keeps_out(peer) {
            return Err(RefusedReason::KeptOut);
        }
    }
    let Some(config) = listener.tls() else {
        let Some(options) = &options.websocket else {
            return Ok(Stream::Plain(socket));
        };
        *step = "WebSocket request";
        open_websocket(&mut socket, options, peer, keeps_out).await?;
        return Ok(Stream::WebSocket(Box::new(WebSocket::server(socket, options))));
    };
    *step = "TLS handshake";
    let mut tls = handshake(socket, config, peer).await?;
    let Some(options) = &options.websocket else {
        return Ok(Stream::Tls(Box::new(tls)));
    };
    *step = "WebSocket request";
    open_websocket(&mut tls, options, peer, keeps_out).await?;
    Ok(Stream::SecureWebSocket(Box::new(WebSocket::server(tls, options))))
}

async fn read_proxy_header(
    socket: &mut Socket,
    options: &ListenerOptions,
    peer: &mut Peer,
) -> Result<(), RefusedReason> {
    let trusted = options.proxy_protocol.as_deref().unwrap_or_default();
    // Who may write to a Unix socket is decided by its file's mode.
    if peer
        .address
        .ip()
        .is_some_and(|ip| !trusted.iter().any(|network| network.contains(ip)))
    {
        return Err(RefusedReason::UntrustedProxy);
    }
    let header = proxy_protocol::read_header(socket)
        .await
        .map_err(RefusedReason::Proxy)?;
    if let Some(source) = header.source {
        peer.proxy = Some(std::mem::replace(&mut peer.address, Address::Ip(source)));
    }
    if header.client_common_name.is_some() || header.server_name.is_some() {
        let certificate = header.client_common_name.map(|name| ClientCertificate {
            common_name: Some(name),
            ..ClientCertificate::default()
        });
        let server_name = header.server_name;
        peer.tls = Some(Box::new(super::peer::TlsPeer {
            server_name,
            certificate,
            ..Default::default()
        }));
    }
    Ok(())
}

async fn handshake(
    socket: Socket,
    config: Arc<ServerConfig>,
    peer: &mut Peer,
) -> Result<TlsStream<Socket>, RefusedReason> {
    classify_before_tls(&socket).await?;
    let hello = LazyConfigAcceptor::new(Acceptor::default(), socket)
        .await
        .map_err(handshake_failure)?;
    // Only now is there something to compute: a peer that is silent keeps nobody waiting.
    let turns = HANDSHAKES.with(Arc::clone);
    let turn = turns.acquire().await; // never closed
    let mut handshake = pin!(hello.into_stream(config));
    let first = std::future::poll_fn(|cx| Poll::Ready(handshake.as_mut().poll(cx))).await;
    tokio::task::yield_now().await; // the round ends here, and the turn with it
    drop(turn);
    let tls = match first {
        Poll::Ready(result) => result,
        Poll::Pending => handshake.await,
    };
    let tls = tls.map_err(handshake_failure)?;
    let told = tls::peer(tls.get_ref().1);
    // A session that is resumed brings the certificate of its beginning, which nobody has looked at since.
    let has_ended =
        |certificate: &ClientCertificate| certificate.not_after < OffsetDateTime::now_utc().unix_timestamp();
    if told.certificate.as_ref().is_some_and(has_ended) {
        return Err(RefusedReason::Handshake("cert_expired".to_owned()));
    }
    peer.tls = Some(Box::new(told));
    Ok(tls.into())
}

/// Looks at the first bytes without taking them. Costs one system call, little beside a handshake.
async fn classify_before_tls(socket: &Socket) -> Result<(), RefusedReason> {
    let Socket::Tcp(stream) = socket else { return Ok(()) };
    let mut first = [0; 16];
    let count = stream.peek(&mut first).await.map_err(|error| early(error, true))?;
    let first = &first[..count];
    match first.first() {
        None => Err(RefusedReason::Closed),
        Some(0x16) => Ok(()), // a TLS handshake record
        Some(_) if is_connect(first) => Err(RefusedReason::PlaintextOnTls),
        Some(_) if classify(first) == Some(NotMqtt::Http) => Err(RefusedReason::HttpOnTls),
        Some(_) => Err(RefusedReason::NotTls),
    }
}

fn handshake_failure(error: io::Error) -> RefusedReason {
    let tls_error = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    RefusedReason::Handshake(match tls_error {
        Some(error) => tls::handshake_failure(error),
        None if listener::is_peer_gone(&error) => "client_closed".to_owned(),
        None => error.to_string(),
    })
}

/// A peer that goes away before its first byte is a probe, however rudely it goes.
fn early(error: io::Error, nothing_read: bool) -> RefusedReason {
    if nothing_read && listener::is_peer_gone(&error) {
        RefusedReason::Closed
    } else {
        RefusedReason::Io(error)
    }
}

async fn open_websocket<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    options: &WebSocketOptions,
    peer: &mut Peer,
    keeps_out: &mut dyn FnMut(&Peer) -> bool,
) -> Result<(), RefusedReason> {
    let upgrade = match read_request(stream, options).await? {
        Ok(head) => upgrade::accept(&head, options),
        Err(rejection) => Err(rejection),
    };
    match upgrade {
        Ok(upgrade) => {
            let chain = upgrade.forwarded_for;
            if let Some(ip) = upgrade::client_address(peer.address.ip(), &chain, &options.trusted_proxies) {
                peer.proxy = Some(std::mem::replace(
                    &mut peer.address,
                    Address::Ip(SocketAddr::new(ip, 0)),
                ));
                if keeps_out(peer) {
                    return Err(RefusedReason::KeptOut);
                }
            }
            stream.write_all(&upgrade.answer).await?;
            stream.flush().await?;
            peer.http = Some(Box::new(upgrade.peer));
            Ok(())
        }
        Err(rejection) => {
            stream.write_all(&rejection.answer()).await?;
            stream.shutdown().await?;
            Err(RefusedReason::Http(rejection))
        }
    }
}

/// Reads the head of a request. A client that sends more before our answer breaks RFC 6455 §4.1.
async fn read_request<S: AsyncRead + Unpin>(
    stream: &mut S,
    options: &WebSocketOptions,
) -> Result<Result<Vec<u8>, Rejection>, RefusedReason> {
    let mut head = Vec::with_capacity(1024);
    loop {
        let count = (&mut *stream).take(1024).read_buf(&mut head).await;
        if count.map_err(|error| early(error, head.is_empty()))? == 0 {
            return Err(early(io::ErrorKind::UnexpectedEof.into(), head.is_empty()));
        }
        match classify(&head) {
            _ if is_connect(&head) => return Err(RefusedReason::MqttOnWebSocket),
            None | Some(NotMqtt::Http) => {}
            Some(other) => return Err(RefusedReason::NotMqtt(other)),
        }
        match upgrade::head_end(&head) {
            Some(end) if end == head.len() => return Ok(Ok(head)),
            Some(_) => {
                return Ok(Err(Rejection {
                    status: 400,
                    reason: "bytes follow the request before its answer",
                }));
            }
            None if head.len() >= options.request_size_max => return Ok(Err(Rejection::TOO_LARGE)),
            None => {}
        }
    }
}

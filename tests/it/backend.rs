//! A program that is asked over HTTP/1.1, real enough to be slow, dead, or to lie.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use rustls::pki_types::PrivateKeyDer;

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// `POST`.
    pub(crate) method: String,
    /// With the query.
    pub(crate) path: String,
    /// The lines of its head.
    pub(crate) head: String,
    /// The body.
    pub(crate) body: String,
}

/// A path that is answered once on each connection; then that is closed, though a question has come.
pub(crate) const TIRED: &str = "/tired";

/// What it says: a status and a body. `None`: nothing, and the connection ends.
pub(crate) type Says = Option<(u16, String)>;

type Handler = Box<dyn Fn(&Request) -> Says + Send + Sync>;

/// It, until it is dropped.
pub(crate) struct Backend {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    handler: Handler,
    requests: Mutex<Vec<Request>>,
    busy: AtomicUsize,
    busy_max: AtomicUsize,
    is_over: AtomicBool,
}

impl Backend {
    /// Answers as the handler says.
    pub(crate) fn start(handler: impl Fn(&Request) -> Says + Send + Sync + 'static) -> Self {
        Self::over(None, Box::new(handler))
    }

    /// The same over TLS, with a certificate for `localhost`, which is left in a file.
    pub(crate) fn start_tls(authority: &Path, handler: impl Fn(&Request) -> Says + Send + Sync + 'static) -> Self {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        std::fs::write(authority, made.cert.pem()).unwrap();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider);
        let config = config
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth();
        let config = config.with_single_cert(vec![made.cert.der().clone()], key).unwrap();
        Self::over(Some(Arc::new(config)), Box::new(handler))
    }

    fn over(tls: Option<Arc<rustls::ServerConfig>>, handler: Handler) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            handler,
            requests: Mutex::default(),
            busy: AtomicUsize::new(0),
            busy_max: AtomicUsize::new(0),
            is_over: AtomicBool::new(false),
        });
        let ours = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if ours.is_over.load(Ordering::Acquire) {
                    return;
                }
                let (shared, tls) = (Arc::clone(&ours), tls.clone());
                std::thread::spawn(move || match tls {
                    None => shared.serve(stream),
                    Some(tls) => {
                        let server = rustls::ServerConnection::new(tls).unwrap();
                        shared.serve(rustls::StreamOwned::new(server, stream));
                    }
                });
            }
        });
        Self { address, shared }
    }

    /// The address of a path.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// The same over TLS.
    pub(crate) fn tls_url(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.address.port())
    }

    /// All that it was asked.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.shared.requests.lock().unwrap().clone()
    }

    /// How many questions it had at once.
    pub(crate) fn busy_max(&self) -> usize {
        self.shared.busy_max.load(Ordering::Acquire)
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Release);
        let _ = TcpStream::connect(self.address); // wakes the listener
    }
}

impl Shared {
    fn serve(&self, stream: impl Read + Write) {
        let mut reader = BufReader::new(stream);
        let mut count = 0;
        while let Some(request) = read(&mut reader) {
            count += 1;
            if request.path == TIRED && count > 1 {
                return;
            }
            self.requests.lock().unwrap().push(request.clone());
            let busy = self.busy.fetch_add(1, Ordering::AcqRel) + 1;
            self.busy_max.fetch_max(busy, Ordering::AcqRel);
            let says = (self.handler)(&request);
            self.busy.fetch_sub(1, Ordering::AcqRel);
            let Some((status, body)) = says else { return };
            let length = body.len();
            let answer = format!("HTTP/1.1 {status} X\r\nContent-Length: {length}\r\n\r\n{body}");
            let sent = reader
                .get_mut()
                .write_all(answer.as_bytes())
                .and_then(|()| reader.get_mut().flush());
            if sent.is_err() || self.is_over.load(Ordering::Acquire) {
                return;
            }
        }
    }
}

fn read(reader: &mut impl BufRead) -> Option<Request> {
    let mut head = String::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if line == "\r\n" {
            break;
        }
        head += &line;
    }
    let mut words = head.lines().next()?.split(' ');
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let lower = head.to_ascii_lowercase();
    let length = lower.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |length| length.trim().parse().unwrap())];
    reader.read_exact(&mut body).ok()?;
    let body = String::from_utf8(body).unwrap();
    Some(Request {
        method,
        path,
        head,
        body,
    })
}

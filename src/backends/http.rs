//! A program that is asked over HTTP who may enter, and what he may do.
//!
//! A bounded number of questions is out at once, a bounded number waits, each for a bounded time; answers are remembered for a while.
//! Whoever waits for one is not read meanwhile, and nobody else waits for him.

pub mod cache;
pub mod client;
pub mod says;
pub mod template;

use core::hash::BuildHasher;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::warn;
use ureq::http::Method;

use super::pool::{AnswersTo, Pool};
use crate::auth::chain::NO_PASSWORD;
use crate::auth::rule::Action;
use crate::auth::way::{Asked, BackendEvent, Deed, Question, Rights, Way};
use crate::auth::{Access, Answer, Answers, Identity, Refusal, Verdict};
use crate::protocol::ids::{Token, WorkerId};
use crate::protocol::reason::ReasonCode;
use crate::protocol::repeat::Repeats;
use crate::protocol::time::Time;
use crate::session::peer::Peer;
use cache::{Cache, Fingerprint};
use client::{Client, ClientOptions, is_address};
use says::{NoAnswer, Says};
use template::{Template, Values, form, json};

/// How a program is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpOptions {
    /// Where it is configured: `FILE:LINE`.
    pub place: Box<str>,
    /// Who may enter; `None`: it is not asked that.
    pub connect: Option<Call>,
    /// What he may do; `None`: it is not asked that.
    pub acl: Option<Call>,
    /// How it is spoken to. As many questions are out at once as it has connections.
    pub client: ClientOptions,
    /// Questions that wait; one more is answered as if it had failed.
    pub waiting_max: usize,
    /// How long answers are remembered.
    pub cache_lifetime: Duration,
    /// Answers of each kind that are remembered.
    pub cache_max: usize,
    /// What it cannot be asked is allowed, not denied.
    pub allows_on_failure: bool,
    /// The status says all, whatever the body says.
    pub is_status_all: bool,
}

/// One kind of question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The address as it may stand in logs, see [`client::without_query`].
    pub name: String,
    /// The address.
    pub url: Template,
    /// With GET; otherwise with POST.
    pub is_get: bool,
    /// The fields are a form, not JSON. With GET they are the query of the address.
    pub is_form: bool,
    /// What is sent.
    pub fields: Vec<(String, Template)>,
    /// Headers, as they are.
    pub headers: Vec<(String, String)>,
}

/// What is asked: who may enter, or what he may do.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Connect,
    Acl,
}

/// A question as it is sent.
struct Request {
    url: String,
    body: Option<String>,
}

impl Call {
    /// `None`: what a client says cannot be asked in an address. Who makes that so is refused, and the program has not failed.
    fn request(&self, values: &Values<'_>) -> Option<Request> {
        let mut url = self.url.url(values)?;
        if !self.is_get {
            let body = if self.is_form {
                form(&self.fields, values)
            } else {
                json(&self.fields, values)
            };
            return is_address(&url).then_some(Request { url, body: Some(body) });
        }
        if !self.fields.is_empty() {
            url.push(if url.contains('?') { '&' } else { '?' });
            url.push_str(&form(&self.fields, values));
        }
        is_address(&url).then_some(Request { url, body: None })
    }

    fn send(&self, client: &Client, request: &Request) -> Result<client::Answer, String> {
        let kind = if self.is_form {
            "application/x-www-form-urlencoded"
        } else {
            "application/json"
        };
        let mut headers = self.headers.clone();
        match &request.body {
            Some(body) => {
                headers.push(("content-type".into(), kind.into()));
                client.send(&Method::POST, &request.url, &headers, Some(body.as_bytes()))
            }
            None => client.send(&Method::GET, &request.url, &headers, None),
        }
    }
}

/// A program that is asked.
pub struct HttpBackend {
    options: HttpOptions,
    client: Client,
    pool: Pool,
    answers: AnswersTo,
    said: Cache<Says>,
    /// What who was let in by it was let in for.
    stamp: u64,
    /// Failures of one kind at one address are told once a minute.
    trouble: Mutex<Repeats>,
    started: Instant,
}

const TELL_AGAIN_MS: u64 = 60_000;
/// Kinds of failures that are told apart.
const TROUBLES_MAX: usize = 64;

impl fmt::Debug for HttpBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpBackend")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl HttpBackend {
    /// Nobody is asked yet.
    ///
    /// # Errors
    /// Its authorities cannot be read.
    pub fn new(options: HttpOptions, seed: &impl BuildHasher, answers: &AnswersTo) -> Result<Self, String> {
        let stamp = seed.hash_one(("http", options.connect.as_ref().map(|call| &call.url)));
        Ok(Self {
            client: Client::new(&options.client)?,
            pool: Pool::new("http", options.client.connections_max, options.waiting_max, answers),
            answers: Arc::clone(answers),
            said: Cache::new(options.cache_lifetime, options.cache_max)?,
            stamp: stamp.max(NO_PASSWORD + 1),
            trouble: Mutex::new(Repeats::new(TELL_AGAIN_MS, TROUBLES_MAX)),
            started: Instant::now(),
            options,
        })
    }

    /// Whatever it said before does not count any more.
    pub fn forget_answers(&self) {
        self.said.clear(Instant::now());
    }

    /// How it is asked.
    pub const fn options(&self) -> &HttpOptions {
        &self.options
    }

    /// Asks, and has the answer given to whom it is for. What nobody waits for any more when its turn comes is not asked.
    fn ask(
        self: &Arc<Self>,
        (kind, call): (Kind, &Call),
        values: &Values<'_>,
        worker: WorkerId,
        is_awaited: impl Fn() -> bool + Send + 'static,
        give: Give,
    ) -> Outcome {
        let Some(request) = call.request(values) else {
            return Outcome::Said(Says::No);
        };
        let question = self.question(kind, &request);
        if let Some(says) = self.said.get(&question, Instant::now()) {
            return Outcome::Said(says);
        }
        let (ours, call, since) = (Arc::clone(self), call.clone(), Instant::now());
        let is_taken = self.pool.run(Box::new(move |answers| {
            if !is_awaited() {
                return;
            }
            let says = ours.find_out(&call, &request, question, since);
            answers.backend(
                worker,
                if says.is_ok() {
                    BackendEvent::Asked
                } else {
                    BackendEvent::Failed
                },
            );
            give(answers, says);
        }));
        if is_taken {
            return Outcome::Later;
        }
        if let Some(answers) = self.answers.get() {
            answers.backend(worker, BackendEvent::Overloaded);
        }
        self.tell(
            &self.options.place,
            "too many questions wait",
            self.options.allows_on_failure,
        );
        Outcome::Overloaded
    }

    /// The two kinds of question may be sent to one address with the same fields, and differ in their headers only.
    fn question(&self, kind: Kind, request: &Request) -> Fingerprint {
        let kind: &[u8] = match kind {
            Kind::Connect => b"connect",
            Kind::Acl => b"acl",
        };
        let body = request.body.as_deref().unwrap_or_default();
        self.said.fingerprint(&[kind, request.url.as_bytes(), body.as_bytes()])
    }

    fn find_out(
        &self,
        call: &Call,
        request: &Request,
        question: Fingerprint,
        since: Instant,
    ) -> Result<Says, NoAnswer> {
        // The same was asked by another client meanwhile.
        if let Some(says) = self.said.get(&question, Instant::now()) {
            return Ok(says);
        }
        let says = if since.elapsed() > self.options.client.timeout {
            Err(NoAnswer::Failed("its turn did not come in time".into()))
        } else {
            let answer = call.send(&self.client, request).map_err(NoAnswer::Failed);
            answer.and_then(|answer| says::read(&answer, self.options.is_status_all, &call.name))
        };
        match says {
            Ok(says) => {
                self.said.keep(question, says.clone(), since, Instant::now());
                Ok(says)
            }
            Err(none) => {
                let (NoAnswer::Failed(error) | NoAnswer::Odd(error)) = &none;
                self.tell(&call.name, error, self.allows(&none));
                Err(none)
            }
        }
    }

    /// Whether what it does not answer is allowed.
    const fn allows(&self, none: &NoAnswer) -> bool {
        self.options.allows_on_failure && matches!(none, NoAnswer::Failed(_))
    }

    fn tell(&self, url: &str, error: &str, is_allowed: bool) {
        let now = Time(u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX));
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(repeated) = trouble.record(&(url, error), now) else {
            return;
        };
        let then = if is_allowed { "allowed" } else { "denied" };
        warn!(
            url,
            error,
            then,
            repeated = (repeated > 0).then_some(repeated),
            "no answer of the authentication back end"
        );
    }

    fn verdict(&self, says: Result<Says, NoAnswer>, user_name: Option<Box<str>>, wrong: ReasonCode) -> Verdict {
        let identity = Identity {
            user_name,
            stamp: Some(self.stamp),
            ..Identity::default()
        };
        match says {
            Ok(Says::Yes(grants)) => Verdict::Admit(Identity {
                grants: grants.map(Arc::new),
                ..identity
            }),
            Ok(Says::No) => refuse(wrong, "backend_refused"),
            Err(none) if self.allows(&none) => Verdict::Admit(Identity {
                is_believed: true,
                ..identity
            }),
            Err(_) => refuse(ReasonCode::ServerUnavailable, "backend_failed"),
        }
    }
}

/// Takes an answer to whom it is for.
type Give = Box<dyn FnOnce(&dyn Answers, Result<Says, NoAnswer>) + Send>;

/// What came of asking.
enum Outcome {
    Said(Says),
    Later,
    Overloaded,
}

const fn refuse(reason: ReasonCode, why: &'static str) -> Verdict {
    Verdict::Refuse(Refusal { reason, why })
}

/// Asks it who may enter.
#[derive(Debug)]
pub struct HttpWay(pub Arc<HttpBackend>);

impl Way for HttpWay {
    fn ask(&self, question: &Question<'_>) -> Asked {
        let Some(call) = &self.0.options.connect else {
            return Asked::NotMine;
        };
        let request = question.request;
        let host = host(question.peer);
        let values = Values {
            user_name: request.user_name.as_deref().unwrap_or_default(),
            password: request.password.as_deref().unwrap_or_default(),
            client_id: &request.client_id,
            ..of_peer(question.peer, &host)
        };
        let (backend, asker, wrong) = (Arc::clone(&self.0), question.asker(), question.wrong);
        let waits = {
            let asker = asker.clone();
            move || asker.waits()
        };
        let give = Box::new(move |answers: &dyn Answers, says| {
            let user_name = asker.user_name.clone();
            asker.tell(answers, backend.verdict(says, user_name, wrong));
        });
        match self
            .0
            .ask((Kind::Connect, call), &values, question.token.worker, waits, give)
        {
            Outcome::Later => Asked::Later,
            Outcome::Said(says) => Asked::Said(self.0.verdict(Ok(says), request.user_name.clone(), wrong)),
            Outcome::Overloaded if self.0.options.allows_on_failure => {
                let none = NoAnswer::Failed(String::new());
                Asked::Said(self.0.verdict(Err(none), request.user_name.clone(), wrong))
            }
            Outcome::Overloaded => Asked::Said(refuse(ReasonCode::ServerBusy, "backend_overloaded")),
        }
    }

    fn stands(&self, stamp: u64) -> bool {
        stamp == self.0.stamp
    }
}

/// Asks it what a client may do.
#[derive(Debug)]
pub struct HttpRights(pub Arc<HttpBackend>);

impl Rights for HttpRights {
    fn ask(&self, who: &Access<'_>, deed: &Deed<'_>, token: Token) -> Answer<bool> {
        let Some(call) = &self.0.options.acl else {
            return Answer::Ready(false);
        };
        let host = host(who.peer);
        let values = Values {
            user_name: who.user_name.unwrap_or_default(),
            client_id: who.client_id,
            topic: deed.topic,
            is_subscribe: deed.action != Action::Publish,
            qos: deed.qos as u8,
            retain: deed.retain,
            ..of_peer(who.peer, &host)
        };
        let backend = Arc::clone(&self.0);
        let give = Box::new(move |answers: &dyn Answers, says: Result<Says, NoAnswer>| match says {
            Ok(says) => answers.allowed(token, says != Says::No),
            Err(none) if backend.allows(&none) => answers.allowed(token, true),
            Err(_) => answers.unanswered(token),
        });
        match self.0.ask((Kind::Acl, call), &values, token.worker, || true, give) {
            Outcome::Later => Answer::Pending,
            Outcome::Said(says) => Answer::Ready(says != Says::No),
            Outcome::Overloaded if self.0.options.allows_on_failure => Answer::Ready(true),
            Outcome::Overloaded => match self.0.answers.get() {
                Some(answers) => {
                    answers.unanswered(token);
                    Answer::Pending
                }
                None => Answer::Ready(false),
            },
        }
    }
}

fn host(peer: &Peer) -> String {
    peer.ip.map_or_else(String::new, |ip| ip.to_canonical().to_string())
}

fn of_peer<'a>(peer: &'a Peer, host: &'a str) -> Values<'a> {
    let certificate = peer.certificate.as_deref();
    Values {
        peer_host: host,
        listener: &peer.rules.name,
        common_name: certificate
            .and_then(|one| one.common_name.as_deref())
            .unwrap_or_default(),
        ..Values::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(url: &str) -> Call {
        Call {
            name: url.into(),
            url: Template::parse(url).unwrap(),
            is_get: true,
            is_form: true,
            fields: vec![("password".into(), Template::parse("${password}").unwrap())],
            headers: Vec::new(),
        }
    }

    /// It trusts blindly, and what is asked is nobody: nothing listens at port 1.
    fn backend() -> Arc<HttpBackend> {
        let options = HttpOptions {
            place: "test".into(),
            connect: None,
            acl: None,
            client: ClientOptions {
                ca_file: None,
                timeout: Duration::from_millis(100),
                connections_max: 1,
                answer_bytes_max: 100,
            },
            waiting_max: 1,
            cache_lifetime: Duration::from_secs(60),
            cache_max: 10,
            allows_on_failure: true,
            is_status_all: false,
        };
        let seed = foldhash::fast::RandomState::default();
        Arc::new(HttpBackend::new(options, &seed, &AnswersTo::default()).unwrap())
    }

    #[test]
    fn a_client_cannot_make_the_program_fail_by_what_it_says() {
        let backend = backend();
        let ask = |url: &str, user_name: &str, password: &[u8]| {
            let values = Values {
                user_name,
                password,
                ..Values::default()
            };
            let asked = (Kind::Connect, &call(url));
            backend.ask(asked, &values, WorkerId(0), || true, Box::new(|_, _| {}))
        };
        let long = vec![b'%'; 22_000];
        assert!(matches!(
            ask("http://127.0.0.1:1/", "a", &long),
            Outcome::Said(Says::No)
        ));
        for name in ["", ".", "..", "../x", "a/b"] {
            let said = ask("http://127.0.0.1:1/${username}/auth", name, b"p");
            assert!(matches!(said, Outcome::Said(Says::No)), "{name}");
        }
        assert!(matches!(ask("http://127.0.0.1:1/", "a", b"p"), Outcome::Later));
    }

    #[test]
    fn an_answer_about_one_kind_of_question_is_none_about_the_other() {
        let backend = backend();
        let request = call("http://127.0.0.1:1/").request(&Values::default()).unwrap();
        let (enter, act) = (Kind::Connect, Kind::Acl);
        assert_ne!(backend.question(enter, &request), backend.question(act, &request));
        assert_eq!(backend.question(act, &request), backend.question(act, &request));
    }
}

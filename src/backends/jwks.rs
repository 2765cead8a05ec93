//! A set of keys that its issuer keeps at an address: fetched now and then, and when a token names a key that is not in it.
//!
//! While the address does not answer, the keys that were there last count, for a bounded time.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant};

use tracing::{error, info, warn};
use ureq::http::Method;

use super::http::client::{Client, ClientOptions, without_query};
use super::pool::{AnswersTo, Job, perform};
use super::token::keys::Keys;

/// How keys are fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwksOptions {
    /// Where they are.
    pub url: String,
    /// How that is spoken to.
    pub client: ClientOptions,
    /// How often they are fetched.
    pub refresh: Duration,
    /// Not more often than this, whatever tokens say; and again so soon when it failed.
    pub pause: Duration,
    /// How long they count when they cannot be fetched.
    pub keep: Duration,
}

/// Tokens that wait until keys are fetched.
const WAITING_MAX: usize = 256;

/// Keys at an address.
#[derive(Debug)]
pub struct JwksUrl {
    options: JwksOptions,
    shared: Arc<Shared>,
    jobs: OnceLock<SyncSender<Job>>,
}

/// What the thread that fetches shares with those who use the keys.
#[derive(Debug)]
struct Shared {
    client: Client,
    seed: foldhash::fast::RandomState,
    state: RwLock<State>,
    /// Moves when keys have changed, so that who came with one that is gone goes.
    generation: Arc<AtomicU64>,
}

#[derive(Debug, Default)]
struct State {
    keys: Arc<Keys>,
    fetched: Option<Instant>,
}

impl JwksUrl {
    /// Nothing is fetched yet.
    ///
    /// # Errors
    /// The authorities cannot be read.
    pub fn new(
        options: JwksOptions,
        seed: foldhash::fast::RandomState,
        generation: Arc<AtomicU64>,
    ) -> Result<Self, String> {
        let client = Client::new(&options.client)?;
        Ok(Self {
            options,
            shared: Arc::new(Shared {
                client,
                seed,
                state: RwLock::default(),
                generation,
            }),
            jobs: OnceLock::new(),
        })
    }

    /// How they are fetched.
    pub const fn options(&self) -> &JwksOptions {
        &self.options
    }

    /// Fetches from now on, until it is dropped.
    pub fn start(&self, answers: &AnswersTo) {
        let (shared, options, answers) = (Arc::clone(&self.shared), self.options.clone(), Arc::clone(answers));
        self.jobs.get_or_init(|| {
            let (jobs, waiting) = sync_channel(WAITING_MAX);
            let thread = std::thread::Builder::new().name("jwks".into());
            if let Err(error) = thread.spawn(move || shared.run(&options, &waiting, &answers)) {
                error!(%error, "no thread to fetch keys; is the limit of processes (ulimit -u) too low?");
            }
            jobs
        });
    }

    /// Fetches them once, now.
    ///
    /// # Errors
    /// Why there are none.
    pub fn fetch(&self) -> Result<(), String> {
        self.shared.fetch(&self.options.url).map(|_| ())
    }

    /// The keys that tokens are checked with; none before the first were fetched, or when the last ones are too old.
    pub fn keys(&self) -> Arc<Keys> {
        let state = self.shared.state.read().unwrap_or_else(PoisonError::into_inner);
        let is_fresh = state.fetched.is_some_and(|at| at.elapsed() <= self.options.keep);
        if is_fresh {
            Arc::clone(&state.keys)
        } else {
            Arc::default()
        }
    }

    /// The keys that were there last, however old: who came with one of them is not sent away because they cannot be fetched.
    pub fn last(&self) -> Arc<Keys> {
        Arc::clone(&self.shared.state.read().unwrap_or_else(PoisonError::into_inner).keys)
    }

    /// Does something as soon as the keys have been fetched again, if it is time for that; false when too many wait already.
    pub fn after_fetch(&self, job: Job) -> bool {
        self.jobs.get().is_some_and(|jobs| jobs.try_send(job).is_ok())
    }
}

impl Shared {
    fn run(&self, options: &JwksOptions, waiting: &Receiver<Job>, answers: &AnswersTo) {
        let mut was_fetched = self.fetch_and_tell(options, answers, true);
        let mut last = Instant::now();
        loop {
            let pause = if was_fetched { options.refresh } else { options.pause };
            let job = match waiting.recv_timeout(pause.saturating_sub(last.elapsed())) {
                Ok(job) => Some(job),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            // Whoever sends tokens with names of keys that do not exist has us fetch no more often than this.
            if job.is_none() || last.elapsed() >= options.pause {
                was_fetched = self.fetch_and_tell(options, answers, was_fetched);
                last = Instant::now();
            }
            if let Some(job) = job {
                perform(job, answers);
            }
        }
    }

    /// Fetches; a failure is told once, until it works again.
    fn fetch_and_tell(&self, options: &JwksOptions, answers: &AnswersTo, was_fetched: bool) -> bool {
        let url = without_query(&options.url);
        match self.fetch(&options.url) {
            Ok(change) => {
                if !was_fetched || change != Change::None {
                    info!(url, keys = self.keys().list().len(), "keys fetched");
                }
                if change == Change::Gone {
                    self.generation.fetch_add(1, Ordering::Release);
                    if let Some(answers) = answers.get() {
                        answers.access_changed();
                    }
                }
                true
            }
            Err(error) => {
                if was_fetched {
                    let keep = options.keep.as_secs();
                    warn!(
                        url,
                        error, keep, "keys cannot be fetched: the last ones count for so many seconds"
                    );
                }
                false
            }
        }
    }

    fn keys(&self) -> Arc<Keys> {
        Arc::clone(&self.state.read().unwrap_or_else(PoisonError::into_inner).keys)
    }

    fn fetch(&self, url: &str) -> Result<Change, String> {
        let answer = self.client.send(&Method::GET, url, &[], None)?;
        if answer.status != 200 {
            return Err(format!("the answer is {}, not 200", answer.status));
        }
        let body = answer.body.ok_or("the answer is too large")?;
        let text = String::from_utf8(body).map_err(|_| "the answer is no text in UTF-8")?;
        let keys = Keys::from_jwks(&text, false, &self.seed)?;
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let has = |keys: &Keys, stamp| keys.list().iter().any(|key| key.stamp == stamp);
        let are_kept = state.keys.list().iter().all(|key| has(&keys, key.stamp));
        let are_known = keys.list().iter().all(|key| has(&state.keys, key.stamp));
        *state = State {
            keys: Arc::new(keys),
            fetched: Some(Instant::now()),
        };
        Ok(match (are_kept, are_known) {
            (false, _) => Change::Gone,
            (true, false) => Change::New,
            (true, true) => Change::None,
        })
    }
}

/// What became of the keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    /// They are the same.
    None,
    /// There are more.
    New,
    /// One is not there any more.
    Gone,
}

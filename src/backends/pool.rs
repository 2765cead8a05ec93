//! Threads for what is asked in passing: a bounded number works, a bounded number waits, and what comes beyond is refused.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tracing::error;

use crate::auth::Answers;

/// Where answers go, once there is somebody who wants them.
pub type AnswersTo = Arc<OnceLock<Arc<dyn Answers>>>;

/// Something to do, and whom to tell.
pub type Job = Box<dyn FnOnce(&dyn Answers) + Send>;

/// The threads, started when there is something to do first. They end when it is dropped.
pub struct Pool {
    name: &'static str,
    threads: usize,
    jobs: SyncSender<Job>,
    waiting: Arc<Mutex<Receiver<Job>>>,
    answers: AnswersTo,
    has_started: Mutex<bool>,
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Pool {
    /// That many threads, for as many jobs at once; so many more wait.
    pub fn new(name: &'static str, threads: usize, waiting_max: usize, answers: &AnswersTo) -> Self {
        let (jobs, waiting) = sync_channel(waiting_max);
        Self {
            name,
            threads: threads.max(1),
            jobs,
            waiting: Arc::new(Mutex::new(waiting)),
            answers: Arc::clone(answers),
            has_started: Mutex::new(false),
        }
    }

    /// Takes a job; false when too many wait already.
    pub fn run(&self, job: Job) -> bool {
        self.start() && self.jobs.try_send(job).is_ok()
    }

    /// Sees to it that there are threads; false when the system gives none.
    fn start(&self) -> bool {
        let mut has_started = self.has_started.lock().unwrap_or_else(PoisonError::into_inner);
        for number in 0..if *has_started { 0 } else { self.threads } {
            let (waiting, answers) = (Arc::clone(&self.waiting), Arc::clone(&self.answers));
            let thread = std::thread::Builder::new().name(format!("{}-{number}", self.name));
            match thread.spawn(move || run(&waiting, &answers)) {
                Ok(_) => *has_started = true, // one is enough to go on
                Err(error) => {
                    error!(%error, pool = self.name, "no thread; is the limit of processes (ulimit -u) too low?");
                    break;
                }
            }
        }
        *has_started
    }
}

fn run(waiting: &Mutex<Receiver<Job>>, answers: &AnswersTo) {
    loop {
        // Taken by whoever comes first; held only while there is nothing to do.
        let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = next else { return };
        perform(job, answers);
    }
}

/// Does a job. One question that nobody can answer is not the end of all: its client waits until it is refused.
pub(super) fn perform(job: Job, answers: &AnswersTo) {
    let Some(answers) = answers.get() else { return };
    if catch_unwind(AssertUnwindSafe(|| job(&**answers))).is_err() {
        error!("a question of authentication was not answered: this is a fault of the broker, please report it");
    }
}

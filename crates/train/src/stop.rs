use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Asks a run to stop after the step that it is at, from another thread or from a signal.
///
/// A run that is asked writes a checkpoint, if it writes any, and returns what it has. For a handler of signals, which may
/// only store numbers, its parts are given out: [`asked`](Self::asked) takes the number of the signal, and
/// [`is_idle`](Self::is_idle) says whether there is nothing to wait for, so that the process may end at once.
#[derive(Clone, Debug)]
pub struct Stop {
    asked: Arc<AtomicUsize>,
    is_idle: Arc<AtomicBool>,
}

impl Default for Stop {
    fn default() -> Self {
        Self {
            asked: Arc::default(),
            is_idle: Arc::new(AtomicBool::new(true)),
        }
    }
}

impl Stop {
    /// Not asked yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks; `by` is any number but 0, by which the caller knows again who asked.
    pub fn ask(&self, by: usize) {
        self.asked.store(by, Ordering::SeqCst);
    }

    /// Who asked, if anyone did.
    pub fn asked_by(&self) -> Option<usize> {
        Some(self.asked.load(Ordering::SeqCst)).filter(|by| *by != 0)
    }

    /// The number of who asked, 0 if nobody did.
    pub fn asked(&self) -> Arc<AtomicUsize> {
        self.asked.clone()
    }

    /// Whether no run waits to be stopped: none has begun to train, or it was asked already.
    pub fn is_idle(&self) -> Arc<AtomicBool> {
        self.is_idle.clone()
    }

    /// Between these two a run looks whether it is asked.
    pub(crate) fn set_idle(&self, idle: bool) {
        self.is_idle.store(idle, Ordering::SeqCst);
    }
}

/// Why a run ended before its last step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stopped {
    /// By a [`Stop`], of this number.
    Asked(usize),
    /// From the dashboard.
    Dashboard,
    /// `max_minutes` were over.
    Minutes,
    /// `max_tokens` were trained on.
    Tokens,
    /// `patience` validations went by without an improvement.
    Patience,
}

impl Stopped {
    /// Whether somebody did not want to wait, so that nothing more should be computed than what saves the run.
    pub fn is_hurry(self) -> bool {
        matches!(self, Self::Asked(_))
    }
}

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Asked(_) => "asked",
            Self::Dashboard => "dashboard",
            Self::Minutes => "max_minutes",
            Self::Tokens => "max_tokens",
            Self::Patience => "patience",
        })
    }
}

use std::io::{self, Write};

use burn::train::Interrupter;
use burn::train::renderer::MetricsRenderer;

use crate::error::TrainError;
use crate::lines::LineRenderer;
use crate::stop::Stop;

/// Who is shown the progress of a run.
pub enum Observer {
    /// burn-train's dashboard on the terminal, which must be one. It is closed before the run returns; its `q` key stops
    /// the run after the current step, and what was learned until then is kept.
    #[cfg(feature = "tui")]
    Dashboard,
    /// Plain lines.
    Lines(Box<dyn Write + Send>),
    /// A renderer of your own.
    Custom(Box<dyn MetricsRenderer>),
    /// Nobody.
    Nobody,
    /// One of the above, and somebody who may stop the run ([`Observer::until`]).
    Until(Box<Observer>, Stop),
}

impl Observer {
    /// The dashboard if standard input and output are a terminal that can show it, the variable `CI` is not set and the
    /// feature `tui` is on; otherwise lines to `sink`.
    pub fn auto(sink: impl Write + Send + 'static) -> Self {
        #[cfg(feature = "tui")]
        if can_show_dashboard() {
            return Self::Dashboard;
        }
        Self::Lines(Box::new(sink))
    }

    /// The same, for a run that ends when `stop` is asked to.
    pub fn until(self, stop: &Stop) -> Self {
        Self::Until(Box::new(self), stop.clone())
    }

    /// Who may stop the run.
    pub(crate) fn stop(&self) -> Stop {
        match self {
            Self::Until(_, stop) => stop.clone(),
            _ => Stop::new(),
        }
    }

    /// Checks that the progress can be shown.
    ///
    /// # Errors
    /// [`TrainError::NoTerminal`] for the dashboard without a terminal.
    pub(crate) fn check(&self) -> Result<(), TrainError> {
        if let Self::Until(observer, _) = self {
            return observer.check();
        }
        #[cfg(feature = "tui")]
        if matches!(self, Self::Dashboard) && !io::IsTerminal::is_terminal(&io::stdout()) {
            return Err(TrainError::NoTerminal);
        }
        Ok(())
    }

    /// The renderer of a run of `total` steps, of which `first_step` were done before.
    pub(crate) fn into_renderer(
        self,
        interrupter: Interrupter,
        checkpoint: Option<usize>,
        [first_step, total, every]: [usize; 3],
    ) -> Box<dyn MetricsRenderer> {
        match self {
            #[cfg(feature = "tui")]
            Self::Dashboard => Box::new(
                burn::train::renderer::tui::TuiMetricsRendererWrapper::new(interrupter, checkpoint),
            ),
            Self::Lines(sink) => Box::new(LineRenderer::new(sink, first_step, total, every)),
            Self::Custom(renderer) => renderer,
            Self::Until(observer, _) => {
                observer.into_renderer(interrupter, checkpoint, [first_step, total, every])
            }
            Self::Nobody => Box::new(LineRenderer::new(
                Box::new(io::sink()),
                first_step,
                total,
                every,
            )),
        }
    }
}

#[cfg(feature = "tui")]
fn can_show_dashboard() -> bool {
    use std::io::IsTerminal;

    let dumb = std::env::var("TERM").is_ok_and(|term| term == "dumb");
    let ci = std::env::var_os("CI").is_some();
    io::stdout().is_terminal() && io::stdin().is_terminal() && !dumb && !ci
}

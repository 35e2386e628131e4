use std::io::{self, Write};

use burn::train::Interrupter;
use burn::train::renderer::MetricsRenderer;

use crate::error::TrainError;
use crate::lines::LineRenderer;

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

    /// Checks that the progress can be shown.
    ///
    /// # Errors
    /// [`TrainError::NoTerminal`] for the dashboard without a terminal.
    pub(crate) fn check(&self) -> Result<(), TrainError> {
        #[cfg(feature = "tui")]
        if matches!(self, Self::Dashboard) && !io::IsTerminal::is_terminal(&io::stdout()) {
            return Err(TrainError::NoTerminal);
        }
        Ok(())
    }

    /// The renderer of a run of `total` steps, of which `first_step` were done before.
    pub(crate) fn into_renderer(
        self,
        #[cfg_attr(not(feature = "tui"), allow(unused_variables))] interrupter: Interrupter,
        #[cfg_attr(not(feature = "tui"), allow(unused_variables))] checkpoint: Option<usize>,
        [first_step, total, every]: [usize; 3],
    ) -> Box<dyn MetricsRenderer> {
        match self {
            #[cfg(feature = "tui")]
            Self::Dashboard => Box::new(
                burn::train::renderer::tui::TuiMetricsRendererWrapper::new(interrupter, checkpoint),
            ),
            Self::Lines(sink) => Box::new(LineRenderer::new(sink, first_step, total, every)),
            Self::Custom(renderer) => renderer,
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

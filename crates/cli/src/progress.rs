//! A bar for what takes more than a second.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// The time without a bar.
const PATIENCE: Duration = Duration::from_secs(1);

/// Shows how much is done on the standard error, if that is a terminal.
#[derive(Debug)]
pub struct Bar {
    what: &'static str,
    template: &'static str,
    started: Instant,
    bar: Mutex<Option<ProgressBar>>,
}

impl Bar {
    /// Counts bytes.
    pub fn bytes(what: &'static str) -> Self {
        Self::new(
            what,
            "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}",
        )
    }

    /// Counts tokens.
    pub fn tokens(what: &'static str) -> Self {
        Self::new(
            what,
            "{msg} {wide_bar} {human_pos}/{human_len} tokens {eta}",
        )
    }

    /// Counts rows.
    pub fn rows(what: &'static str) -> Self {
        Self::new(what, "{msg} {wide_bar} {human_pos}/{human_len} rows {eta}")
    }

    /// Counts layers.
    pub fn layers(what: &'static str) -> Self {
        Self::new(what, "{msg} {wide_bar} {pos}/{len} layers {eta}")
    }

    fn new(what: &'static str, template: &'static str) -> Self {
        Self {
            what,
            template,
            started: Instant::now(),
            bar: Mutex::new(None),
        }
    }

    /// Shows how far it is.
    pub fn set(&self, done: u64, all: u64) {
        if self.started.elapsed() < PATIENCE {
            return;
        }
        // A poisoned bar is a bar still.
        let mut bar = self.bar.lock().unwrap_or_else(|error| error.into_inner());
        let bar = bar.get_or_insert_with(|| self.start());
        bar.set_length(all);
        bar.set_position(done);
    }

    fn start(&self) -> ProgressBar {
        let style = ProgressStyle::with_template(self.template);
        ProgressBar::no_length()
            .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
            .with_message(self.what)
            .with_elapsed(self.started.elapsed())
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        let bar = self
            .bar
            .get_mut()
            .unwrap_or_else(|error| error.into_inner());
        if let Some(bar) = bar {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_templates_are_valid() {
        for bar in [
            Bar::bytes("a"),
            Bar::tokens("b"),
            Bar::rows("c"),
            Bar::layers("d"),
        ] {
            ProgressStyle::with_template(bar.template).expect("a template");
            bar.set(1, 2);
            assert!(
                bar.bar.lock().expect("alone").is_none(),
                "not within a second"
            );
            bar.start().finish_and_clear();
        }
    }
}

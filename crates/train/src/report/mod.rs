//! A run on one page: curves, what was measured, the data, samples, the adapter's norms, the configuration.
//!
//! The page needs nothing from outside and runs no script; its colors follow the reader's light or dark.

mod chart;
mod html;

use std::collections::BTreeMap;
use std::path::Path;

use burn_lora_adapter::LayerChange;

use crate::evaluate::Completion;
use crate::facts::{Fact, FactKind};
use crate::run::{RunConfig, RunPart, RunResult};
use crate::samples::Sample;
use chart::{Chart, Series};
use html::Page;

/// The file of the report, in the folder of the run.
pub const REPORT_FILE: &str = "report.html";

/// Completions that are shown.
const SAMPLES: usize = 20;

/// Samples on the way that are shown.
const MADE: usize = 200;

/// What a report is made of.
#[derive(Clone, Copy, Debug)]
pub struct Report<'a> {
    /// The configuration of the run.
    pub config: &'a RunConfig,
    /// What it came to.
    pub result: &'a RunResult,
    /// The device, by name.
    pub device: &'a str,
    /// What was known of each step.
    pub facts: &'a [Fact],
    /// The data by their use.
    pub parts: &'a [RunPart],
    /// Prompts that the trained model completed.
    pub samples: &'a [Completion],
    /// What the model made of prompts on its way.
    pub made: &'a [Sample],
    /// What the adapter does to each layer.
    pub changes: &'a [LayerChange],
}

impl Report<'_> {
    /// The page.
    pub fn html(&self) -> String {
        let name = Path::new(&self.config.model);
        let name = name.file_name().unwrap_or(name.as_os_str());
        let title = format!(
            "{} on {}",
            self.config.adapter.words(),
            name.to_string_lossy()
        );
        let mut page = Page::new(&title);
        self.overview(&mut page);
        self.curves(&mut page);
        self.data(&mut page);
        self.samples(&mut page);
        self.made(&mut page);
        self.adapter(&mut page);
        page.heading("Configuration");
        page.preformatted(&self.config.to_yaml());
        page.finish()
    }

    fn overview(&self, page: &mut Page) {
        let result = self.result;
        let number = |value: Option<f64>| value.map_or("none".to_string(), digits);
        let mut rows = vec![
            ("model", self.config.model.clone()),
            (
                "adapter",
                result
                    .adapter
                    .as_ref()
                    .map_or("none".into(), |adapter| adapter.display().to_string()),
            ),
            ("method", self.config.adapter.to_string()),
            ("device", self.device.to_string()),
            ("steps", result.steps.to_string()),
            ("tokens", result.tokens.to_string()),
            ("seconds", digits(result.seconds)),
            ("tokens per second", digits(result.tokens_per_second)),
            ("training loss", number(result.train_loss)),
            ("validation loss", number(result.valid_loss)),
        ];
        if let Some(bytes) = result.peak_memory_bytes {
            let mebibytes = format!("{} MiB", bytes >> 20);
            rows.push(("most resident memory", mebibytes));
        }
        let mut rows: Vec<[String; 2]> = rows
            .into_iter()
            .map(|(name, value)| [name.to_string(), value])
            .collect();
        let measured = result.metrics.iter();
        rows.extend(measured.map(|(name, value)| [format!("{name} at the end"), digits(*value)]));
        page.table(["", ""], rows);
    }

    /// The loss of training and validation in one picture, every other metric in one of its own.
    fn curves(&self, page: &mut Page) {
        let mut curves: BTreeMap<&str, [Vec<(f64, f64)>; 2]> = BTreeMap::new();
        for fact in self.facts {
            for (name, value) in &fact.metrics {
                let Some(value) = value else { continue };
                let series = curves.entry(name).or_default();
                let which = match fact.kind {
                    FactKind::Train => 0,
                    FactKind::Valid => 1,
                };
                series[which].push((fact.step as f64, *value));
            }
        }
        if curves.is_empty() {
            return;
        }
        page.heading("Curves");
        let mut names: Vec<&str> = curves.keys().copied().collect();
        // What a reader looks at first.
        names.sort_by_key(|name| (*name != "loss", *name != "perplexity"));
        page.figures(names.into_iter().map(|name| {
            let [train, valid] = &curves[name];
            Chart {
                title: name.replace('_', " "),
                x_label: "step",
                series: vec![
                    Series {
                        name: "training",
                        points: train,
                    },
                    Series {
                        name: "validation",
                        points: valid,
                    },
                ],
            }
            .svg()
        }));
    }

    fn data(&self, page: &mut Page) {
        page.heading("Data");
        for part in self.parts {
            let files: Vec<String> = part
                .files
                .iter()
                .map(|file| file.display().to_string())
                .collect();
            page.subheading(part.name);
            page.paragraph(&files.join(", "));
            page.preformatted(&part.report.lines().join("\n"));
        }
    }

    fn samples(&self, page: &mut Page) {
        if self.samples.is_empty() {
            return;
        }
        page.heading("Samples");
        let exact = self
            .samples
            .iter()
            .filter(|sample| sample.is_exact())
            .count();
        page.paragraph(&format!(
            "{exact} of {} prompts were completed exactly; the first {}:",
            self.samples.len(),
            self.samples.len().min(SAMPLES)
        ));
        let rows = self.samples.iter().take(SAMPLES).map(|sample| {
            let mark = if sample.is_exact() { "yes" } else { "no" };
            [
                sample.prompt.clone(),
                sample.expected.clone(),
                sample.generated.clone(),
                mark.to_string(),
            ]
        });
        page.table(["prompt", "wanted", "made", "exact"], rows);
    }

    /// Prompt by prompt, so that one sees how its completion changes.
    fn made(&self, page: &mut Page) {
        if self.made.is_empty() {
            return;
        }
        let mut made: Vec<&Sample> = self.made.iter().collect();
        made.sort_by(|left, right| (&left.prompt, left.step).cmp(&(&right.prompt, right.step)));
        page.heading("Samples on the way");
        let rows = made.into_iter().take(MADE).map(|sample| {
            [
                sample.step.to_string(),
                sample.prompt.clone(),
                sample.expected.clone(),
                sample.generated.clone(),
            ]
        });
        page.table(["step", "prompt", "wanted", "made"], rows);
    }

    fn adapter(&self, page: &mut Page) {
        if self.changes.is_empty() {
            return;
        }
        page.heading("The adapter by layer");
        page.paragraph(
            "The Frobenius norm of what the adapter adds to each weight, and the same as a share of the weight's own.",
        );
        let most = self.changes.iter().map(|change| change.norm);
        let most = most.fold(0.0, f64::max).max(f64::MIN_POSITIVE);
        let rows = self.changes.iter().map(|change| {
            let share = change.share();
            (
                [
                    change.layer.clone(),
                    change.rank.map_or(String::new(), |rank| rank.to_string()),
                    digits(change.norm),
                    share.map_or(String::new(), |share| format!("{:.3} %", 100.0 * share)),
                ],
                change.norm / most,
            )
        });
        page.bars(["layer", "rank", "norm", "of the weight's"], rows);
    }
}

/// Four digits that count.
fn digits(value: f64) -> String {
    let size = value.abs();
    if value == 0.0 || !value.is_finite() {
        format!("{value}")
    } else if (1e-3..1e6).contains(&size) {
        let places = (3 - size.log10().floor() as i32).clamp(0, 6) as usize;
        let text = format!("{value:.places$}");
        match text.contains('.') {
            true => text.trim_end_matches('0').trim_end_matches('.').to_string(),
            false => text,
        }
    } else {
        format!("{value:.3e}")
    }
}

#[cfg(test)]
mod tests;

//! The metrics of the dashboard; each is fed by a [`StepReport`](crate::output::StepReport) per step.

mod loss;
mod perplexity;
mod speed;
mod task;

pub(crate) use loss::LossMetric;
pub(crate) use perplexity::PerplexityMetric;
pub(crate) use speed::SpeedMetric;
pub(crate) use task::{Measure, TaskMetric};

pub(crate) const LOSS: &str = "Loss";
pub(crate) const PERPLEXITY: &str = "Perplexity";
pub(crate) const SPEED: &str = "Tokens per second";
/// The name that burn-train gives its own metric.
pub(crate) const LEARNING_RATE: &str = "Learning Rate";

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use burn::data::dataloader::Progress;
    use burn::train::Interrupter;
    use burn::train::metric::{Metric, MetricMetadata, Numeric};

    use super::*;
    use crate::output::StepReport;
    use crate::watch::{Split, Watch};

    fn metadata() -> MetricMetadata {
        MetricMetadata {
            progress: Progress::new(1, 1, None),
            iteration: None,
            lr: None,
        }
    }

    fn report(loss: f64, learned: usize, begin: Instant, millis: [u64; 2]) -> StepReport {
        StepReport {
            loss,
            gradient_norm: None,
            learned,
            tokens: learned * 2,
            told: Vec::new(),
            started: begin + Duration::from_millis(millis[0]),
            finished: begin + Duration::from_millis(millis[1]),
        }
    }

    #[test]
    fn loss_and_perplexity_weigh_by_learned_tokens() {
        let watch = Watch::new(0, Interrupter::new());
        let mut loss = LossMetric::new(Split::Train, watch.clone());
        let mut perplexity = PerplexityMetric::default();
        let begin = Instant::now();
        for report in [
            report(1.0, 30, begin, [0, 5]),
            report(2.0, 10, begin, [5, 9]),
        ] {
            loss.update(&report, &metadata())
                .expect("no tensor is read");
            perplexity
                .update(&report, &metadata())
                .expect("no tensor is read");
        }
        loss.compute().expect("no tensor is read");
        assert_eq!(loss.final_value().current(), 1.25);
        assert!((perplexity.final_value().current() - 1.25_f64.exp()).abs() < 1e-12);
        let tally = watch.tally().expect("finite");
        let counts = &tally.counts;
        assert_eq!((tally.steps, counts.learned, counts.tokens), (2, 40, 80));
        assert_eq!((counts.train_loss, counts.valid_loss), (Some(1.25), None));
        assert!((tally.first_step_seconds.expect("a step") - 0.005).abs() < 1e-9);
    }

    #[test]
    fn overlapping_steps_are_not_counted_twice() {
        let mut speed = SpeedMetric::default();
        let begin = Instant::now();
        // The second step is queued after 10 ms, while the first runs until 100 ms.
        for report in [
            report(1.0, 50, begin, [0, 100]),
            report(1.0, 50, begin, [10, 200]),
        ] {
            speed
                .update(&report, &metadata())
                .expect("no tensor is read");
        }
        assert!((speed.final_value().current() - 1000.0).abs() < 1e-6);
    }

    #[test]
    fn a_loss_that_is_not_finite_interrupts() {
        let interrupter = Interrupter::new();
        let watch = Watch::new(4, interrupter.clone());
        let mut loss = LossMetric::new(Split::Train, watch.clone());
        loss.update(&report(f64::NAN, 1, Instant::now(), [0, 1]), &metadata())
            .expect("no read");
        assert!(interrupter.should_stop());
        let error = watch.tally().expect_err("not finite").to_string();
        assert!(
            error.starts_with("the training loss is NaN at step 5"),
            "{error}"
        );
    }
}

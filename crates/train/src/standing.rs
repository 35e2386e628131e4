use serde::{Deserialize, Serialize};

use crate::config::TrainConfig;
use crate::exact;

/// The best validation so far, and how long ago it was.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Standing {
    /// The best validation.
    pub(crate) best: Option<Best>,
    /// Validations since.
    pub(crate) since: usize,
}

/// A validation.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Best {
    /// Optimizer steps before it.
    pub(crate) step: usize,
    /// What was measured.
    #[serde(with = "exact")]
    pub(crate) value: f64,
}

impl Standing {
    /// Takes note of a validation; the result is whether it is the best.
    pub(crate) fn observe(&mut self, step: usize, value: f64, config: &TrainConfig) -> bool {
        let margin = config.min_improvement;
        let is_best = self
            .best
            .is_none_or(|best| match is_lower_better(&config.best_metric) {
                true => value < best.value - margin,
                false => value > best.value + margin,
            });
        match is_best {
            true => {
                *self = Self {
                    best: Some(Best { step, value }),
                    since: 0,
                }
            }
            false => self.since += 1,
        }
        is_best
    }

    /// Whether the patience is over.
    pub(crate) fn is_hopeless(&self, config: &TrainConfig) -> bool {
        config
            .patience
            .is_some_and(|patience| self.since >= patience)
    }
}

/// Of errors less is better, of everything else more.
fn is_lower_better(metric: &str) -> bool {
    let metric = metric.to_lowercase();
    ["loss", "perplexity", "error", "mse", "mae"]
        .iter()
        .any(|word| metric.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_validation_must_be_better_by_the_margin() {
        let config = TrainConfig {
            patience: Some(2),
            min_improvement: 0.1,
            ..TrainConfig::default()
        };
        let mut standing = Standing::default();
        assert!(standing.observe(10, 1.0, &config));
        assert!(!standing.observe(20, 0.95, &config));
        assert!(!standing.is_hopeless(&config));
        assert!(standing.observe(30, 0.89, &config));
        assert!(!standing.observe(40, 0.9, &config));
        assert!(!standing.observe(50, 0.8, &config));
        assert!(standing.is_hopeless(&config));
        assert_eq!(
            standing.best,
            Some(Best {
                step: 30,
                value: 0.89
            })
        );
    }

    #[test]
    fn more_of_an_accuracy_is_better() {
        let config = TrainConfig {
            best_metric: "accuracy".into(),
            ..TrainConfig::default()
        };
        let mut standing = Standing::default();
        standing.observe(1, 0.5, &config);
        assert!(standing.observe(2, 0.6, &config) && !standing.observe(3, 0.4, &config));
        assert!(
            !standing.is_hopeless(&config),
            "no patience is endless patience"
        );
    }

    #[test]
    fn numbers_come_back_bit_for_bit() {
        for value in [0.1 + 0.2, 1.0 / 3.0, 5e-324, 2.5362198312349675] {
            let best = Best { step: 1, value };
            let text = serde_json::to_string(&best).expect("text");
            let back: Best = serde_json::from_str(&text).expect("the same");
            assert_eq!(back.value.to_bits(), value.to_bits(), "{text}");
        }
    }
}

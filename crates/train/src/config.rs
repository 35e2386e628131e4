use std::path::PathBuf;

use burn_lora_kernels::LossTerms;
use serde::{Deserialize, Serialize};

use crate::error::TrainError;
use crate::optimizer::OptimizerChoice;
use crate::schedule::{Decay, Schedule};
use crate::warmup::Warmup;

/// How a model is trained. The defaults suit LoRA on a small set; full training wants a tenth of the learning rate.
///
/// ```
/// use burn_lora_train::{TrainConfig, Warmup};
///
/// let config = TrainConfig { steps: 300, warmup: Warmup::Steps(20), ..TrainConfig::default() };
/// config.validate()?;
/// # Ok::<(), burn_lora_train::TrainError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrainConfig {
    /// Optimizer steps in all.
    pub steps: usize,
    /// Examples in one forward pass.
    pub batch_size: usize,
    /// Forward passes whose gradients make one step; the step is that of one batch of `batch_size * grad_accumulation`.
    pub grad_accumulation: usize,
    /// Tokens that an example may have at most. Examples are cut where they are encoded; here the limit is checked.
    pub max_seq_len: usize,
    /// Put short examples together into rows of `max_seq_len` tokens, of which `batch_size` make a batch. No example sees
    /// another; gradients are those of the same examples in rows of their own.
    pub packing: bool,
    /// Highest learning rate, reached at the end of the warmup.
    pub learning_rate: f64,
    /// The learning rate of LoRA's up-projections, as a multiple of that of all else (LoRA+, arXiv:2402.12354; 16 is a good
    /// value, with a lower `learning_rate`). `None` trains both at the same rate.
    pub lora_plus_ratio: Option<f64>,
    /// How long the learning rate rises.
    pub warmup: Warmup,
    /// How it falls afterwards.
    pub decay: Decay,
    /// Where it ends, as a share of `learning_rate`.
    pub final_lr_ratio: f64,
    /// The optimizer.
    pub optimizer: OptimizerChoice,
    /// Share of a parameter that is taken off at each step, times the learning rate; biases and the parameters of norms
    /// are left as they are.
    pub weight_decay: f64,
    /// Share of each target that goes to all tokens alike (arXiv:1512.00567), in training; the loss that is shown is without
    /// it.
    pub label_smoothing: f64,
    /// Weight of the squared log of the softmax's normalizer, in training (PaLM, arXiv:2204.02311, which takes 1e-4); the loss
    /// that is shown is without it. It costs a product with the output head more.
    pub z_loss: f64,
    /// Noise of at most `neftune_alpha / sqrt(tokens of a row * d_model)` on the embeddings, in training (NEFTune,
    /// arXiv:2310.05914, which takes 5).
    pub neftune_alpha: Option<f64>,
    /// Largest norm of all gradients together; larger ones are scaled down. `None` leaves them as they are.
    pub grad_clip_norm: Option<f64>,
    /// Steps between validations; `None` validates once, at the end.
    pub eval_every: Option<usize>,
    /// Steps between checkpoints; `None` writes none. Needs `output_dir`.
    pub save_every: Option<usize>,
    /// Checkpoints kept; older ones are deleted.
    pub keep: usize,
    /// Write a checkpoint after every validation that is the best so far, keep it beside the last `keep`, and end with its
    /// parameters instead of the last. Needs `save_every` and examples to validate with.
    pub keep_best: bool,
    /// By what a validation is judged: `loss`, or a metric of the task. Less is better of a loss, an error or a perplexity,
    /// more of everything else.
    pub best_metric: String,
    /// What is less than this better than the best is not better.
    pub min_improvement: f64,
    /// Validations without a better one after which the run ends; `None` never ends it.
    pub patience: Option<usize>,
    /// Minutes of training after which the run ends, with a checkpoint from which it can go on; each process that resumes it
    /// has them anew.
    pub max_minutes: Option<f64>,
    /// Tokens after which the run ends, those before a resumed run included; the step that reaches them is the last.
    pub max_tokens: Option<usize>,
    /// Steps between progress lines where there is no dashboard.
    pub log_every: usize,
    /// Seed of the order of the data and of dropout.
    pub seed: u64,
    /// Where metric logs (`logs/`) and checkpoints (`checkpoints/`) go; `None` writes no file.
    pub output_dir: Option<PathBuf>,
    /// Go on from the latest checkpoint in `output_dir` that is whole, or from the beginning if the run had written none. On
    /// a CPU the run ends with the same bits as if it had never stopped.
    pub resume: bool,
    /// Resume although settings or data are not those of the run that wrote the checkpoint.
    pub allow_changes: bool,
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            steps: 200,
            batch_size: 8,
            grad_accumulation: 1,
            max_seq_len: 512,
            packing: false,
            learning_rate: 2e-4,
            lora_plus_ratio: None,
            warmup: Warmup::Ratio(0.05),
            decay: Decay::Cosine,
            final_lr_ratio: 0.0,
            optimizer: OptimizerChoice::default(),
            weight_decay: 0.01,
            label_smoothing: 0.0,
            z_loss: 0.0,
            neftune_alpha: None,
            grad_clip_norm: Some(1.0),
            eval_every: None,
            save_every: None,
            keep: 2,
            keep_best: false,
            best_metric: "loss".into(),
            min_improvement: 0.0,
            patience: None,
            max_minutes: None,
            max_tokens: None,
            log_every: 10,
            seed: 42,
            output_dir: None,
            resume: false,
            allow_changes: false,
        }
    }
}

impl TrainConfig {
    /// The learning rate of each step.
    pub fn schedule(&self) -> Schedule {
        Schedule::new(
            self.learning_rate,
            self.warmup.steps(self.steps),
            self.steps,
        )
        .with_decay(self.decay)
        .with_floor(self.learning_rate * self.final_lr_ratio)
    }

    /// What is added to the loss in training.
    pub(crate) fn terms(&self) -> LossTerms {
        LossTerms {
            label_smoothing: self.label_smoothing,
            z_loss: self.z_loss,
        }
    }

    /// Steps between validations.
    pub(crate) fn interval(&self) -> usize {
        self.eval_every.unwrap_or(self.steps).min(self.steps)
    }

    /// The step after which an interval, counted from 1, is over.
    pub(crate) fn end_of(&self, interval: usize) -> usize {
        (interval * self.interval()).min(self.steps)
    }

    /// Validations of the whole run: one after every interval, of which the last may be shorter.
    pub(crate) fn intervals(&self) -> usize {
        self.steps.div_ceil(self.interval())
    }

    /// Checks every field, and those that belong together.
    ///
    /// # Errors
    /// [`TrainError::Config`] with all faults.
    pub fn validate(&self) -> Result<(), TrainError> {
        let mut faults = Vec::new();
        let mut check = |holds: bool, fault: &str| {
            if !holds {
                faults.push(fault.to_string());
            }
        };
        check(self.steps > 0, "steps is 0");
        check(self.batch_size > 0, "batch_size is 0");
        check(self.grad_accumulation > 0, "grad_accumulation is 0");
        check(
            self.max_seq_len >= 2,
            "max_seq_len is below 2, so that no token could be learned",
        );
        check(
            self.lora_plus_ratio
                .is_none_or(|ratio| ratio.is_finite() && ratio > 0.0),
            "lora_plus_ratio must be above 0",
        );
        check(self.log_every > 0, "log_every is 0");
        check(
            self.keep > 0,
            "keep is 0; set save_every to none to write no checkpoints",
        );
        check(
            self.eval_every != Some(0),
            "eval_every is 0; leave it out to validate at the end only",
        );
        check(
            positive(self.learning_rate) && self.learning_rate <= 1.0,
            "learning_rate must be above 0 and at most 1",
        );
        check(
            (0.0..=1.0).contains(&self.final_lr_ratio),
            "final_lr_ratio must lie in [0, 1]",
        );
        check(
            self.weight_decay.is_finite() && self.weight_decay >= 0.0,
            "weight_decay must be 0 or above",
        );
        check(
            self.grad_clip_norm.is_none_or(positive),
            "grad_clip_norm must be above 0; leave it out to clip nothing",
        );
        if let Some(fault) = self.decay.fault() {
            check(false, fault);
        }
        match self.warmup {
            Warmup::Steps(steps) => check(
                steps <= self.steps,
                "warmup takes more steps than the run has",
            ),
            Warmup::Ratio(ratio) => check(
                (0.0..1.0).contains(&ratio),
                "warmup as a share must lie in [0, 1)",
            ),
        }
        if let Some(save_every) = self.save_every {
            check(self.output_dir.is_some(), "save_every needs an output_dir");
            check(
                save_every > 0,
                "save_every is 0; leave it out to write no checkpoints",
            );
        }
        check(
            !self.resume || (self.output_dir.is_some() && self.save_every.is_some()),
            "resume needs the output_dir and the save_every of the run that is resumed",
        );
        check(
            !self.allow_changes || self.resume,
            "allow_changes is for a run that is resumed",
        );
        check(
            !self.keep_best || self.save_every.is_some(),
            "keep_best needs save_every, since the best is a checkpoint",
        );
        check(self.patience != Some(0), "patience is 0");
        check(
            self.min_improvement.is_finite() && self.min_improvement >= 0.0,
            "min_improvement must be 0 or above",
        );
        check(
            self.max_minutes.is_none_or(positive),
            "max_minutes must be above 0; leave it out to have all the time",
        );
        check(self.max_tokens != Some(0), "max_tokens is 0");
        check(
            (0.0..1.0).contains(&self.label_smoothing),
            "label_smoothing must lie in [0, 1)",
        );
        check(
            self.z_loss.is_finite() && self.z_loss >= 0.0,
            "z_loss must be 0 or above",
        );
        check(
            self.neftune_alpha.is_none_or(positive),
            "neftune_alpha must be above 0; leave it out to add no noise",
        );
        faults.extend(self.optimizer.faults());
        match faults.is_empty() {
            true => Ok(()),
            false => Err(TrainError::Config { faults }),
        }
    }
}

fn positive(value: f64) -> bool {
    value.is_finite() && value > 0.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::optimizer::AdamWOptions;

    #[test]
    fn the_defaults_are_valid() {
        TrainConfig::default().validate().expect("valid");
    }

    #[test]
    fn all_faults_are_listed_at_once() {
        let config = TrainConfig {
            steps: 0,
            learning_rate: f64::NAN,
            optimizer: OptimizerChoice::AdamW(AdamWOptions {
                beta_2: 1.0,
                ..AdamWOptions::default()
            }),
            save_every: Some(3),
            ..TrainConfig::default()
        };
        let Err(TrainError::Config { faults }) = config.validate() else {
            panic!("the configuration is wrong");
        };
        for part in ["steps is 0", "learning_rate", "beta_2", "output_dir"] {
            assert!(
                faults.iter().any(|fault| fault.contains(part)),
                "{part} in {faults:?}"
            );
        }
    }

    #[test]
    fn json_names_fields_and_refuses_unknown_ones() {
        let config: TrainConfig =
            serde_json::from_str(r#"{"steps": 7, "warmup": 0.1, "decay": "linear"}"#)
                .expect("valid");
        assert_eq!(
            (config.steps, config.warmup, config.decay),
            (7, Warmup::Ratio(0.1), Decay::Linear)
        );
        assert!(serde_json::from_str::<TrainConfig>(r#"{"step": 7}"#).is_err());
    }

    #[test]
    fn the_last_interval_may_be_shorter() {
        let config = TrainConfig {
            steps: 25,
            eval_every: Some(10),
            ..TrainConfig::default()
        };
        assert_eq!((config.interval(), config.intervals()), (10, 3));
        let config = TrainConfig {
            steps: 25,
            eval_every: None,
            ..TrainConfig::default()
        };
        assert_eq!((config.interval(), config.intervals()), (25, 1));
    }
}

use std::f64::consts::PI;

use burn::lr_scheduler::{LrScheduler, LrSchedulerRecord};
use serde::{Deserialize, Serialize};

/// How the learning rate falls after the warmup.
///
/// In a configuration, `cosine`, or with its number, `polynomial: {power: 2}`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Decay {
    /// Half a cosine.
    #[default]
    Cosine,
    /// A straight line.
    Linear,
    /// Not at all.
    Constant,
    /// Half a cosine, again and again from the top (SGDR, arXiv:1608.03983).
    CosineWithRestarts {
        /// How many times.
        cycles: usize,
    },
    /// Not at all, then along a straight line (warmup, stable, decay: MiniCPM, arXiv:2404.06395).
    Wsd {
        /// The share of the steps after the warmup that falls, in `(0, 1]`.
        decay_share: f64,
    },
    /// As `(1 - done)^power`.
    Polynomial {
        /// 1 is a straight line.
        power: f64,
    },
}

impl Decay {
    /// What is left of the learning rate, from 1 to 0, when this share of the steps is done.
    fn left(self, done: f64) -> f64 {
        match self {
            Self::Cosine => (1.0 + (PI * done).cos()) / 2.0,
            Self::Linear => 1.0 - done,
            Self::Constant => 1.0,
            Self::CosineWithRestarts { .. } if done >= 1.0 => 0.0,
            Self::CosineWithRestarts { cycles } => {
                (1.0 + (PI * (cycles as f64 * done).fract()).cos()) / 2.0
            }
            Self::Wsd { decay_share } => ((1.0 - done) / decay_share).min(1.0),
            Self::Polynomial { power } => (1.0 - done).powf(power),
        }
    }

    /// What is wrong with its number.
    pub(crate) fn fault(self) -> Option<&'static str> {
        match self {
            Self::CosineWithRestarts { cycles: 0 } => {
                Some("decay.cosine_with_restarts.cycles is 0")
            }
            Self::Wsd { decay_share } if !(decay_share > 0.0 && decay_share <= 1.0) => {
                Some("decay.wsd.decay_share must be above 0 and at most 1")
            }
            Self::Polynomial { power } if !(power.is_finite() && power > 0.0) => {
                Some("decay.polynomial.power must be above 0")
            }
            _ => None,
        }
    }
}

/// The learning rate of each step: a linear rise, then a fall to a floor, where it stays.
///
/// At step `t`, counted from 0, of `n` steps with `w` of warmup, between the peak `p` and the floor `f`:
/// `p (t + 1) / w` for `t < w`, then `f + (p - f) (1 + cos(pi (t - w) / (n - w))) / 2`. Burn's cosine scheduler would
/// rise again after its length, and its linear one cannot start at 0; this one does neither.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    peak: f64,
    floor: f64,
    warmup: usize,
    total: usize,
    decay: Decay,
    step: usize,
}

impl Schedule {
    /// Rises to `peak` in `warmup` steps and falls to 0 along a cosine until step `total`.
    pub fn new(peak: f64, warmup: usize, total: usize) -> Self {
        Self {
            peak,
            floor: 0.0,
            warmup,
            total,
            decay: Decay::Cosine,
            step: 0,
        }
    }

    /// Sets how the learning rate falls.
    pub fn with_decay(mut self, decay: Decay) -> Self {
        self.decay = decay;
        self
    }

    /// Sets where the fall ends.
    pub fn with_floor(mut self, floor: f64) -> Self {
        self.floor = floor;
        self
    }

    /// Goes on after steps of an earlier run.
    pub(crate) fn after(self, step: usize) -> Self {
        Self { step, ..self }
    }

    /// The learning rate of a step, counted from 0.
    pub fn at(&self, step: usize) -> f64 {
        if step < self.warmup {
            return self.peak * (step + 1) as f64 / self.warmup as f64;
        }
        let length = self.total.saturating_sub(self.warmup).max(1);
        let done = ((step - self.warmup) as f64 / length as f64).min(1.0);
        let left = self.decay.left(done);
        self.floor + (self.peak - self.floor) * left
    }
}

const STEP: &str = "step";

impl LrScheduler for Schedule {
    fn step(&mut self) -> f64 {
        let rate = self.at(self.step);
        self.step += 1;
        rate
    }

    fn to_record(&self) -> LrSchedulerRecord {
        LrSchedulerRecord::new().with_scalar(STEP, self.step)
    }

    fn load_record(&mut self, record: LrSchedulerRecord) {
        if let Some(step) = record.scalar(STEP) {
            self.step = step;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-12
    }

    #[test]
    fn rises_in_a_line_and_falls_along_a_cosine() {
        let schedule = Schedule::new(1.0, 4, 12);
        let expected = [
            0.25,
            0.5,
            0.75,
            1.0,
            1.0,
            0.961939766255643,
            0.853553390593274,
            0.691341716182545,
            0.5,
            0.308658283817455,
            0.146446609406726,
            0.038060233744357,
            0.0,
        ];
        for (step, rate) in expected.into_iter().enumerate() {
            assert!(
                close(schedule.at(step), rate),
                "step {step}: {}",
                schedule.at(step)
            );
        }
    }

    /// The values of `tests/golden/schedules.py`: a peak of 1, 2 steps of warmup, 12 in all.
    #[test]
    fn falls_as_in_transformers() {
        let golden: std::collections::BTreeMap<String, Vec<f64>> =
            serde_json::from_str(include_str!("../../../tests/golden/schedules.json"))
                .expect("lists of numbers");
        for (name, decay) in [
            ("constant", Decay::Constant),
            ("linear", Decay::Linear),
            ("cosine", Decay::Cosine),
            (
                "cosine_with_restarts",
                Decay::CosineWithRestarts { cycles: 3 },
            ),
            ("polynomial", Decay::Polynomial { power: 2.0 }),
            ("wsd", Decay::Wsd { decay_share: 0.4 }),
        ] {
            let schedule = Schedule::new(1.0, 2, 12).with_decay(decay);
            for (step, expected) in golden[name].iter().enumerate() {
                // Theirs is 0 at the first step of a warmup, ours at the one before it.
                let ours = if step < 2 {
                    schedule.at(step) - 0.5
                } else {
                    schedule.at(step)
                };
                assert!(
                    close(ours, *expected),
                    "{name}, step {step}: {ours} and {expected}"
                );
            }
        }
    }

    #[test]
    fn a_decay_is_written_with_its_number() {
        let read = |text: &str| serde_json::from_str::<Decay>(text).expect("a decay");
        assert_eq!(read("\"cosine\""), Decay::Cosine);
        assert_eq!(
            read(r#"{"polynomial": {"power": 2}}"#),
            Decay::Polynomial { power: 2.0 }
        );
        assert!(Decay::Wsd { decay_share: 0.0 }.fault().is_some());
        assert!(Decay::CosineWithRestarts { cycles: 0 }.fault().is_some());
        assert!(Decay::Polynomial { power: f64::NAN }.fault().is_some());
    }

    #[test]
    fn never_rises_again() {
        for decay in [
            Decay::Cosine,
            Decay::Linear,
            Decay::Constant,
            Decay::Wsd { decay_share: 0.3 },
            Decay::Polynomial { power: 0.5 },
        ] {
            let schedule = Schedule::new(3e-4, 10, 100)
                .with_decay(decay)
                .with_floor(3e-5);
            for step in 10..400 {
                assert!(
                    schedule.at(step + 1) <= schedule.at(step) + 1e-18,
                    "{decay:?} at {step}"
                );
            }
        }
        assert!(close(
            Schedule::new(1.0, 0, 10).with_floor(0.1).at(1000),
            0.1
        ));
    }

    #[test]
    fn odd_lengths_do_not_divide_by_zero() {
        assert!(close(Schedule::new(0.5, 0, 1).at(0), 0.5));
        assert!(close(Schedule::new(0.5, 3, 3).at(2), 0.5));
        assert!(Schedule::new(0.5, 3, 3).at(3).is_finite());
        assert!(close(
            Schedule::new(0.8, 0, 4).with_decay(Decay::Linear).at(3),
            0.2
        ));
    }

    #[test]
    fn resumes_where_it_was() {
        let mut whole = Schedule::new(1.0, 2, 9);
        let mut first = whole.clone();
        (0..5).for_each(|_| assert_eq!(whole.step(), first.step()));
        let mut resumed = Schedule::new(1.0, 2, 9);
        resumed.load_record(first.to_record());
        (0..6).for_each(|_| assert_eq!(whole.step(), resumed.step()));
    }
}

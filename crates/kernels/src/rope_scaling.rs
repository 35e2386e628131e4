use std::f64::consts::TAU;

/// How the rotation frequencies are stretched for contexts longer than those of pretraining.
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub enum RopeScaling {
    /// As in pretraining.
    #[default]
    None,
    /// All frequencies divided by one factor (arXiv:2306.15595).
    Linear {
        /// The divisor.
        factor: f64,
    },
    /// The base grows with the sequence, once it is longer than those of pretraining ("dynamic NTK").
    Dynamic {
        /// How many times the length of pretraining is meant to be reached.
        factor: f64,
        /// The context length of pretraining.
        original_positions: usize,
    },
    /// Llama 3.1: long wavelengths divided by the factor, short ones kept, those between interpolated.
    Llama3 {
        /// The divisor of long wavelengths.
        factor: f64,
        /// A wavelength above `original_positions / low_freq_factor` is long.
        low_freq_factor: f64,
        /// A wavelength below `original_positions / high_freq_factor` is short.
        high_freq_factor: f64,
        /// The context length of pretraining.
        original_positions: usize,
    },
    /// YaRN (arXiv:2309.00071): as Llama 3.1, but between bounds on the index of the frequency, and with a factor on what
    /// is rotated.
    Yarn {
        /// The divisor of slow frequencies.
        factor: f64,
        /// A frequency that turns more often than this in the context of pretraining is kept.
        beta_fast: f64,
        /// A frequency that turns less often than this is divided.
        beta_slow: f64,
        /// The context length of pretraining.
        original_positions: usize,
        /// What rotated queries and keys are multiplied by.
        attention_factor: f64,
        /// Whether the bounds are rounded to whole indices, outwards.
        truncate: bool,
    },
    /// LongRoPE (arXiv:2402.13753): a divisor for each frequency, one list for sequences up to the length of pretraining
    /// and one for longer ones.
    LongRope {
        /// The divisors of short sequences.
        short: Vec<f64>,
        /// The divisors of long sequences.
        long: Vec<f64>,
        /// The context length of pretraining.
        original_positions: usize,
        /// What rotated queries and keys are multiplied by.
        attention_factor: f64,
    },
}

impl RopeScaling {
    /// Whether the frequencies are other ones in longer sequences.
    pub fn depends_on_length(&self) -> bool {
        matches!(
            self,
            RopeScaling::Dynamic { .. } | RopeScaling::LongRope { .. }
        )
    }

    /// What rotated queries and keys are multiplied by.
    pub(crate) fn amplitude(&self) -> f32 {
        match self {
            RopeScaling::Yarn {
                attention_factor, ..
            }
            | RopeScaling::LongRope {
                attention_factor, ..
            } => *attention_factor as f32,
            _ => 1.0,
        }
    }

    /// The frequencies for `d` rotated coordinates in sequences of this length: one for each pair.
    pub(crate) fn frequencies(&self, d: usize, theta: f64, length: usize) -> Vec<f32> {
        let theta = match *self {
            RopeScaling::Dynamic {
                factor,
                original_positions,
            } => {
                let times = (length as f64 / original_positions as f64).max(1.0);
                let growth = factor * times - (factor - 1.0);
                theta * growth.powf(d as f64 / (d as f64 - 2.0))
            }
            _ => theta,
        };
        (0..d / 2)
            .map(|i| {
                let plain = theta.powf(-2.0 * i as f64 / d as f64);
                self.scaled(plain, i, (d, theta), length) as f32
            })
            .collect()
    }

    fn scaled(&self, plain: f64, i: usize, (d, theta): (usize, f64), length: usize) -> f64 {
        match *self {
            RopeScaling::None | RopeScaling::Dynamic { .. } => plain,
            RopeScaling::Linear { factor } => plain / factor,
            RopeScaling::Llama3 {
                factor,
                low_freq_factor,
                high_freq_factor,
                original_positions,
            } => {
                let turns = original_positions as f64 * plain / TAU;
                let kept = (turns - low_freq_factor) / (high_freq_factor - low_freq_factor);
                blend(plain, factor, kept)
            }
            RopeScaling::Yarn {
                factor,
                beta_fast,
                beta_slow,
                original_positions,
                truncate,
                ..
            } => {
                // The index at which a frequency turns this often in the context of pretraining.
                let index = |turns: f64| {
                    let wavelength = original_positions as f64 / (turns * TAU);
                    d as f64 * wavelength.ln() / (2.0 * theta.ln())
                };
                let (low, high) = (index(beta_fast), index(beta_slow));
                let (low, high) = match truncate {
                    true => (low.floor(), high.ceil()),
                    false => (low, high),
                };
                let (low, high) = (low.max(0.0), high.min(d as f64 - 1.0));
                // Equal bounds are a step.
                let width = if low == high { 1e-3 } else { high - low };
                blend(plain, factor, 1.0 - (i as f64 - low) / width)
            }
            RopeScaling::LongRope {
                ref short,
                ref long,
                original_positions,
                ..
            } => {
                let divisors = if length > original_positions {
                    long
                } else {
                    short
                };
                plain / divisors.get(i).copied().unwrap_or(1.0)
            }
        }
    }
}

/// A frequency of which some part is kept and the rest divided by the factor.
fn blend(frequency: f64, factor: f64, kept: f64) -> f64 {
    let kept = kept.clamp(0.0, 1.0);
    kept * frequency + (1.0 - kept) * frequency / factor
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(scaling: &RopeScaling, plain: f64) -> f64 {
        scaling.scaled(plain, 0, (8, 1e4), 1)
    }

    #[test]
    fn llama3_keeps_short_and_divides_long_wavelengths() {
        let scaling = RopeScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_positions: 8192,
        };
        assert_eq!(one(&scaling, 1.0), 1.0);
        assert_eq!(one(&scaling, 1e-5), 1e-5 / 8.0);
        // A wavelength of 8192 / 2 turns twice in the original context: a third of the way from long to short.
        let middle = TAU * 2.0 / 8192.0;
        let expected = middle / 3.0 + middle * 2.0 / 3.0 / 8.0;
        assert!((one(&scaling, middle) - expected).abs() < 1e-12);
    }

    #[test]
    fn linear_divides_every_frequency() {
        let plain = RopeScaling::None.frequencies(8, 1e4, 1);
        let scaled = RopeScaling::Linear { factor: 4.0 }.frequencies(8, 1e4, 1);
        for (a, b) in plain.iter().zip(&scaled) {
            assert!((a / 4.0 - b).abs() < 1e-7);
        }
    }

    #[test]
    fn dynamic_is_plain_up_to_the_length_of_pretraining() {
        let scaling = RopeScaling::Dynamic {
            factor: 2.0,
            original_positions: 16,
        };
        let plain = RopeScaling::None.frequencies(8, 1e4, 16);
        assert_eq!(scaling.frequencies(8, 1e4, 16), plain);
        let longer = scaling.frequencies(8, 1e4, 32);
        assert_eq!(longer[0], 1.0);
        // The base is 3^(8 / 6) times as large.
        let expected = (1e4 * 3f64.powf(8.0 / 6.0)).powf(-0.75) as f32;
        assert!((longer[3] - expected).abs() < 1e-9);
    }

    #[test]
    fn longrope_changes_its_divisors_with_the_length() {
        let scaling = RopeScaling::LongRope {
            short: vec![1.0, 2.0],
            long: vec![3.0, 4.0],
            original_positions: 16,
            attention_factor: 1.25,
        };
        let plain = RopeScaling::None.frequencies(4, 1e4, 1);
        assert_eq!(scaling.frequencies(4, 1e4, 16)[1], plain[1] / 2.0);
        assert_eq!(scaling.frequencies(4, 1e4, 17)[0], 1.0 / 3.0);
        assert_eq!(scaling.amplitude(), 1.25);
    }
}

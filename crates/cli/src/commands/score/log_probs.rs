//! Log-probabilities of tokens, computed here so that no device's rounding adds to the model's.

/// The logarithm of the softmax of `logits` at `token`.
pub fn log_prob(logits: &[f32], token: usize) -> f32 {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|x| f64::from((x - max).exp())).sum();
    (f64::from(logits[token] - max) - sum.ln()) as f32
}

/// Sums over tokens.
#[derive(Debug, Default, Clone, Copy)]
pub struct Totals {
    /// All tokens.
    pub tokens: usize,
    /// Those that are predicted.
    pub predicted: usize,
    /// Log-probabilities, or numbers of another kind of result, that are not finite.
    pub not_finite: usize,
    nll: f64,
}

impl Totals {
    /// Counts tokens, and what else was computed of them.
    pub fn add_tokens(&mut self, tokens: usize, numbers: &[f32]) {
        self.tokens += tokens;
        self.not_finite += numbers.iter().filter(|number| !number.is_finite()).count();
    }

    /// Counts the log-probabilities of tokens that are predicted.
    pub fn add_predicted(&mut self, log_probs: &[f32]) {
        self.predicted += log_probs.len();
        self.not_finite += log_probs
            .iter()
            .filter(|number| !number.is_finite())
            .count();
        self.nll -= log_probs
            .iter()
            .map(|number| f64::from(*number))
            .sum::<f64>();
    }

    /// The mean negative log-likelihood; NaN where nothing is predicted.
    pub fn mean_nll(&self) -> f64 {
        self.nll / self.predicted as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_sum_to_one_however_large_the_logits() {
        for shift in [0.0, 1e4, -1e4] {
            let logits: Vec<f32> = [0.5, -1.0, 3.0].iter().map(|x| x + shift).collect();
            let sum: f32 = (0..3).map(|token| log_prob(&logits, token).exp()).sum();
            assert!((sum - 1.0).abs() < 1e-3, "{sum}");
        }
        assert!((log_prob(&[0.0; 4], 1) - 0.25f32.ln()).abs() < 1e-7);
        assert!(log_prob(&[f32::NAN, 0.0], 1).is_nan());
    }

    #[test]
    fn the_mean_is_of_predicted_tokens() {
        let mut totals = Totals::default();
        totals.add_tokens(3, &[]);
        totals.add_predicted(&[-1.0, -3.0]);
        totals.add_tokens(1, &[f32::NAN, 1.0]);
        assert_eq!(
            (totals.tokens, totals.predicted, totals.not_finite),
            (4, 2, 1)
        );
        assert_eq!(totals.mean_nll(), 2.0);
    }
}

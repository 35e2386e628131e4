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
    /// Those with one before them.
    pub predicted: usize,
    /// Those whose log-probability is not finite.
    pub not_finite: usize,
    nll: f64,
}

impl Totals {
    /// Counts a row by the log-probabilities of its tokens, of which the first has none.
    pub fn add(&mut self, log_probs: &[f32]) {
        self.tokens += log_probs.len();
        for log_prob in log_probs.iter().skip(1) {
            self.predicted += 1;
            self.not_finite += usize::from(!log_prob.is_finite());
            self.nll -= f64::from(*log_prob);
        }
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
    fn the_first_token_is_not_predicted() {
        let mut totals = Totals::default();
        totals.add(&[0.0, -1.0, -3.0]);
        totals.add(&[0.0]);
        assert_eq!((totals.tokens, totals.predicted), (4, 2));
        assert_eq!(totals.mean_nll(), 2.0);
    }
}

//! Random choice of the next token, on the host.

use rand::Rng;
use rand_chacha::ChaCha8Rng;

/// Which tokens a random choice is among, and how likely each is.
///
/// Temperature, `top_k`, `top_p` and `min_p` are applied in this order, each to what the one before has left.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// Divides the logits: below 1 the likely tokens gain, above 1 the others.
    pub temperature: f64,
    /// Only this many of the most likely tokens, and those that are as likely as the last of them.
    pub top_k: Option<usize>,
    /// Only the most likely tokens that together reach this probability (arXiv:1904.09751). Among tokens of the same
    /// probability, those of smaller ids come first.
    pub top_p: Option<f64>,
    /// Only tokens at least this many times as likely as the most likely one (arXiv:2407.01082).
    pub min_p: Option<f64>,
}

impl Default for Sampling {
    /// From the model's own distribution.
    fn default() -> Self {
        Self {
            temperature: 1.0,
            top_k: None,
            top_p: None,
            min_p: None,
        }
    }
}

impl Sampling {
    /// The distribution that these scores lead to, or `None` if all tokens are banned.
    pub(crate) fn distribution(&self, scores: &[f32]) -> Option<Distribution> {
        let allowed = |(_, score): &(u32, f32)| *score > f32::NEG_INFINITY;
        let mut likely: Vec<(u32, f32)> =
            (0..).zip(scores.iter().copied()).filter(allowed).collect();
        let top = likely.iter().map(|(_, score)| *score).reduce(f32::max)?;
        if let Some(k) = self.top_k {
            keep_top_k(&mut likely, k);
        }
        let weight = |score: f32| (f64::from(score - top) / self.temperature).exp();
        let weights = likely
            .into_iter()
            .map(|(token, score)| (token, weight(score)));
        let mut weights: Vec<(u32, f64)> = weights.collect();
        if let Some(p) = self.top_p.filter(|p| *p < 1.0) {
            keep_top_p(&mut weights, p);
        }
        if let Some(p) = self.min_p {
            // The most likely token has weight 1.
            weights.retain(|(_, weight)| *weight >= p);
        }
        Some(Distribution { weights })
    }
}

fn keep_top_k(likely: &mut Vec<(u32, f32)>, k: usize) {
    if k >= likely.len() {
        return;
    }
    let mut scores: Vec<f32> = likely.iter().map(|(_, score)| *score).collect();
    let (_, last, _) = scores.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a));
    likely.retain(|(_, score)| score >= last);
}

fn keep_top_p(weights: &mut Vec<(u32, f64)>, p: f64) {
    let total: f64 = weights.iter().map(|(_, weight)| weight).sum();
    // Tokens below this are outside even all together: a large vocabulary need not be sorted.
    let tail = (1.0 - p) * total / weights.len() as f64;
    let mut sorted: Vec<(u32, f64)> = weights.clone();
    sorted.retain(|(_, weight)| *weight >= tail);
    // Stable, so that equals stay in the order of their ids.
    sorted.sort_by(|a, b| b.1.total_cmp(&a.1));
    let mut above = 0.0;
    let inside = sorted.iter().take_while(|(_, weight)| {
        let is_inside = above < p * total;
        above += weight;
        is_inside
    });
    if let Some((last, least)) = inside.last().copied() {
        weights.retain(|(token, weight)| *weight > least || (*weight == least && *token <= last));
    }
}

/// Tokens with their weights, in the order of their ids.
///
/// The order makes a draw robust: where two backends round differently, a boundary between two tokens moves by that
/// much, while in the order of probability whole tokens could change places.
#[derive(Debug)]
pub(crate) struct Distribution {
    weights: Vec<(u32, f64)>,
}

impl Distribution {
    fn total(&self) -> f64 {
        self.weights.iter().map(|(_, weight)| weight).sum()
    }

    /// The probability of every token of the vocabulary.
    pub(crate) fn probabilities(&self, vocab_size: usize) -> Vec<f32> {
        let total = self.total();
        let mut probabilities = vec![0.0; vocab_size];
        for (token, weight) in &self.weights {
            probabilities[*token as usize] = (weight / total) as f32;
        }
        probabilities
    }

    /// A token by its probability.
    pub(crate) fn draw(&self, rng: &mut ChaCha8Rng) -> u32 {
        let mut left = rng.random::<f64>() * self.total();
        let mut last = 0;
        for (token, weight) in self.weights.iter().filter(|(_, weight)| *weight > 0.0) {
            left -= weight;
            last = *token;
            if left < 0.0 {
                break;
            }
        }
        // Rounding may leave a trace of the total after the last.
        last
    }
}

/// The most likely token, or `None` if all tokens are banned.
pub(crate) fn argmax(scores: &[f32]) -> Option<u32> {
    let (mut token, mut top) = (None, f32::NEG_INFINITY);
    for (index, score) in scores.iter().enumerate() {
        if *score > top {
            (token, top) = (Some(index as u32), *score);
        }
    }
    token
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand::SeedableRng;

    fn counts(sampling: Sampling, scores: &[f32], draws: usize) -> Vec<usize> {
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        let distribution = sampling.distribution(scores).expect("a token");
        let mut counts = vec![0; scores.len()];
        for _ in 0..draws {
            counts[distribution.draw(&mut rng) as usize] += 1;
        }
        counts
    }

    /// The tokens that have a probability.
    fn kept(sampling: Sampling, scores: &[f32]) -> Vec<usize> {
        let distribution = sampling.distribution(scores).expect("a token");
        let probabilities = distribution.probabilities(scores.len());
        let kept = probabilities.iter().enumerate().filter(|(_, p)| **p > 0.0);
        kept.map(|(token, _)| token).collect()
    }

    fn logs(probabilities: &[f32]) -> Vec<f32> {
        probabilities.iter().map(|p| p.ln()).collect()
    }

    #[test]
    fn greedy_takes_the_first_of_the_largest() {
        assert_eq!(argmax(&[1.0, 3.0, 3.0]), Some(1));
        assert_eq!(argmax(&[f32::NEG_INFINITY; 2]), None);
    }

    #[test]
    fn random_follows_the_probabilities() {
        let counts = counts(Sampling::default(), &logs(&[0.1, 0.3, 0.6]), 10_000);
        for (count, expected) in counts.iter().zip([1000.0, 3000.0, 6000.0]) {
            assert!((*count as f32 - expected).abs() < 200.0, "{counts:?}");
        }
    }

    #[test]
    fn temperature_sharpens() {
        let sampling = Sampling {
            temperature: 0.5,
            ..Sampling::default()
        };
        // Squared probabilities: 1 to 9.
        let counts = counts(sampling, &logs(&[0.25, 0.75]), 10_000);
        assert!((counts[0] as f32 - 1000.0).abs() < 150.0, "{counts:?}");
    }

    #[test]
    fn the_smallest_temperature_is_greedy() {
        let sampling = Sampling {
            temperature: f64::MIN_POSITIVE,
            ..Sampling::default()
        };
        assert_eq!(counts(sampling, &[1.0, 9.0, 8.9], 100), [0, 100, 0]);
    }

    #[test]
    fn each_option_cuts_the_tail() {
        let scores = logs(&[0.1, 0.3, 0.6]);
        let (none, all) = (Sampling::default(), vec![0, 1, 2]);
        let top_k = |k| Sampling {
            top_k: Some(k),
            ..none
        };
        let top_p = |p| Sampling {
            top_p: Some(p),
            ..none
        };
        let min_p = |p| Sampling {
            min_p: Some(p),
            ..none
        };
        assert_eq!(kept(none, &scores), all);
        assert_eq!(kept(top_k(2), &scores), [1, 2]);
        assert_eq!(kept(top_k(99), &scores), all);
        assert_eq!(kept(top_p(0.5), &scores), [2]);
        assert_eq!(kept(top_p(0.7), &scores), [1, 2]);
        assert_eq!(kept(top_p(0.95), &scores), all);
        assert_eq!(kept(top_p(1e-300), &scores), [2]);
        assert_eq!(kept(min_p(0.4), &scores), [1, 2]);
        assert_eq!(kept(min_p(1.0), &scores), [2]);
        assert_eq!(kept(min_p(0.0), &scores), all);
    }

    #[test]
    fn equals_stay_together_in_top_k_and_in_order_in_top_p() {
        let scores = [1.0, 2.0, 1.0, 1.0];
        let none = Sampling::default();
        let top_k = Sampling {
            top_k: Some(2),
            ..none
        };
        assert_eq!(kept(top_k, &scores), [0, 1, 2, 3]);
        // Weights 0.18, 0.48, 0.18, 0.18.
        let top_p = Sampling {
            top_p: Some(0.6),
            ..none
        };
        assert_eq!(kept(top_p, &scores), [0, 1]);
    }

    #[test]
    fn banned_tokens_are_never_drawn() {
        let scores = [f32::NEG_INFINITY, 0.0, f32::NEG_INFINITY];
        assert_eq!(kept(Sampling::default(), &scores), [1]);
        assert!(
            Sampling::default()
                .distribution(&[f32::NEG_INFINITY])
                .is_none()
        );
    }

    fn sampling() -> impl Strategy<Value = Sampling> {
        let temperature = 0.05..5.0;
        let top_k = prop::option::of(1_usize..50);
        let top_p = prop::option::of(0.001..=1.0);
        let min_p = prop::option::of(0.0..=1.0);
        (temperature, top_k, top_p, min_p).prop_map(|(temperature, top_k, top_p, min_p)| Sampling {
            temperature,
            top_k,
            top_p,
            min_p,
        })
    }

    /// Scores with ties and bans among them, one token at least allowed.
    fn scores() -> impl Strategy<Value = Vec<f32>> {
        let score = prop_oneof![
            4 => -20.0_f32..20.0,
            1 => (-3_i8..3).prop_map(f32::from),
            1 => Just(f32::NEG_INFINITY),
        ];
        prop::collection::vec(score, 1..60).prop_filter("a token is allowed", |scores| {
            scores.iter().any(|score| score.is_finite())
        })
    }

    proptest! {
        #[test]
        fn what_is_kept_are_the_most_likely(sampling in sampling(), scores in scores()) {
            let distribution = sampling.distribution(&scores).expect("a token");
            let probabilities = distribution.probabilities(scores.len());
            let total: f32 = probabilities.iter().sum();
            prop_assert!((total - 1.0).abs() < 1e-5);
            let in_set: Vec<bool> = (0..scores.len() as u32)
                .map(|token| distribution.weights.iter().any(|(kept, _)| *kept == token))
                .collect();
            let least = (0..scores.len()).filter(|at| in_set[*at]).map(|at| scores[at]);
            let least = least.reduce(f32::min).expect("a token");
            for (score, inside) in scores.iter().zip(in_set) {
                prop_assert!(inside || *score <= least);
            }
        }

        #[test]
        fn top_k_keeps_k_and_the_ties_of_the_last(k in 1_usize..50, scores in scores()) {
            let sampling = Sampling { top_k: Some(k), ..Sampling::default() };
            let distribution = sampling.distribution(&scores).expect("a token");
            let kept = distribution.weights.len();
            let allowed = scores.iter().filter(|score| score.is_finite()).count();
            prop_assert!(kept >= k.min(allowed));
            let mut sorted = scores.clone();
            sorted.sort_by(|a, b| b.total_cmp(a));
            let above = sorted.iter().filter(|score| **score > sorted[kept - 1]).count();
            prop_assert!(above < k);
        }

        #[test]
        fn top_p_is_the_smallest_set_that_reaches_p(p in 0.001..1.0, scores in scores()) {
            let all = Sampling::default().distribution(&scores).expect("a token");
            let sampling = Sampling { top_p: Some(p), ..Sampling::default() };
            let kept = sampling.distribution(&scores).expect("a token");
            let share = kept.total() / all.total();
            prop_assert!(share >= p - 1e-9);
            let least = kept.weights.iter().map(|(_, weight)| *weight).reduce(f64::min);
            let without = share - least.expect("a token") / all.total();
            prop_assert!(without <= p + 1e-9);
        }

        #[test]
        fn min_p_is_a_share_of_the_most_likely(p in 0.0..=1.0, scores in scores()) {
            let sampling = Sampling { min_p: Some(p), ..Sampling::default() };
            let kept = sampling.distribution(&scores).expect("a token");
            let all = Sampling::default().distribution(&scores).expect("a token");
            let expected = all.weights.iter().filter(|(_, weight)| *weight >= p);
            prop_assert_eq!(&kept.weights, &expected.copied().collect::<Vec<_>>());
        }

        #[test]
        fn a_draw_is_of_what_is_kept(sampling in sampling(), scores in scores(), seed: u64) {
            let distribution = sampling.distribution(&scores).expect("a token");
            let token = distribution.draw(&mut ChaCha8Rng::seed_from_u64(seed));
            prop_assert!(distribution.probabilities(scores.len())[token as usize] > 0.0);
        }
    }
}

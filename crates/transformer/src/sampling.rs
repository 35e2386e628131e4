//! The choice of the next token, on the host and in f32.

use rand::Rng;
use rand_chacha::ChaCha8Rng;

/// How the next token is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Sampling {
    /// The most likely token; among equals, the one with the smallest id.
    #[default]
    Greedy,
    /// A random token, by its probability.
    Random {
        /// Divides the logits: below 1 the likely tokens gain, above 1 the others.
        temperature: f32,
        /// Only this many of the most likely tokens.
        top_k: Option<usize>,
        /// Only the most likely tokens that together have at least this probability (arXiv:1904.09751).
        top_p: Option<f32>,
    },
}

impl Sampling {
    /// Everything that is out of its range.
    pub(crate) fn problems(&self) -> Vec<String> {
        let Sampling::Random {
            temperature,
            top_k,
            top_p,
        } = *self
        else {
            return Vec::new();
        };
        let mut problems = Vec::new();
        if !(temperature > 0.0 && temperature.is_finite()) {
            problems.push(format!("temperature {temperature} is not positive"));
        }
        if top_k == Some(0) {
            problems.push("top_k 0 leaves no token".into());
        }
        if let Some(p) = top_p.filter(|p| !(*p > 0.0 && *p <= 1.0)) {
            problems.push(format!("top_p {p} is not above 0 and at most 1"));
        }
        problems
    }

    /// The next token.
    pub(crate) fn choose(&self, logits: &[f32], rng: &mut ChaCha8Rng) -> u32 {
        match *self {
            Sampling::Greedy => argmax(logits),
            Sampling::Random {
                temperature,
                top_k,
                top_p,
            } => {
                let mut likely: Vec<(u32, f32)> = (0..).zip(logits.iter().copied()).collect();
                // A stable order among equal logits keeps the choice reproducible.
                likely.sort_by(|a, b| b.1.total_cmp(&a.1));
                likely.truncate(top_k.unwrap_or(usize::MAX));
                let top = likely[0].1;
                for (_, value) in &mut likely {
                    *value = ((*value - top) / temperature).exp();
                }
                likely.truncate(nucleus(&likely, top_p.unwrap_or(1.0)));
                draw(&likely, rng)
            }
        }
    }
}

fn argmax(logits: &[f32]) -> u32 {
    let better = |best: usize, at: usize| if logits[at] > logits[best] { at } else { best };
    (0..logits.len()).reduce(better).unwrap_or(0) as u32
}

/// How many of the sorted weights together reach the share `p` of all.
fn nucleus(sorted: &[(u32, f32)], p: f32) -> usize {
    if p >= 1.0 {
        return sorted.len();
    }
    let target = p * sorted.iter().map(|(_, weight)| weight).sum::<f32>();
    let mut sum = 0.0;
    let reached = sorted.iter().position(|(_, weight)| {
        sum += weight;
        sum >= target
    });
    reached.map_or(sorted.len(), |last| last + 1)
}

/// A token by its weight.
fn draw(weights: &[(u32, f32)], rng: &mut ChaCha8Rng) -> u32 {
    let total: f32 = weights.iter().map(|(_, weight)| weight).sum();
    let mut left = rng.random::<f32>() * total;
    for (token, weight) in weights {
        left -= weight;
        if left < 0.0 {
            return *token;
        }
    }
    // Rounding may leave a trace of the total.
    weights[0].0
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    fn counts(sampling: Sampling, logits: &[f32], draws: usize) -> Vec<usize> {
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        let mut counts = vec![0; logits.len()];
        for _ in 0..draws {
            counts[sampling.choose(logits, &mut rng) as usize] += 1;
        }
        counts
    }

    fn random(temperature: f32, top_k: Option<usize>, top_p: Option<f32>) -> Sampling {
        Sampling::Random {
            temperature,
            top_k,
            top_p,
        }
    }

    #[test]
    fn greedy_takes_the_first_of_the_largest() {
        assert_eq!(counts(Sampling::Greedy, &[1.0, 3.0, 3.0], 5), [0, 5, 0]);
    }

    #[test]
    fn random_follows_the_probabilities() {
        // Probabilities 0.1, 0.3, 0.6.
        let logits = [0.1f32.ln(), 0.3f32.ln(), 0.6f32.ln()];
        let counts = counts(random(1.0, None, None), &logits, 10_000);
        for (count, expected) in counts.iter().zip([1000.0, 3000.0, 6000.0]) {
            assert!((*count as f32 - expected).abs() < 200.0, "{counts:?}");
        }
    }

    #[test]
    fn temperature_sharpens() {
        let logits = [0.25f32.ln(), 0.75f32.ln()];
        // Squared probabilities: 1 to 9.
        let counts = counts(random(0.5, None, None), &logits, 10_000);
        assert!((counts[0] as f32 - 1000.0).abs() < 150.0, "{counts:?}");
    }

    #[test]
    fn top_k_and_top_p_cut_the_tail() {
        let logits = [0.1f32.ln(), 0.3f32.ln(), 0.6f32.ln()];
        assert_eq!(counts(random(1.0, Some(2), None), &logits, 1000)[0], 0);
        assert_eq!(counts(random(1.0, None, Some(0.9)), &logits, 1000)[0], 0);
        let one = counts(random(1.0, None, Some(0.5)), &logits, 1000);
        assert_eq!(one, [0, 0, 1000]);
    }

    #[test]
    fn options_out_of_range_are_all_named() {
        let problems = random(0.0, Some(0), Some(1.5)).problems();
        assert_eq!(problems.len(), 3, "{problems:?}");
        assert!(random(1.0, Some(1), Some(1.0)).problems().is_empty());
    }
}

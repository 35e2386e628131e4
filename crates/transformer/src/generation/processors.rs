//! What changes the scores of tokens before one is chosen.

use super::error::GenerateError;
use super::options::GenerateOptions;

/// Repetition penalty, then the ban of n-grams, then that of early ends: the order of `transformers`.
pub(crate) struct Processors {
    repetition_penalty: f32,
    ngram_size: Option<usize>,
    min_new_tokens: usize,
    eos: Vec<u32>,
    /// Which tokens a row has been penalized for; all false between rows.
    seen: Vec<bool>,
}

impl Processors {
    pub(crate) fn new(options: &GenerateOptions) -> Self {
        Self {
            repetition_penalty: options.repetition_penalty as f32,
            ngram_size: options.no_repeat_ngram_size,
            min_new_tokens: options.min_new_tokens,
            eos: options.eos.clone(),
            seen: Vec::new(),
        }
    }

    /// Changes the scores of the token that follows `context`, in which `tokens` were generated for prompt `row`.
    pub(crate) fn apply(
        &mut self,
        scores: &mut [f32],
        context: &[u32],
        row: usize,
        tokens: usize,
    ) -> Result<(), GenerateError> {
        if !scores.iter().all(|score| score.is_finite()) {
            return Err(GenerateError::NotFinite { row, tokens });
        }
        if self.repetition_penalty != 1.0 {
            self.penalize_repetition(scores, context);
        }
        if let Some(size) = self.ngram_size {
            ban_repeated_ngrams(scores, context, size);
        }
        if tokens < self.min_new_tokens {
            for token in &self.eos {
                ban(scores, *token);
            }
        }
        Ok(())
    }

    fn penalize_repetition(&mut self, scores: &mut [f32], context: &[u32]) {
        self.seen.resize(scores.len(), false);
        for token in context.iter().map(|token| *token as usize) {
            // Once, however often it stands there.
            let (Some(score), Some(false)) = (scores.get_mut(token), self.seen.get(token)) else {
                continue;
            };
            let penalized = match *score < 0.0 {
                true => *score * self.repetition_penalty,
                false => *score / self.repetition_penalty,
            };
            // The largest penalties would make infinities, and those NaN.
            *score = penalized.clamp(f32::MIN, f32::MAX);
            self.seen[token] = true;
        }
        for token in context {
            if let Some(seen) = self.seen.get_mut(*token as usize) {
                *seen = false;
            }
        }
    }
}

/// Bans what would complete an n-gram that stands in the context.
fn ban_repeated_ngrams(scores: &mut [f32], context: &[u32], size: usize) {
    let Some(start) = (context.len() + 1).checked_sub(size) else {
        return;
    };
    let begun = &context[start..];
    for ngram in context.windows(size) {
        if let Some((last, front)) = ngram.split_last()
            && front == begun
        {
            ban(scores, *last);
        }
    }
}

fn ban(scores: &mut [f32], token: u32) {
    if let Some(score) = scores.get_mut(token as usize) {
        *score = f32::NEG_INFINITY;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BANNED: f32 = f32::NEG_INFINITY;

    fn applied(options: GenerateOptions, context: &[u32], tokens: usize) -> Vec<f32> {
        let mut scores = vec![4.0, -2.0, 1.0, 3.0];
        let mut processors = Processors::new(&options);
        let applied = processors.apply(&mut scores, context, 0, tokens);
        applied.expect("finite scores");
        assert!(processors.seen.iter().all(|seen| !seen));
        scores
    }

    #[test]
    fn a_repeated_token_is_penalized_once() {
        let options = GenerateOptions {
            repetition_penalty: 2.0,
            ..GenerateOptions::default()
        };
        // A token outside the scores, as of a larger embedding, is passed over.
        assert_eq!(applied(options, &[0, 1, 1, 9], 1), [2.0, -4.0, 1.0, 3.0]);
    }

    #[test]
    fn no_penalty_makes_infinities() {
        for penalty in [f64::from(f32::MIN_POSITIVE), f64::from(f32::MAX)] {
            let options = GenerateOptions {
                repetition_penalty: penalty,
                ..GenerateOptions::default()
            };
            let scores = applied(options, &[0, 1, 2, 3], 1);
            assert!(scores.iter().all(|score| score.is_finite()), "{scores:?}");
        }
    }

    #[test]
    fn what_would_complete_an_ngram_again_is_banned() {
        let with = |size, context: &[u32]| {
            let options = GenerateOptions {
                no_repeat_ngram_size: Some(size),
                ..GenerateOptions::default()
            };
            applied(options, context, 0)
        };
        assert_eq!(with(1, &[3, 0]), [BANNED, -2.0, 1.0, BANNED]);
        // 2 was followed by 3, then by 0.
        assert_eq!(with(2, &[2, 3, 2, 0, 2]), [BANNED, -2.0, 1.0, BANNED]);
        assert_eq!(with(3, &[2, 3, 1, 2, 3]), [4.0, BANNED, 1.0, 3.0]);
        assert_eq!(with(3, &[2, 3]), [4.0, -2.0, 1.0, 3.0]);
        assert_eq!(with(9, &[2, 3]), [4.0, -2.0, 1.0, 3.0]);
    }

    #[test]
    fn no_end_before_the_fewest_tokens() {
        let options = GenerateOptions {
            min_new_tokens: 2,
            eos: vec![0, 2],
            ..GenerateOptions::default()
        };
        assert_eq!(
            applied(options.clone(), &[1, 1], 1),
            [BANNED, -2.0, BANNED, 3.0]
        );
        assert_eq!(applied(options, &[1, 1, 1], 2), [4.0, -2.0, 1.0, 3.0]);
    }

    #[test]
    fn scores_that_are_no_numbers_are_an_error() {
        let mut processors = Processors::new(&GenerateOptions::default());
        let error = processors.apply(&mut [1.0, f32::NAN], &[0], 3, 7);
        assert!(matches!(
            error,
            Err(GenerateError::NotFinite { row: 3, tokens: 7 })
        ));
    }
}

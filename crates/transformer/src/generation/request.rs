//! A request is checked as a whole before any work.

use super::error::{GenerateError, RequestFault};
use super::model::Generative;
use super::options::{Decoding, GenerateOptions};

/// Gathers faults, to name them all at once.
#[derive(Default)]
pub(crate) struct Faults(Vec<RequestFault>);

impl Faults {
    fn push_if(&mut self, is_wrong: bool, fault: impl FnOnce() -> RequestFault) {
        if is_wrong {
            self.0.push(fault());
        }
    }

    /// A number that must be in a range; NaN never is.
    fn require(&mut self, is_right: bool, option: &'static str, value: f64, range: &'static str) {
        self.push_if(!is_right, || RequestFault::OutOfRange {
            option,
            value,
            range,
        });
    }

    pub(crate) fn prompts<M: Generative>(
        &mut self,
        model: &M,
        prompts: &[Vec<u32>],
        options: &GenerateOptions,
    ) {
        let rows_with = |is_wrong: &dyn Fn(&[u32]) -> bool| -> Vec<usize> {
            let rows = prompts.iter().enumerate();
            rows.filter(|(_, prompt)| is_wrong(prompt))
                .map(|(row, _)| row)
                .collect()
        };
        let rows = rows_with(&<[u32]>::is_empty);
        self.push_if(!rows.is_empty(), || RequestFault::EmptyPrompts { rows });

        let vocab_size = model.vocab_size();
        let tokens = unknown(prompts.iter().flatten(), vocab_size);
        self.push_if(!tokens.is_empty(), || RequestFault::UnknownTokens {
            rows: rows_with(&|prompt| prompt.iter().any(|token| tokens.contains(token))),
            tokens: tokens.clone(),
            vocab_size,
        });

        let mut named = model.named_rows();
        named.dedup();
        for rows in named {
            let prompts = prompts.len();
            self.push_if(!prompts.is_multiple_of(rows), || RequestFault::Rows {
                rows,
                prompts,
            });
        }

        let max_new_tokens = options.max_new_tokens;
        let room = |prompt: &[u32]| model.check_room(prompt.len(), max_new_tokens).err();
        let too_long = prompts.iter().filter_map(|prompt| room(prompt));
        if let Some(longest) = too_long.max_by_key(|fault| fault.length) {
            self.0.push(RequestFault::TooLong {
                rows: rows_with(&|prompt| room(prompt).is_some()),
                max_new_tokens,
                longest,
            });
        }
    }

    pub(crate) fn options(&mut self, options: &GenerateOptions, vocab_size: usize) {
        let (min, max) = (options.min_new_tokens, options.max_new_tokens);
        self.push_if(min > max, || RequestFault::MinNewTokens { min, max });

        let tokens = unknown(options.eos.iter(), vocab_size);
        self.push_if(!tokens.is_empty(), || RequestFault::UnknownEos {
            tokens,
            vocab_size,
        });

        let penalty = options.repetition_penalty;
        // It is applied in f32.
        let is_right = penalty as f32 > 0.0 && (penalty as f32).is_finite();
        self.require(is_right, "repetition_penalty", penalty, "positive");
        let is_right = options.no_repeat_ngram_size != Some(0);
        self.require(is_right, "no_repeat_ngram_size", 0.0, "at least 1");
        self.decoding(&options.decoding);
        self.num_return_sequences(options);
    }

    fn decoding(&mut self, decoding: &Decoding) {
        match decoding {
            Decoding::Greedy => (),
            Decoding::Sample(sampling) => {
                let temperature = sampling.temperature;
                let is_right = temperature > 0.0 && temperature.is_finite();
                self.require(is_right, "temperature", temperature, "positive");
                self.require(sampling.top_k != Some(0), "top_k", 0.0, "at least 1");
                let p = sampling.top_p.unwrap_or(1.0);
                self.require(p > 0.0 && p <= 1.0, "top_p", p, "above 0 and at most 1");
                let p = sampling.min_p.unwrap_or(0.0);
                self.require((0.0..=1.0).contains(&p), "min_p", p, "between 0 and 1");
            }
            Decoding::Beam(search) => {
                self.require(search.num_beams > 0, "num_beams", 0.0, "at least 1");
                let penalty = search.length_penalty;
                self.require(penalty.is_finite(), "length_penalty", penalty, "finite");
            }
        }
    }

    fn num_return_sequences(&mut self, options: &GenerateOptions) {
        let asked = options.num_return_sequences;
        self.require(asked > 0, "num_return_sequences", 0.0, "at least 1");
        let (limit, reason) = match &options.decoding {
            Decoding::Greedy => (1, "as greedy decoding has one answer"),
            Decoding::Sample(_) => return,
            Decoding::Beam(search) => (search.num_beams, "the number of beams"),
        };
        self.push_if(asked > limit.max(1), || RequestFault::TooManySequences {
            asked,
            limit,
            reason,
        });
    }

    pub(crate) fn stop_strings(&mut self, stop: &[String]) {
        let empty = stop.iter().enumerate().filter(|(_, text)| text.is_empty());
        let indices: Vec<usize> = empty.map(|(index, _)| index).collect();
        self.push_if(!indices.is_empty(), || RequestFault::EmptyStopStrings {
            indices,
        });
    }

    pub(crate) fn streaming(&mut self, options: &GenerateOptions) {
        let is_beam = matches!(options.decoding, Decoding::Beam(_));
        self.push_if(is_beam, || RequestFault::BeamStream);
    }

    pub(crate) fn into_result(self) -> Result<(), GenerateError> {
        match self.0.is_empty() {
            true => Ok(()),
            false => Err(GenerateError::Request { faults: self.0 }),
        }
    }
}

/// The tokens outside the vocabulary, each once.
fn unknown<'a>(tokens: impl Iterator<Item = &'a u32>, vocab_size: usize) -> Vec<u32> {
    let mut found: Vec<u32> = tokens
        .copied()
        .filter(|token| *token as usize >= vocab_size)
        .collect();
    found.sort_unstable();
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::TooLong;
    use crate::generation::{BeamSearch, DecoderSession, Sampling};

    /// Ten tokens, eight positions.
    struct Tiny;

    impl Generative for Tiny {
        type Session = DecoderSession;

        fn vocab_size(&self) -> usize {
            10
        }

        fn check_room(&self, prompt_len: usize, max_new_tokens: usize) -> Result<(), TooLong> {
            let (length, limit) = (prompt_len + max_new_tokens, 8);
            match length <= limit {
                true => Ok(()),
                false => Err(TooLong { length, limit }),
            }
        }

        fn session(&self, _: &[Vec<u32>], _: usize) -> DecoderSession {
            unreachable!("a check computes nothing")
        }
    }

    fn faults(prompts: &[Vec<u32>], options: &GenerateOptions) -> Vec<RequestFault> {
        let mut faults = Faults::default();
        faults.prompts(&Tiny, prompts, options);
        faults.options(options, Tiny.vocab_size());
        faults.0
    }

    #[test]
    fn every_fault_is_named_at_once() {
        let options = GenerateOptions {
            max_new_tokens: 4,
            min_new_tokens: 5,
            eos: vec![3, 10],
            decoding: Decoding::Sample(Sampling {
                temperature: 0.0,
                top_k: Some(0),
                top_p: Some(1.5),
                min_p: Some(-0.1),
            }),
            num_return_sequences: 0,
            repetition_penalty: f64::NAN,
            no_repeat_ngram_size: Some(0),
            seed: 0,
        };
        let prompts = [vec![], vec![99, 1, 31], vec![1; 5], vec![99]];
        let found = faults(&prompts, &options);
        assert_eq!(found.len(), 12, "{found:#?}");
        let text = GenerateError::Request { faults: found }.to_string();
        for part in [
            "prompts without a token: [0]",
            "[31, 99] in prompts [1, 3]",
            "prompts [2] with max_new_tokens 4: a sequence of 9 tokens does not fit the model's 8 positions",
            "min_new_tokens 5 exceeds max_new_tokens 4",
            "[10] in eos",
            "temperature 0 is not positive",
            "top_k 0 is not at least 1",
            "top_p 1.5 is not above 0 and at most 1",
            "min_p -0.1 is not between 0 and 1",
            "repetition_penalty NaN is not positive",
            "no_repeat_ngram_size 0 is not at least 1",
            "num_return_sequences 0 is not at least 1",
        ] {
            assert!(text.contains(part), "{part} is missing from {text}");
        }
    }

    #[test]
    fn beams_limit_the_answers() {
        let with = |num_beams, asked| {
            let search = BeamSearch {
                num_beams,
                length_penalty: f64::INFINITY,
                ..BeamSearch::default()
            };
            let options = GenerateOptions {
                max_new_tokens: 1,
                decoding: Decoding::Beam(search),
                num_return_sequences: asked,
                ..GenerateOptions::default()
            };
            faults(&[vec![1]], &options).len()
        };
        assert_eq!(with(3, 3), 1, "the length penalty");
        assert_eq!(with(3, 4), 2);
        assert_eq!(with(0, 1), 2);
        let two = GenerateOptions {
            num_return_sequences: 2,
            max_new_tokens: 1,
            ..GenerateOptions::default()
        };
        assert_eq!(faults(&[vec![1]], &two).len(), 1);
    }

    #[test]
    fn the_edges_of_the_ranges_are_allowed() {
        let options = GenerateOptions {
            max_new_tokens: 4,
            min_new_tokens: 4,
            eos: vec![9],
            decoding: Decoding::Sample(Sampling {
                temperature: 1e-6,
                top_k: Some(1),
                top_p: Some(1.0),
                min_p: Some(0.0),
            }),
            num_return_sequences: 7,
            ..GenerateOptions::default()
        };
        assert_eq!(faults(&[vec![0, 9, 1, 2], vec![1]], &options), []);
    }
}

//! What is asked of a generation.

use super::beam::BeamSearch;
use super::sampling::Sampling;

/// How prompts are continued. Meaning and order of the fields are those of `transformers`' `generate`.
#[derive(Debug, Clone, PartialEq)]
pub struct GenerateOptions {
    /// The most tokens added to a prompt.
    pub max_new_tokens: usize,
    /// No end token before this many tokens.
    pub min_new_tokens: usize,
    /// Tokens that end a row. They are not part of the answer.
    pub eos: Vec<u32>,
    /// How tokens are chosen.
    pub decoding: Decoding,
    /// Answers to each prompt: 1 for greedy decoding, at most the number of beams for beam search.
    pub num_return_sequences: usize,
    /// Divides the positive scores of tokens that stand in the prompt or in the answer, and multiplies the negative ones
    /// (arXiv:1909.05858): above 1 they become rarer, 1 changes nothing. Padding does not count.
    pub repetition_penalty: f64,
    /// No sequence of this many tokens twice, in prompt and answer together. Padding does not count.
    pub no_repeat_ngram_size: Option<usize>,
    /// Where random choices start. Each answer has its own stream, so that no row changes another.
    pub seed: u64,
}

/// How tokens are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Decoding {
    /// The most likely token; among equals, the one with the smallest id.
    #[default]
    Greedy,
    /// A random token, by its probability.
    Sample(Sampling),
    /// The most likely sequence that a beam finds.
    Beam(BeamSearch),
}

impl Default for GenerateOptions {
    fn default() -> Self {
        Self {
            max_new_tokens: 64,
            min_new_tokens: 0,
            eos: Vec::new(),
            decoding: Decoding::Greedy,
            num_return_sequences: 1,
            repetition_penalty: 1.0,
            no_repeat_ngram_size: None,
            seed: 0,
        }
    }
}

impl GenerateOptions {
    /// The decoding of the LoRA paper's E2E experiment (arXiv:2106.09685, appendix D): beam 10, length penalty 0.9, no
    /// 4-gram twice.
    pub fn lora_paper_e2e() -> Self {
        Self {
            decoding: Decoding::Beam(BeamSearch {
                num_beams: 10,
                length_penalty: 0.9,
                ..BeamSearch::default()
            }),
            no_repeat_ngram_size: Some(4),
            ..Self::default()
        }
    }
}

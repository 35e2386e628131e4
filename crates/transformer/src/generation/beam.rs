//! Beam search: the answers that are most likely as a whole.

use std::cmp::Ordering;

use burn::tensor::activation::log_softmax;
use burn::tensor::{DType, Tensor};

use super::error::GenerateError;
use super::model::{DecodingSession, Scores};
use super::options::GenerateOptions;
use super::processors::Processors;
use super::sequence::{FinishReason, Sequence};

/// The most likely sequences that a search keeping `num_beams` of them at each length finds, by
/// `sum(log p) / length ^ length_penalty`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BeamSearch {
    /// The beams of each prompt.
    pub num_beams: usize,
    /// Above 0 longer answers gain, below 0 shorter ones. The length counts new tokens, the end token among them.
    pub length_penalty: f64,
    /// When a search with `num_beams` finished answers ends.
    pub early_stopping: EarlyStopping,
}

/// When a search that has as many finished answers as beams ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EarlyStopping {
    /// At once; `True` in `transformers`.
    Always,
    /// When the best running beam, were it to end here, would not be among them; `False` in `transformers`.
    #[default]
    Heuristic,
    /// When no running beam can become one of them, at any length up to `max_new_tokens`; `"never"` in `transformers`.
    Never,
}

impl Default for BeamSearch {
    fn default() -> Self {
        Self {
            num_beams: 4,
            length_penalty: 1.0,
            early_stopping: EarlyStopping::default(),
        }
    }
}

impl BeamSearch {
    fn score(&self, log_probability: f32, length: usize) -> f32 {
        (f64::from(log_probability) / (length as f64).powf(self.length_penalty)) as f32
    }
}

/// Whether the new tokens after a prompt end an answer, other than by an end token or their number.
pub(crate) type Ends<'a> =
    dyn Fn(&[u32], &[u32]) -> Result<Option<FinishReason>, GenerateError> + 'a;

/// The best answers to each prompt, best first.
pub(crate) fn beam_search<S: DecodingSession>(
    session: &mut S,
    options: &GenerateOptions,
    search: &BeamSearch,
    ends: &Ends<'_>,
) -> Result<Vec<Vec<Sequence>>, GenerateError> {
    let mut processors = Processors::new(options);
    let prompts = session.contexts();
    let mut searches: Vec<Search<'_>> = prompts
        .iter()
        .enumerate()
        .map(|(index, prompt)| Search::new(index, prompt, options, search))
        .collect();
    let mut logits = session.start();
    for _ in 0..options.max_new_tokens {
        let mut scores = Scores::read(log_probabilities(logits))?;
        for search in searches.iter_mut().filter(|search| !search.is_done()) {
            search.step(&mut scores, &mut processors, ends)?;
        }
        let mut beams: Vec<&mut Beam> = searches
            .iter_mut()
            .flat_map(|search| &mut search.running)
            .collect();
        if beams.is_empty() {
            break;
        }
        let parents: Vec<usize> = beams.iter().map(|beam| beam.place).collect();
        let tokens: Vec<u32> = beams.iter().map(|beam| beam.last()).collect();
        for (place, beam) in beams.iter_mut().enumerate() {
            beam.place = place;
        }
        session.select(&parents);
        logits = session.advance(&tokens);
    }
    let sequences = searches.into_iter().map(Search::into_sequences);
    Ok(sequences.collect())
}

fn log_probabilities(logits: Tensor<2>) -> Tensor<2> {
    log_softmax(logits.cast(DType::F32), 1)
}

/// The search for one prompt.
struct Search<'a> {
    prompt: &'a [u32],
    index: usize,
    options: &'a GenerateOptions,
    search: &'a BeamSearch,
    /// The next candidates that are looked at: enough for `num_beams` to go on, whatever ends.
    width: usize,
    /// Best first; none when the search is done.
    running: Vec<Beam>,
    /// Best first, at most `num_beams`.
    finished: Vec<Finished>,
    length: usize,
}

/// An answer that goes on.
struct Beam {
    /// Prompt and answer.
    context: Vec<u32>,
    log_probability: f32,
    /// Where the session has it.
    place: usize,
}

struct Finished {
    tokens: Vec<u32>,
    finish: FinishReason,
    score: f32,
}

impl Beam {
    fn last(&self) -> u32 {
        self.context.last().copied().unwrap_or(0)
    }

    fn followed_by(&self, candidate: &Candidate) -> Self {
        let mut context = Vec::with_capacity(self.context.len() + 1);
        context.extend_from_slice(&self.context);
        context.push(candidate.token);
        Self {
            context,
            log_probability: candidate.log_probability,
            place: self.place,
        }
    }
}

impl<'a> Search<'a> {
    fn new(
        index: usize,
        prompt: &'a [u32],
        options: &'a GenerateOptions,
        search: &'a BeamSearch,
    ) -> Self {
        let mut eos = options.eos.clone();
        eos.sort_unstable();
        eos.dedup();
        Self {
            prompt,
            index,
            options,
            search,
            width: search.num_beams.saturating_mul((1 + eos.len()).max(2)),
            running: vec![Beam {
                context: prompt.to_vec(),
                log_probability: 0.0,
                place: index,
            }],
            finished: Vec::new(),
            length: 0,
        }
    }

    fn is_done(&self) -> bool {
        self.running.is_empty()
    }

    /// Adds a token to every beam.
    fn step(
        &mut self,
        scores: &mut Scores,
        processors: &mut Processors,
        ends: &Ends<'_>,
    ) -> Result<(), GenerateError> {
        for beam in &self.running {
            let scores = scores.row(beam.place);
            processors.apply(scores, &beam.context, self.index, self.length)?;
        }
        let candidates = best_candidates(&self.running, scores, self.width);
        if candidates.is_empty() && self.finished.is_empty() {
            return Err(GenerateError::NoTokenLeft {
                row: self.index,
                tokens: self.length,
            });
        }
        self.length += 1;
        let mut running = Vec::new();
        for (rank, candidate) in candidates.iter().enumerate() {
            let beam = self.running[candidate.beam].followed_by(candidate);
            match self.finish_of(&beam, ends)? {
                // Beyond the beams, candidates only wait for a place among the running.
                Some(finish) if rank < self.search.num_beams => self.finish(beam, finish),
                Some(_) => (),
                None if running.len() < self.search.num_beams => running.push(beam),
                None => (),
            }
        }
        self.running = running;
        self.finished.sort_by(|a, b| b.score.total_cmp(&a.score));
        self.finished.truncate(self.search.num_beams);
        if !self.may_improve() {
            self.running.clear();
        }
        Ok(())
    }

    fn finish_of(
        &self,
        beam: &Beam,
        ends: &Ends<'_>,
    ) -> Result<Option<FinishReason>, GenerateError> {
        if self.options.eos.contains(&beam.last()) {
            return Ok(Some(FinishReason::Eos(beam.last())));
        }
        let (prompt, tokens) = beam.context.split_at(self.prompt.len());
        if let Some(finish) = ends(prompt, tokens)? {
            return Ok(Some(finish));
        }
        let is_full = self.length == self.options.max_new_tokens;
        Ok(is_full.then_some(FinishReason::Length))
    }

    fn finish(&mut self, mut beam: Beam, finish: FinishReason) {
        let mut tokens = beam.context.split_off(self.prompt.len());
        if matches!(finish, FinishReason::Eos(_)) {
            tokens.pop();
        }
        let score = self.search.score(beam.log_probability, self.length);
        self.finished.push(Finished {
            tokens,
            finish,
            score,
        });
    }

    /// Whether a running beam could still be among the finished.
    fn may_improve(&self) -> bool {
        let Some(best) = self.running.first() else {
            return false;
        };
        let Some(worst) = self.finished.get(self.search.num_beams - 1) else {
            return true;
        };
        let length = match self.search.early_stopping {
            EarlyStopping::Always => return false,
            EarlyStopping::Never if self.search.length_penalty > 0.0 => self.options.max_new_tokens,
            EarlyStopping::Never | EarlyStopping::Heuristic => self.length,
        };
        self.search.score(best.log_probability, length) > worst.score
    }

    fn into_sequences(self) -> Vec<Sequence> {
        let best = self.finished.into_iter();
        let sequences = best
            .take(self.options.num_return_sequences)
            .map(|best| Sequence {
                tokens: best.tokens,
                finish: best.finish,
                score: Some(best.score),
            });
        sequences.collect()
    }
}

/// A beam and a token that may follow it.
struct Candidate {
    beam: usize,
    token: u32,
    log_probability: f32,
}

/// The `width` most likely of all tokens after all beams, best first; among equals, the first. Banned ones are none.
fn best_candidates(beams: &[Beam], scores: &mut Scores, width: usize) -> Vec<Candidate> {
    let order = |a: &Candidate, b: &Candidate| -> Ordering {
        let by_score = b.log_probability.total_cmp(&a.log_probability);
        by_score.then((a.beam, a.token).cmp(&(b.beam, b.token)))
    };
    let width = width.min(beams.len() * scores.vocab_size());
    let mut best: Vec<Candidate> = Vec::with_capacity(4 * width);
    // What is not above it cannot be among the best.
    let mut bar = f32::NEG_INFINITY;
    for (beam, from) in beams.iter().enumerate() {
        for (token, score) in scores.row(from.place).iter().enumerate() {
            let log_probability = from.log_probability + score;
            if log_probability > bar {
                best.push(Candidate {
                    beam,
                    token: token as u32,
                    log_probability,
                });
            }
            if best.len() == 4 * width {
                best.sort_unstable_by(order);
                best.truncate(width);
                bar = best[width - 1].log_probability;
            }
        }
    }
    best.sort_unstable_by(order);
    best.truncate(width);
    best
}

//! Greedy and random decoding: rows that do not know of each other.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::error::GenerateError;
use super::model::{DecodingSession, Scores};
use super::options::{Decoding, GenerateOptions};
use super::processors::Processors;
use super::sampling::argmax;
use super::sequence::{FinishReason, Sequence};

/// What happens to a row. Rows are counted over all answers of the first prompt, then those of the second.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenEvent {
    /// A token more.
    Token {
        /// The row.
        row: usize,
        /// The token.
        token: u32,
    },
    /// No more tokens.
    End {
        /// The row.
        row: usize,
        /// Why.
        finish: FinishReason,
    },
}

/// All rows of a batch, one step at a time.
pub(crate) struct RowLoop<S> {
    session: S,
    options: GenerateOptions,
    processors: Processors,
    rows: Vec<Row>,
    /// The row that stands in each place of the session; none before the start.
    places: Vec<usize>,
}

impl<S: DecodingSession> RowLoop<S> {
    /// One row for each answer to each prompt.
    pub(crate) fn new(session: S, options: &GenerateOptions) -> Self {
        let copies = options.num_return_sequences;
        let contexts = session.contexts();
        let rows = contexts.iter().enumerate().flat_map(|(index, context)| {
            (0..copies).map(move |copy| Row::new(index, copy, context, options))
        });
        Self {
            rows: rows.collect(),
            session,
            options: options.clone(),
            processors: Processors::new(options),
            places: Vec::new(),
        }
    }

    /// Adds a token to every row that has not ended, and tells what happened; nothing when all have.
    pub(crate) fn step(&mut self) -> Result<Vec<TokenEvent>, GenerateError> {
        let mut events = Vec::new();
        if self.rows.iter().all(Row::is_done) {
            return Ok(events);
        }
        let mut scores = self.scores()?;
        for (place, index) in self.places.iter().copied().enumerate() {
            let row = &mut self.rows[index];
            if row.is_done() {
                continue;
            }
            let token = row.choose(scores.row(place), &mut self.processors, &self.options)?;
            if self.options.eos.contains(&token) {
                row.finish = Some(FinishReason::Eos(token));
            } else {
                row.context.push(token);
                events.push(TokenEvent::Token { row: index, token });
                if row.new_tokens().len() == self.options.max_new_tokens {
                    row.finish = Some(FinishReason::Length);
                }
            }
            if let Some(finish) = row.finish.clone() {
                events.push(TokenEvent::End { row: index, finish });
            }
        }
        Ok(events)
    }

    /// Ends a row from outside.
    pub(crate) fn end(&mut self, row: usize, finish: FinishReason) {
        if let Some(row) = self.rows.get_mut(row) {
            row.finish = Some(finish);
        }
    }

    /// Prompt and answer of each row.
    pub(crate) fn contexts(&self) -> impl Iterator<Item = &[u32]> {
        self.rows.iter().map(|row| row.context.as_slice())
    }

    /// The answers to each prompt.
    pub(crate) fn into_sequences(self) -> Vec<Vec<Sequence>> {
        let mut sequences = Vec::new();
        for row in self.rows {
            if sequences.len() == row.prompt {
                sequences.push(Vec::new());
            }
            sequences[row.prompt].push(row.into_sequence());
        }
        sequences
    }

    fn scores(&mut self) -> Result<Scores, GenerateError> {
        if self.places.is_empty() {
            return self.start();
        }
        self.drop_ended();
        // A row that has ended says its last token again; nothing reads what comes of it.
        let tokens = self.places.iter().map(|row| self.rows[*row].last());
        let tokens: Vec<u32> = tokens.collect();
        Scores::read(self.session.advance(&tokens))
    }

    /// Prompts are read once, however many answers are asked for.
    fn start(&mut self) -> Result<Scores, GenerateError> {
        let copies = self.options.num_return_sequences;
        let scores = Scores::read(self.session.start())?;
        self.places = (0..self.rows.len()).collect();
        if copies == 1 {
            return Ok(scores);
        }
        let places: Vec<usize> = self.rows.iter().map(|row| row.prompt).collect();
        self.session.select(&places);
        Ok(scores.repeated(copies))
    }

    /// Takes ended rows out of the session, once they are half of it: moving the cache has its price.
    fn drop_ended(&mut self) {
        let goes_on = |place: &usize| !self.rows[self.places[*place]].is_done();
        let kept: Vec<usize> = (0..self.places.len()).filter(goes_on).collect();
        if 2 * kept.len() <= self.places.len() {
            self.session.select(&kept);
            self.places = kept.iter().map(|place| self.places[*place]).collect();
        }
    }
}

/// One answer.
struct Row {
    prompt: usize,
    prompt_len: usize,
    /// Prompt and answer.
    context: Vec<u32>,
    finish: Option<FinishReason>,
    rng: ChaCha8Rng,
}

impl Row {
    fn new(index: usize, copy: usize, prompt: &[u32], options: &GenerateOptions) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(options.seed);
        // Neither the other prompts nor the number of answers have a part in the stream.
        rng.set_stream(index as u64 | ((copy as u64) << 32));
        Self {
            prompt: index,
            prompt_len: prompt.len(),
            context: prompt.to_vec(),
            finish: (options.max_new_tokens == 0).then_some(FinishReason::Length),
            rng,
        }
    }

    fn is_done(&self) -> bool {
        self.finish.is_some()
    }

    fn new_tokens(&self) -> &[u32] {
        &self.context[self.prompt_len..]
    }

    fn last(&self) -> u32 {
        self.context.last().copied().unwrap_or(0)
    }

    fn choose(
        &mut self,
        scores: &mut [f32],
        processors: &mut Processors,
        options: &GenerateOptions,
    ) -> Result<u32, GenerateError> {
        let (row, tokens) = (self.prompt, self.new_tokens().len());
        processors.apply(scores, &self.context, row, tokens)?;
        let token = match &options.decoding {
            Decoding::Sample(sampling) => sampling
                .distribution(scores)
                .map(|distribution| distribution.draw(&mut self.rng)),
            _ => argmax(scores),
        };
        token.ok_or(GenerateError::NoTokenLeft { row, tokens })
    }

    fn into_sequence(mut self) -> Sequence {
        Sequence {
            tokens: self.context.split_off(self.prompt_len),
            finish: self.finish.unwrap_or(FinishReason::Stopped),
            score: None,
        }
    }
}

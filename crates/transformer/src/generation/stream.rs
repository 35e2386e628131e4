//! Answers while they grow.

use std::collections::VecDeque;

use super::detokenizer::{Detokenizer, Piece, RowText};
use super::error::GenerateError;
use super::model::DecodingSession;
use super::rows::{RowLoop, TokenEvent};
use super::sequence::{FinishReason, Sequence};
use super::session::DecoderSession;

/// Tokens as they are chosen, of all rows in turn. After an error there is nothing more.
pub struct TokenStream<S = DecoderSession> {
    rows: RowLoop<S>,
    events: VecDeque<TokenEvent>,
    is_broken: bool,
}

impl<S: DecodingSession> TokenStream<S> {
    pub(crate) fn new(rows: RowLoop<S>) -> Self {
        Self {
            rows,
            events: VecDeque::new(),
            is_broken: false,
        }
    }

    /// Ends a row, whose tokens so far stay. It has no event of its end.
    pub fn stop(&mut self, row: usize) {
        self.end(row, FinishReason::Stopped);
    }

    fn end(&mut self, row: usize, finish: FinishReason) {
        self.rows.end(row, finish);
        self.events.retain(|event| event.row() != row);
    }

    /// The answers to each prompt as far as they are.
    pub fn into_sequences(self) -> Vec<Vec<Sequence>> {
        self.rows.into_sequences()
    }
}

impl<S: DecodingSession> Iterator for TokenStream<S> {
    type Item = Result<TokenEvent, GenerateError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_broken {
            return None;
        }
        if self.events.is_empty() {
            match self.rows.step() {
                Ok(events) => self.events.extend(events),
                Err(error) => {
                    self.is_broken = true;
                    return Some(Err(error));
                }
            }
        }
        self.events.pop_front().map(Ok)
    }
}

/// What happens to the text of a row. Rows are counted over all answers of the first prompt, then those of the second.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TextEvent {
    /// More text, never empty: whole characters, and no part of a stop string.
    Text {
        /// The row.
        row: usize,
        /// The text that follows what was there before.
        text: String,
    },
    /// No more text.
    End {
        /// The row.
        row: usize,
        /// Why.
        finish: FinishReason,
    },
}

/// Text as it is written, of all rows in turn. After an error there is nothing more.
pub struct TextStream<'a, S = DecoderSession> {
    tokens: TokenStream<S>,
    detokenizer: &'a Detokenizer<'a>,
    rows: Vec<RowText>,
    events: VecDeque<TextEvent>,
}

impl<'a, S: DecodingSession> TextStream<'a, S> {
    pub(crate) fn new(rows: RowLoop<S>, detokenizer: &'a Detokenizer<'a>) -> Self {
        Self {
            rows: rows.contexts().map(RowText::new).collect(),
            tokens: TokenStream::new(rows),
            detokenizer,
            events: VecDeque::new(),
        }
    }

    /// Ends a row, whose text so far stays. It has no event of its end.
    pub fn stop(&mut self, row: usize) {
        self.tokens.stop(row);
        self.events.retain(|event| event.row() != row);
    }

    /// The answers to each prompt as far as they are. After a stop string the tokens are those that were chosen.
    pub fn into_sequences(self) -> Vec<Vec<Sequence>> {
        self.tokens.into_sequences()
    }

    fn take(&mut self, event: TokenEvent) -> Result<(), GenerateError> {
        match event {
            TokenEvent::Token { row, token } => {
                let piece = self.rows[row].push(token, self.detokenizer)?;
                self.write(row, piece, None);
            }
            TokenEvent::End { row, finish } => {
                let piece = self.rows[row].finish(self.detokenizer)?;
                self.write(row, piece, Some(finish));
            }
        }
        Ok(())
    }

    fn write(&mut self, row: usize, piece: Piece, finish: Option<FinishReason>) {
        let Piece { text, stop } = piece;
        if !text.is_empty() {
            self.events.push_back(TextEvent::Text { row, text });
        }
        let stopped = stop.map(FinishReason::StopString);
        if let Some(finish) = &stopped {
            self.tokens.end(row, finish.clone());
        }
        if let Some(finish) = stopped.or(finish) {
            self.events.push_back(TextEvent::End { row, finish });
        }
    }
}

impl<S: DecodingSession> Iterator for TextStream<'_, S> {
    type Item = Result<TextEvent, GenerateError>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.events.is_empty() {
            let taken = match self.tokens.next()? {
                Ok(event) => self.take(event),
                Err(error) => Err(error),
            };
            if let Err(error) = taken {
                self.tokens.is_broken = true;
                return Some(Err(error));
            }
        }
        self.events.pop_front().map(Ok)
    }
}

impl TokenEvent {
    fn row(&self) -> usize {
        let (Self::Token { row, .. } | Self::End { row, .. }) = self;
        *row
    }
}

impl TextEvent {
    fn row(&self) -> usize {
        let (Self::Text { row, .. } | Self::End { row, .. }) = self;
        *row
    }
}

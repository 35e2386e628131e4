//! Continues prompts: greedily, at random or by beam search; as tokens or as text; at the end or while it grows.

mod beam;
mod detokenizer;
mod error;
mod model;
mod options;
mod processors;
mod request;
mod rows;
mod sampling;
mod sequence;
mod session;
mod stream;

pub use beam::{BeamSearch, EarlyStopping};
pub use detokenizer::Detokenizer;
pub use error::{GenerateError, RequestFault};
pub use model::{DecodingSession, Generative};
pub use options::{Decoding, GenerateOptions};
pub use rows::TokenEvent;
pub use sampling::Sampling;
pub use sequence::{FinishReason, Sequence, TextSequence};
pub use session::DecoderSession;
pub use stream::{TextEvent, TextStream, TokenStream};

use beam::beam_search;
use model::Scores;
use processors::Processors;
use request::Faults;
use rows::RowLoop;

/// The tokens that follow each prompt, without the prompt and without the token that ended them; the first answer, if
/// several are asked for.
///
/// All prompts run in one batch, each as it would alone. Rows end one by one, and the work with them.
///
/// # Errors
///
/// Everything that is wrong with the prompts and the options, in one error, before any work.
pub fn generate<M: Generative>(
    model: &M,
    prompts: &[Vec<u32>],
    options: &GenerateOptions,
) -> Result<Vec<Vec<u32>>, GenerateError> {
    let answers = generate_sequences(model, prompts, options)?;
    let first = |answers: Vec<Sequence>| answers.into_iter().next();
    let first = answers.into_iter().filter_map(first);
    Ok(first.map(|sequence| sequence.tokens).collect())
}

/// `num_return_sequences` answers to each prompt: of a beam search the best first, otherwise as they were drawn.
///
/// A beam search whose candidates are nearly all banned may find fewer.
///
/// # Errors
///
/// As [`generate`].
pub fn generate_sequences<M: Generative>(
    model: &M,
    prompts: &[Vec<u32>],
    options: &GenerateOptions,
) -> Result<Vec<Vec<Sequence>>, GenerateError> {
    check(model, prompts, options).into_result()?;
    match beams(prompts, options) {
        Some(search) => {
            let mut session = model.session(prompts, options.max_new_tokens);
            beam_search(&mut session, options, search, &|_, _| Ok(None))
        }
        None => {
            let mut stream = TokenStream::new(rows(model, prompts, options));
            stream.try_for_each(|event| event.map(drop))?;
            Ok(stream.into_sequences())
        }
    }
}

/// As [`generate_sequences`], with the text of each answer as the continuation of its prompt. An answer ends before a
/// stop string of the detokenizer.
///
/// # Errors
///
/// As [`generate`], and those of the detokenizer.
pub fn generate_text<M: Generative>(
    model: &M,
    prompts: &[Vec<u32>],
    options: &GenerateOptions,
    detokenizer: &Detokenizer<'_>,
) -> Result<Vec<Vec<TextSequence>>, GenerateError> {
    let mut faults = check(model, prompts, options);
    faults.stop_strings(detokenizer.stop_strings());
    faults.into_result()?;
    let session = model.session(prompts, options.max_new_tokens);
    let contexts = session.contexts();
    let answers = match beams(prompts, options) {
        Some(search) => {
            let mut session = session;
            beam_search(&mut session, options, search, &|context, tokens| {
                let piece = detokenizer.text(context, tokens)?;
                Ok(piece.stop.map(FinishReason::StopString))
            })?
        }
        None => {
            let mut stream = TextStream::new(RowLoop::new(session, options), detokenizer);
            stream.try_for_each(|event| event.map(drop))?;
            stream.into_sequences()
        }
    };
    let with_text = |(context, answers): (&Vec<u32>, Vec<Sequence>)| {
        let answers = answers.into_iter().map(|sequence| {
            let text = detokenizer.text(context, &sequence.tokens)?.text;
            Ok(TextSequence { text, sequence })
        });
        answers.collect()
    };
    contexts.iter().zip(answers).map(with_text).collect()
}

/// The tokens of [`generate_sequences`] one by one, of all rows in turn.
///
/// # Errors
///
/// As [`generate`], and beam search, which knows its answer at the end only. What goes wrong later comes as an item.
pub fn stream_tokens<M: Generative>(
    model: &M,
    prompts: &[Vec<u32>],
    options: &GenerateOptions,
) -> Result<TokenStream<M::Session>, GenerateError> {
    let mut faults = check(model, prompts, options);
    faults.streaming(options);
    faults.into_result()?;
    Ok(TokenStream::new(rows(model, prompts, options)))
}

/// The text of [`generate_text`] piece by piece, of all rows in turn: whole characters, and no part of a stop string.
///
/// ```no_run
/// use burn_lora_transformer::{
///     Decoder, Decoding, Detokenizer, GenerateOptions, Sampling, TextEvent, stream_text,
/// };
/// # fn tokenize(text: &str) -> Vec<u32> { Vec::new() }
/// # fn decode(tokens: &[u32]) -> Result<String, std::io::Error> { Ok(String::new()) }
/// # fn run(decoder: &Decoder) -> Result<(), Box<dyn std::error::Error>> {
/// let options = GenerateOptions {
///     max_new_tokens: 200,
///     eos: vec![2],
///     decoding: Decoding::Sample(Sampling {
///         temperature: 0.7,
///         top_p: Some(0.9),
///         ..Sampling::default()
///     }),
///     ..GenerateOptions::default()
/// };
/// let detokenizer = Detokenizer::new(decode).with_stop_strings(["\nUser:"]);
/// for event in stream_text(decoder, &[tokenize("Once")], &options, &detokenizer)? {
///     if let TextEvent::Text { text, .. } = event? {
///         print!("{text}");
///     }
/// }
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// As [`generate_text`], and beam search, which knows its answer at the end only. What goes wrong later comes as an item.
pub fn stream_text<'a, M: Generative>(
    model: &M,
    prompts: &[Vec<u32>],
    options: &GenerateOptions,
    detokenizer: &'a Detokenizer<'a>,
) -> Result<TextStream<'a, M::Session>, GenerateError> {
    let mut faults = check(model, prompts, options);
    faults.stop_strings(detokenizer.stop_strings());
    faults.streaming(options);
    faults.into_result()?;
    Ok(TextStream::new(rows(model, prompts, options), detokenizer))
}

/// The probability of every token to be the first new one of each prompt, after all that `options` do to the scores.
///
/// Without sampling these are the probabilities of the scores that the decoding compares.
///
/// # Errors
///
/// As [`generate`].
pub fn next_token_probabilities<M: Generative>(
    model: &M,
    prompts: &[Vec<u32>],
    options: &GenerateOptions,
) -> Result<Vec<Vec<f32>>, GenerateError> {
    check(model, prompts, options).into_result()?;
    if prompts.is_empty() {
        return Ok(Vec::new());
    }
    let sampling = match options.decoding {
        Decoding::Sample(sampling) => sampling,
        Decoding::Greedy | Decoding::Beam(_) => Sampling::default(),
    };
    let mut session = model.session(prompts, 1);
    let mut processors = Processors::new(options);
    let contexts = session.contexts();
    let mut scores = Scores::read(session.start())?;
    let of_row = |(row, context): (usize, &Vec<u32>)| {
        let scores = scores.row(row);
        processors.apply(scores, context, row, 0)?;
        let distribution = sampling.distribution(scores);
        let distribution = distribution.ok_or(GenerateError::NoTokenLeft { row, tokens: 0 })?;
        Ok(distribution.probabilities(scores.len()))
    };
    contexts.iter().enumerate().map(of_row).collect()
}

/// The beam search that is asked for, unless there is nothing to do.
fn beams<'a>(prompts: &[Vec<u32>], options: &'a GenerateOptions) -> Option<&'a BeamSearch> {
    match &options.decoding {
        Decoding::Beam(search) if options.max_new_tokens > 0 && !prompts.is_empty() => Some(search),
        _ => None,
    }
}

fn rows<M: Generative>(
    model: &M,
    prompts: &[Vec<u32>],
    options: &GenerateOptions,
) -> RowLoop<M::Session> {
    RowLoop::new(model.session(prompts, options.max_new_tokens), options)
}

fn check<M: Generative>(model: &M, prompts: &[Vec<u32>], options: &GenerateOptions) -> Faults {
    let mut faults = Faults::default();
    faults.prompts(model, prompts, options);
    faults.options(options, model.vocab_size());
    faults
}

//! Continues prompts, token by token.

use burn::module::Module;
use burn::tensor::{DType, Int, Tensor, TensorData};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::decoder::Decoder;
use crate::error::GenerateError;
use crate::positions::Padding;
use crate::sampling::Sampling;

/// How prompts are continued.
#[derive(Debug, Clone, PartialEq)]
pub struct GenerateOptions {
    /// The most tokens added to a prompt.
    pub max_new_tokens: usize,
    /// Tokens that end a row. They are not part of the answer.
    pub eos: Vec<u32>,
    /// How a token is chosen.
    pub sampling: Sampling,
    /// Where random choices start. Each row has its own stream, so that no row changes another.
    pub seed: u64,
}

impl Default for GenerateOptions {
    fn default() -> Self {
        Self {
            max_new_tokens: 64,
            eos: Vec::new(),
            sampling: Sampling::Greedy,
            seed: 0,
        }
    }
}

/// The tokens that follow each prompt, without the prompt and without the token that ended it.
///
/// All prompts run in one batch. Shorter ones are padded in front, their positions count from their first real token,
/// and the padding is masked: each row is computed as it would be alone. The model runs without autodiff, with adapters
/// as they are attached and without dropout.
///
/// # Errors
///
/// Prompts that are empty, hold unknown tokens, or leave no room for the new tokens are refused before any work.
pub fn generate(
    decoder: &Decoder,
    prompts: &[Vec<u32>],
    options: &GenerateOptions,
) -> Result<Vec<Vec<u32>>, GenerateError> {
    check(decoder, prompts, options)?;
    let mut rows: Vec<Row> = (0..prompts.len()).map(|i| Row::new(i, options)).collect();
    if prompts.is_empty() || options.max_new_tokens == 0 {
        return Ok(rows.into_iter().map(|row| row.tokens).collect());
    }

    let decoder = decoder.valid();
    let lengths: Vec<usize> = prompts.iter().map(Vec::len).collect();
    let padding = Padding::for_lengths(&lengths);
    let longest = lengths.iter().copied().max().unwrap_or(0);
    // The last new token is never fed back.
    let mut cache = decoder.new_cache(longest + options.max_new_tokens - 1);
    let mut ids = pad_left(prompts, longest);

    for step in 0..options.max_new_tokens {
        let seq = ids.len() / prompts.len();
        let batch = TensorData::new(ids, [prompts.len(), seq]);
        let batch = Tensor::<2, Int>::from_data(batch, &decoder.device());
        let hidden = decoder.hidden_cached(batch, Some(&padding), &mut cache);
        let [batch, seq, d] = hidden.dims();
        let last: Tensor<2> = hidden
            .slice([0..batch, seq - 1..seq, 0..d])
            .reshape([batch, d]);
        let logits = read(decoder.logits_of(last))?;

        let vocab = logits.len() / batch;
        for (row, logits) in rows.iter_mut().zip(logits.chunks_exact(vocab)) {
            if !row.done && logits.iter().any(|logit| !logit.is_finite()) {
                return Err(GenerateError::NotFinite {
                    row: row.index,
                    tokens: step,
                });
            }
            row.take(logits, options);
        }
        if rows.iter().all(|row| row.done) {
            break;
        }
        ids = rows.iter().map(|row| row.last as i32).collect();
    }
    Ok(rows.into_iter().map(|row| row.tokens).collect())
}

/// The answer to one prompt.
struct Row {
    index: usize,
    tokens: Vec<u32>,
    /// Fed to the model next. A row that is done feeds its end again; nothing reads what comes of it.
    last: u32,
    done: bool,
    rng: ChaCha8Rng,
}

impl Row {
    fn new(index: usize, options: &GenerateOptions) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(options.seed);
        rng.set_stream(index as u64);
        Self {
            index,
            tokens: Vec::new(),
            last: 0,
            done: false,
            rng,
        }
    }

    fn take(&mut self, logits: &[f32], options: &GenerateOptions) {
        if self.done {
            return;
        }
        self.last = options.sampling.choose(logits, &mut self.rng);
        self.done = options.eos.contains(&self.last);
        if !self.done {
            self.tokens.push(self.last);
        }
    }
}

/// All rows one after the other, shorter ones behind zeros.
fn pad_left(prompts: &[Vec<u32>], longest: usize) -> Vec<i32> {
    prompts
        .iter()
        .flat_map(|prompt| {
            let padding = std::iter::repeat_n(0, longest - prompt.len());
            padding.chain(prompt.iter().map(|token| *token as i32))
        })
        .collect()
}

fn read(logits: Tensor<2>) -> Result<Vec<f32>, GenerateError> {
    logits
        .cast(DType::F32)
        .try_into_vec_as::<f32>()
        .map_err(|error| GenerateError::Device(error.to_string()))
}

fn check(
    decoder: &Decoder,
    prompts: &[Vec<u32>],
    options: &GenerateOptions,
) -> Result<(), GenerateError> {
    let problems = options.sampling.problems();
    if !problems.is_empty() {
        return Err(GenerateError::Sampling { problems });
    }
    let rows_with = |wrong: &dyn Fn(&Vec<u32>) -> bool| -> Vec<usize> {
        let rows = prompts.iter().enumerate();
        rows.filter(|(_, prompt)| wrong(prompt))
            .map(|(row, _)| row)
            .collect()
    };
    let rows = rows_with(&|prompt| prompt.is_empty());
    if !rows.is_empty() {
        return Err(GenerateError::EmptyPrompt { rows });
    }
    let vocab_size = decoder.vocab_size();
    let is_unknown = |token: &u32| *token as usize >= vocab_size;
    let rows = rows_with(&|prompt| prompt.iter().any(is_unknown));
    if !rows.is_empty() {
        let mut tokens: Vec<u32> = prompts.iter().flatten().copied().collect();
        tokens.retain(is_unknown);
        tokens.sort_unstable();
        tokens.dedup();
        return Err(GenerateError::UnknownToken {
            tokens,
            rows,
            vocab_size,
        });
    }
    let longest = prompts
        .iter()
        .enumerate()
        .max_by_key(|(_, prompt)| prompt.len());
    let Some((row, prompt)) = longest else {
        return Ok(());
    };
    decoder
        .check_length(prompt.len() + options.max_new_tokens)
        .map_err(|source| GenerateError::TooLong { row, source })
}

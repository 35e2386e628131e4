//! The models that can be scored.

use std::path::Path;

use burn_lora::transformer::{
    Decoder, DecoderClassifier, EncoderConfig, FolderOptions, LoadOptions, LoadReport, MaskedLm,
    MultipleChoice, SentenceEncoder, SequenceClassifier, T5, TokenClassifier, WithParts,
    adapter_folders,
};

use super::file::{Column, ScoreFile};
use super::log_probs::Totals;
use super::rows::Rows;
use super::task::ScoreTask;
use super::{decoder, encoder, seq2seq};
use crate::failure::{Failure, Kind};
use crate::progress::Bar;

/// A model of any kind that has something to say of a sequence.
pub enum Model {
    /// Predicts the next token.
    Decoder(Box<Decoder>),
    /// Labels a row, as a decoder.
    DecoderLabels(Box<DecoderClassifier>),
    /// Predicts the token at each place.
    Masked(Box<MaskedLm>),
    /// Labels a row.
    Sequence(Box<SequenceClassifier>),
    /// Labels each token.
    Tokens(Box<TokenClassifier>),
    /// Chooses.
    Choice(Box<MultipleChoice>),
    /// Makes a vector.
    Embedding(Box<SentenceEncoder>),
    /// Writes.
    T5(Box<T5>),
}

/// How a model is loaded.
pub struct Loading<'a> {
    pub folder: &'a Path,
    pub options: LoadOptions,
    pub num_labels: Option<usize>,
    pub adapter: Option<&'a Path>,
}

impl Model {
    /// Loads a folder for a task, and an adapter onto it.
    ///
    /// # Errors
    ///
    /// Among others, a head that neither the folder nor the adapter holds: it would say nothing.
    pub fn load(
        task: ScoreTask,
        is_decoder: bool,
        loading: Loading<'_>,
    ) -> Result<(Self, LoadReport), Failure> {
        let bar = Bar::bytes("loading");
        let Loading {
            folder, adapter, ..
        } = loading;
        let load = loading
            .options
            .with_progress(move |progress| bar.set(progress.bytes, progress.total_bytes));
        let head = FolderOptions {
            num_labels: loading.num_labels,
            ..FolderOptions::new(load.device.clone())
        };
        let head = FolderOptions { load, ..head };
        let load = &head.load;

        /// A head, with what it lacks.
        macro_rules! headed {
            ($variant:ident, $model:ident) => {{
                let (model, report) = $model::load_reported(folder, &head)?;
                let fresh = model.fresh().to_vec();
                let model = with_adapter(model, adapter)?;
                refuse_fresh(folder, &fresh, adapter)?;
                (Self::$variant(Box::new(model)), report)
            }};
        }
        macro_rules! whole {
            ($variant:ident, $model:ident) => {{
                let (model, report) = $model::load_reported(folder, load)?;
                let model = with_adapter(model, adapter)?;
                (Self::$variant(Box::new(model)), report)
            }};
        }
        Ok(match task {
            ScoreTask::CausalLm => whole!(Decoder, Decoder),
            ScoreTask::Sequence if is_decoder => headed!(DecoderLabels, DecoderClassifier),
            ScoreTask::Sequence => headed!(Sequence, SequenceClassifier),
            ScoreTask::MaskedLm => headed!(Masked, MaskedLm),
            ScoreTask::Tokens => headed!(Tokens, TokenClassifier),
            ScoreTask::Choice => headed!(Choice, MultipleChoice),
            ScoreTask::Embedding => whole!(Embedding, SentenceEncoder),
            ScoreTask::Seq2seq => whole!(T5, T5),
        })
    }

    /// What is written of each row: what went into the model, then what came out of it.
    pub fn columns(&self, rows: &Rows, with_logits: bool) -> Vec<Column> {
        let seq = rows.longest();
        let of_tokens = |name| match self {
            Self::Choice(_) => Column::ints(name, [rows.choices(), seq]),
            _ => Column::ints(name, [seq]),
        };
        let mut columns = vec![of_tokens("input_ids"), of_tokens("attention_mask")];
        // Where all tokens are of one kind, Transformers' models need not be told, and some take no such argument.
        if self.encoder().is_some_and(|config| config.segments() > 1) {
            columns.push(of_tokens("token_type_ids"));
        }
        let written = rows.longest_target();
        if let Self::T5(_) = self {
            columns.push(Column::ints("decoder_input_ids", [written]));
            columns.push(Column::ints("labels", [written]));
        }
        let logits = match self {
            Self::Decoder(model) => vec![seq, model.vocab_size()],
            Self::Masked(model) => vec![seq, model.config().vocab_size()],
            Self::T5(model) => vec![written, model.config().vocab_size],
            Self::Tokens(model) => vec![seq, model.config().num_labels()],
            Self::Sequence(model) => vec![model.config().num_labels()],
            Self::DecoderLabels(model) => vec![model.num_labels()],
            Self::Choice(_) => vec![rows.choices()],
            Self::Embedding(model) => {
                let width = model.encoder.config().hidden_size();
                columns.push(Column::floats("embeddings", [width]));
                return columns;
            }
        };
        if with_logits {
            columns.push(Column::floats("logits", logits));
        }
        match self {
            Self::Decoder(_) | Self::Masked(_) => columns.push(Column::floats("log_probs", [seq])),
            Self::T5(_) => columns.push(Column::floats("log_probs", [written])),
            _ => {}
        }
        columns
    }

    /// The configuration of an encoder.
    fn encoder(&self) -> Option<&EncoderConfig> {
        match self {
            Self::Masked(model) => Some(model.config()),
            Self::Sequence(model) => Some(model.config()),
            Self::Tokens(model) => Some(model.config()),
            Self::Choice(model) => Some(model.config()),
            Self::Embedding(model) => Some(model.encoder.config()),
            Self::Decoder(_) | Self::DecoderLabels(_) | Self::T5(_) => None,
        }
    }

    /// Computes all rows and writes them.
    pub fn score(
        &self,
        rows: &Rows,
        batch_size: usize,
        file: &mut ScoreFile,
    ) -> Result<Totals, Failure> {
        let bar = Bar::tokens("scoring");
        let mut totals = Totals::default();
        let texts = rows.all().iter().flat_map(|row| &row.sequences);
        let sources: usize = texts.map(|text| text.ids.len()).sum();
        let all = sources + rows.all().iter().map(|row| row.target.len()).sum::<usize>();
        for (index, batch) in rows.all().chunks(batch_size).enumerate() {
            let first = index * batch_size;
            match self {
                Self::Decoder(model) => decoder::score(model, batch, first, file, &mut totals)?,
                Self::DecoderLabels(model) => {
                    decoder::label(model, batch, first, file, &mut totals)?;
                }
                Self::Masked(model) => encoder::masked(model, batch, first, file, &mut totals)?,
                Self::Sequence(model) => {
                    encoder::sequences(model, batch, first, file, &mut totals)?;
                }
                Self::Tokens(model) => encoder::tokens(model, batch, first, file, &mut totals)?,
                Self::Choice(model) => encoder::choices(model, batch, first, file, &mut totals)?,
                Self::Embedding(model) => {
                    encoder::embeddings(model, batch, first, file, &mut totals)?;
                }
                Self::T5(model) => seq2seq::score(model, batch, first, file, &mut totals)?,
            }
            bar.set(totals.tokens as u64, all as u64);
        }
        Ok(totals)
    }
}

fn with_adapter<M: WithParts>(model: M, adapter: Option<&Path>) -> Result<M, Failure> {
    match adapter {
        Some(adapter) => Ok(model.load_adapters(adapter)?),
        None => Ok(model),
    }
}

/// Parameters of a head that know nothing, unless the adapter brought them.
fn refuse_fresh(folder: &Path, fresh: &[String], adapter: Option<&Path>) -> Result<(), Failure> {
    let adapters = adapter.map(adapter_folders).transpose()?.into_iter();
    let saved = adapters
        .flatten()
        .flat_map(|adapter| adapter.modules_to_save);
    let saved: Vec<String> = saved.collect();
    // PEFT's rule: a name is the end of a module's path.
    let is_saved = |path: &&String| {
        let mut modules = path.match_indices('.').map(|(end, _)| &path[..end]);
        modules.any(|module| saved.iter().any(|name| module.ends_with(name.as_str())))
    };
    let fresh: Vec<&str> = fresh
        .iter()
        .filter(|path| !is_saved(path))
        .map(String::as_str)
        .collect();
    if fresh.is_empty() {
        return Ok(());
    }
    let reason = format!(
        "{} has no trained head for this task; it lacks {}; --task asks for another",
        folder.display(),
        fresh.join(", ")
    );
    Err(Failure::new(Kind::Model, reason))
}

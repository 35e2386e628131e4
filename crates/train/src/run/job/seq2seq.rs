use std::path::Path;
use std::sync::Arc;

use burn_lora_data::{Progress, Tokenizer, encode_seq2seq};
use burn_lora_transformer::{LoadOptions, T5};

use super::super::config::RunConfig;
use super::super::data::read_parts;
use super::super::execute::RunError;
use super::super::task::{ModelKind, TaskKind};
use super::{Examples, Job, Measured, no_recompute};
use crate::evaluate::evaluate_task;
use crate::task::Seq2Seq;

/// Texts written for others, by an encoder-decoder.
pub(crate) struct Seq2SeqJob {
    tokenizer: Arc<Tokenizer>,
    /// Write the texts in every validation.
    writes: bool,
}

impl Job for Seq2SeqJob {
    type Model = T5;
    type Task = Seq2Seq;

    const PEFT: &'static str = "SEQ_2_SEQ_LM";

    fn read(
        config: &RunConfig,
        _task: TaskKind,
        folder: &Path,
        _progress: Progress<'_>,
    ) -> Result<(Self, Examples<Self>), RunError> {
        no_recompute(config, ModelKind::EncoderDecoder)?;
        let tokenizer = Tokenizer::from_encoder_folder(folder)?;
        let options = config.encode_options();
        let data = read_parts(config, |rows| {
            let set = encode_seq2seq(rows, &tokenizer, &options)?;
            let report = set.report(rows.len(), |one| {
                let written = one.target.len();
                [one.source.len() + written, written]
            });
            Ok((set.examples, report))
        })?;
        let job = Self {
            tokenizer: Arc::new(tokenizer),
            writes: config.evaluation.generate == Some(true),
        };
        Ok((job, data))
    }

    fn load(
        &self,
        _config: &RunConfig,
        folder: &Path,
        options: LoadOptions,
    ) -> Result<T5, RunError> {
        Ok(T5::load(folder, &options)?)
    }

    fn task(&self, _model: &T5) -> Seq2Seq {
        Seq2Seq {
            tokenizer: self.writes.then(|| self.tokenizer.clone()),
        }
    }

    /// Writes the texts unless that is switched off.
    fn measure(
        &self,
        config: &RunConfig,
        model: &T5,
        data: &Examples<Self>,
    ) -> Result<Measured, RunError> {
        let writes = config.evaluation.generate.unwrap_or(true);
        let task = Seq2Seq {
            tokenizer: writes.then(|| self.tokenizer.clone()),
        };
        let found = evaluate_task(model, &task, &data.test, config.training.batch_size)?;
        Ok(Measured {
            metrics: found.metrics,
            learned: found.counts.learned,
            completions: Vec::new(),
        })
    }
}

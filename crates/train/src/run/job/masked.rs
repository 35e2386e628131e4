use std::path::Path;

use burn_lora_data::{EncoderTokens, Progress, Tokenizer, encode_texts};
use burn_lora_transformer::{LoadOptions, MaskedLm};

use super::super::config::RunConfig;
use super::super::data::read_parts;
use super::super::execute::RunError;
use super::super::task::TaskKind;
use super::{Examples, Job, fault, with_head};
use crate::task::Masked;

/// Hidden tokens, by an encoder.
pub(crate) struct MaskedJob {
    task: Masked,
}

impl Job for MaskedJob {
    type Model = MaskedLm;
    type Task = Masked;

    /// PEFT has no name for it; this one wraps any model as it is.
    const PEFT: &'static str = "FEATURE_EXTRACTION";

    fn read(
        config: &RunConfig,
        _task: TaskKind,
        folder: &Path,
        _progress: Progress<'_>,
    ) -> Result<(Self, Examples<Self>), RunError> {
        let tokenizer = Tokenizer::from_encoder_folder(folder)?;
        let tokens = EncoderTokens::from_folder(folder, tokenizer.inner())?;
        let Some(mask) = tokens.mask else {
            return Err(fault(format!(
                "the tokenizer of {} has no mask token (mask_token of tokenizer_config.json), which the task masked needs",
                folder.display()
            )));
        };
        let options = config.encode_options();
        let share = config.data.mask_share;
        let data = read_parts(config, |rows| {
            let set = encode_texts(rows, &tokenizer, &options)?;
            let learned = |ids: &Vec<u32>| (ids.len() as f64 * share).round() as usize;
            let report = set.report(rows.len(), |ids| [ids.len(), learned(ids)]);
            Ok((set.examples, report))
        })?;
        let task = Masked {
            mask,
            special: tokens.special,
            vocab_size: tokenizer.vocab_size(),
            probability: share,
        };
        Ok((Self { task }, data))
    }

    fn load(
        &self,
        config: &RunConfig,
        folder: &Path,
        options: LoadOptions,
    ) -> Result<MaskedLm, RunError> {
        let options = with_head(config, options, None);
        let model = MaskedLm::load_with(folder, &options)?.with_recompute(config.recompute);
        match model.fresh() {
            [] => Ok(model),
            fresh => Err(fault(format!(
                "{} has no trained head for masked tokens; it lacks {}",
                folder.display(),
                fresh.join(", ")
            ))),
        }
    }

    fn task(&self, _model: &MaskedLm) -> Masked {
        self.task.clone()
    }
}

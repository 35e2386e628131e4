use std::path::Path;

use burn_lora_data::{Progress, Tokenizer, encode_preferences};
use burn_lora_transformer::{Decoder, LoadOptions};

use super::super::config::RunConfig;
use super::super::data::{read_parts, read_tokenizer};
use super::super::execute::RunError;
use super::super::task::TaskKind;
use super::{Examples, Job};
use crate::task::{Preference, PreferenceLoss};

/// Preferences, by a decoder.
pub(crate) struct PreferenceJob {
    tokenizer: Tokenizer,
    task: Preference,
}

impl Job for PreferenceJob {
    type Model = Decoder;
    type Task = Preference;

    const PEFT: &'static str = "CAUSAL_LM";

    fn read(
        config: &RunConfig,
        task: TaskKind,
        folder: &Path,
        _progress: Progress<'_>,
    ) -> Result<(Self, Examples<Self>), RunError> {
        let tokenizer = read_tokenizer(config, folder)?;
        let options = config.encode_options();
        let data = read_parts(config, |rows| {
            Ok(encode_preferences(rows, &tokenizer, &options)?)
        })?;
        let task = Preference {
            loss: match task {
                TaskKind::Ipo => PreferenceLoss::Ipo,
                TaskKind::Orpo => PreferenceLoss::Orpo,
                _ => PreferenceLoss::Sigmoid,
            },
            beta: config.preference.beta,
            label_smoothing: config.preference.label_smoothing,
            pad: tokenizer.pad(),
        };
        Ok((Self { tokenizer, task }, data))
    }

    fn load(
        &self,
        config: &RunConfig,
        folder: &Path,
        options: LoadOptions,
    ) -> Result<Decoder, RunError> {
        Ok(Decoder::load(folder, &options)?.with_recompute(config.recompute))
    }

    fn task(&self, _model: &Decoder) -> Preference {
        Preference {
            pad: self.tokenizer.pad(),
            ..self.task
        }
    }

    fn fan_in_fan_out(model: &Decoder) -> bool {
        model.config().fan_in_fan_out()
    }
}

use std::path::Path;

use burn_lora_data::{Progress, TaggedExample, Tokenizer, encode_tagged};
use burn_lora_transformer::{LoadOptions, TokenClassifier};

use super::super::config::RunConfig;
use super::super::data::read_parts;
use super::super::execute::RunError;
use super::super::task::TaskKind;
use super::{Examples, Job, known_classes, with_head};
use crate::task::Tagging;

/// Tags of words, by an encoder.
pub(crate) struct TaggingJob {
    classes: Vec<String>,
}

impl Job for TaggingJob {
    type Model = TokenClassifier;
    type Task = Tagging;

    const PEFT: &'static str = "TOKEN_CLS";

    fn read(
        config: &RunConfig,
        _task: TaskKind,
        folder: &Path,
        _progress: Progress<'_>,
    ) -> Result<(Self, Examples<Self>), RunError> {
        let tokenizer = Tokenizer::from_encoder_folder(folder)?;
        let options = config.encode_options();
        let mut classes = known_classes(config, folder, "ForTokenClassification")?;
        let data = read_parts(config, |rows| {
            let set = encode_tagged(rows, &tokenizer, &options, classes.as_deref())?;
            let learned = |one: &TaggedExample| one.tags.iter().flatten().count();
            let report = set.report(rows.len(), |one| [one.ids.len(), learned(one)]);
            classes.get_or_insert(set.classes);
            Ok((set.examples, report))
        })?;
        let classes = classes.unwrap_or_default();
        Ok((Self { classes }, data))
    }

    fn load(
        &self,
        config: &RunConfig,
        folder: &Path,
        options: LoadOptions,
    ) -> Result<TokenClassifier, RunError> {
        let options = with_head(config, options, Some(self.classes.len()));
        Ok(TokenClassifier::load_with(folder, &options)?.with_recompute(config.recompute))
    }

    fn task(&self, model: &TokenClassifier) -> Tagging {
        Tagging::new(self.classes.clone(), model.fresh())
    }

    fn fresh(model: &TokenClassifier) -> &[String] {
        model.fresh()
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }
}

use std::marker::PhantomData;
use std::path::Path;

use burn_lora_data::{
    LabelledExample, LabelledSet, Progress, Row, Rows, Target, Tokenizer, encode_labelled,
};
use burn_lora_transformer::{
    DecoderClassifier, FolderOptions, LoadError, LoadOptions, SequenceClassifier, WithParts,
};

use super::super::config::RunConfig;
use super::super::data::read_parts;
use super::super::execute::RunError;
use super::super::task::TaskKind;
use super::{Examples, Job, fault, known_classes, with_head};
use crate::task::{Classification, Regression, SequenceModel};

/// A model with a head for sequences, as it is loaded.
pub(crate) trait SequenceFolder: SequenceModel + WithParts {
    fn load_folder(
        folder: &Path,
        options: &FolderOptions,
        recompute: usize,
    ) -> Result<Self, LoadError>;

    /// The parameters that the folder did not hold.
    fn fresh(&self) -> &[String];

    fn is_conv1d(&self) -> bool;
}

impl SequenceFolder for SequenceClassifier {
    fn load_folder(
        folder: &Path,
        options: &FolderOptions,
        recompute: usize,
    ) -> Result<Self, LoadError> {
        Ok(Self::load_with(folder, options)?.with_recompute(recompute))
    }

    fn fresh(&self) -> &[String] {
        SequenceClassifier::fresh(self)
    }

    fn is_conv1d(&self) -> bool {
        false
    }
}

impl SequenceFolder for DecoderClassifier {
    fn load_folder(
        folder: &Path,
        options: &FolderOptions,
        recompute: usize,
    ) -> Result<Self, LoadError> {
        Ok(Self::load_with(folder, options)?.with_recompute(recompute))
    }

    fn fresh(&self) -> &[String] {
        DecoderClassifier::fresh(self)
    }

    fn is_conv1d(&self) -> bool {
        self.config().fan_in_fan_out()
    }
}

fn encoded(
    config: &RunConfig,
    tokenizer: &Tokenizer,
    rows: &Rows,
    classes: Option<&[String]>,
) -> Result<LabelledSet<LabelledExample>, RunError> {
    let options = config.encode_options();
    Ok(encode_labelled(rows, tokenizer, &options, classes)?)
}

/// Classes of texts.
pub(crate) struct ClassificationJob<M> {
    classes: Vec<String>,
    model: PhantomData<M>,
}

impl<M: SequenceFolder> Job for ClassificationJob<M> {
    type Model = M;
    type Task = Classification;

    const PEFT: &'static str = "SEQ_CLS";

    fn read(
        config: &RunConfig,
        _task: TaskKind,
        folder: &Path,
        _progress: Progress<'_>,
    ) -> Result<(Self, Examples<Self>), RunError> {
        let tokenizer = Tokenizer::from_encoder_folder(folder)?;
        let mut classes = known_classes(config, folder, "ForSequenceClassification")?;
        let data = read_parts(config, |rows| {
            let set = encoded(config, &tokenizer, rows, classes.as_deref())?;
            if set.classes.is_empty() {
                let reason = "the labels are values: name the classes, or take task: regression";
                return Err(fault(reason));
            }
            let report = set.report(rows.len(), |one| [one.ids.len(), 1]);
            classes.get_or_insert(set.classes);
            Ok((set.examples, report))
        })?;
        let classes = classes.unwrap_or_default();
        if classes.len() < 2 {
            return Err(fault(format!(
                "every label is {}: there is nothing to tell apart",
                classes.join(", ")
            )));
        }
        let job = Self {
            classes,
            model: PhantomData,
        };
        Ok((job, data))
    }

    fn load(&self, config: &RunConfig, folder: &Path, options: LoadOptions) -> Result<M, RunError> {
        let options = with_head(config, options, Some(self.classes.len()));
        Ok(M::load_folder(folder, &options, config.recompute)?)
    }

    fn task(&self, model: &M) -> Classification {
        Classification::new(self.classes.len(), model.fresh())
    }

    fn fan_in_fan_out(model: &M) -> bool {
        model.is_conv1d()
    }

    fn fresh(model: &M) -> &[String] {
        model.fresh()
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }
}

/// Numbers for texts.
pub(crate) struct RegressionJob<M> {
    model: PhantomData<M>,
}

impl<M: SequenceFolder> Job for RegressionJob<M> {
    type Model = M;
    type Task = Regression;

    const PEFT: &'static str = "SEQ_CLS";

    fn read(
        config: &RunConfig,
        _task: TaskKind,
        folder: &Path,
        _progress: Progress<'_>,
    ) -> Result<(Self, Examples<Self>), RunError> {
        let tokenizer = Tokenizer::from_encoder_folder(folder)?;
        if config.data.labels.is_some() {
            return Err(fault(
                "data.labels names classes, which regression has none of",
            ));
        }
        let data = read_parts(config, |rows| {
            let has_names = rows.iter().any(|(_, row)| {
                use burn_lora_data::Label::Name;
                matches!(row, Row::Classification { label: Name(_), .. })
            });
            if has_names {
                let reason = "the labels are names, and regression learns numbers: take task: classification";
                return Err(fault(reason));
            }
            let mut set = encoded(config, &tokenizer, rows, None)?;
            for example in &mut set.examples {
                if let Target::Class(number) = example.target {
                    example.target = Target::Value(number as f64);
                }
            }
            let report = set.report(rows.len(), |one| [one.ids.len(), 1]);
            Ok((set.examples, report))
        })?;
        Ok((Self { model: PhantomData }, data))
    }

    fn load(&self, config: &RunConfig, folder: &Path, options: LoadOptions) -> Result<M, RunError> {
        let options = with_head(config, options, Some(1));
        Ok(M::load_folder(folder, &options, config.recompute)?)
    }

    fn task(&self, model: &M) -> Regression {
        Regression::new(model.fresh())
    }

    fn fresh(model: &M) -> &[String] {
        model.fresh()
    }

    fn fan_in_fan_out(model: &M) -> bool {
        model.is_conv1d()
    }
}

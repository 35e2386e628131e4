use std::path::PathBuf;

use burn::tensor::DType;
use burn_lora_adapter::{LoraConfig, LoraInit, MethodConfig, Needs, Targets, TrainedBiases};
use burn_lora_data::{
    ColumnNames, EncodeOptions, Learn, ReadOptions, RowFormat, TextRows, Truncation, Unlearnable,
};
use burn_lora_transformer::{BeamSearch, Decoding};
use serde::{Deserialize, Serialize};

use super::adapter::AdapterSettings;
use super::options::with_options;
use super::part::PartSettings;
use super::task::TaskKind;
use crate::config::TrainConfig;
use crate::error::TrainError;
use crate::evaluate::EvaluateOptions;

/// All that a run is made of: the model, the data, the adapter, the training.
///
/// It is what a configuration file says, in the same words; [`RunConfig::parse`] reads one and tells every fault at once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RunConfig {
    /// Hugging Face folder of a model, or its name on the hub.
    pub model: String,
    /// Branch, tag or commit of a model on the hub.
    pub revision: Option<String>,
    /// Number format of the base; the adapter is f32.
    pub dtype: ModelDtype,
    /// What is learned: `causal`, `chat`, `classification`, `regression`, `tagging`, `masked`, `seq2seq`, `dpo`, `ipo`,
    /// `orpo`. `None`: what the columns of the rows and the kind of the model leave.
    pub task: Option<TaskKind>,
    /// Where it computes: `flex`, `cuda:1`. `None`: the variable `BURN_DEVICE`, then the fastest backend built.
    pub device: Option<String>,
    /// Of the first blocks, how many are computed again in the backward instead of kept.
    pub recompute: usize,
    /// Where the adapter, this configuration, the checkpoints and the logs go.
    pub output: PathBuf,
    /// What is learned.
    pub data: DataSettings,
    /// What is attached.
    pub adapter: AdapterSettings,
    /// How it is trained.
    pub training: TrainConfig,
    /// How preferences are learned.
    pub preference: PreferenceSettings,
    /// What is measured at the end.
    pub evaluation: EvaluationSettings,
}

/// How preferences are learned; of the tasks `dpo`, `ipo` and `orpo`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PreferenceSettings {
    /// How strongly the model is held to its reference; ORPO's weight of the odds ratio.
    pub beta: f64,
    /// The share of pairs that may be the wrong way round; DPO's only.
    pub label_smoothing: f64,
}

/// The rows, and how they become tokens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DataSettings {
    /// A file, a folder with `train`, `valid` and `test`, or a pattern.
    pub path: String,
    /// Files to validate with, where `path` has none.
    pub valid: Option<String>,
    /// Files to evaluate at the end, where `path` has none.
    pub test: Option<String>,
    /// Share of the rows that is held out to validate with, where there is no file for that.
    pub valid_fraction: f64,
    /// The format of the rows; `None`: their columns tell.
    pub format: Option<RowFormat>,
    /// Columns of other names: ours, then the file's.
    pub columns: ColumnNames,
    /// What a row of a plain text is.
    pub text_rows: TextRows,
    /// What happens to rows longer than `training.max_seq_len`.
    pub truncation: Truncation,
    /// What happens to rows of which no token is left to learn.
    pub unlearnable: Unlearnable,
    /// Which of the assistant's turns are learned.
    pub learn: Learn,
    /// `chatml`, or a file with a template; `None`: the tokenizer's own.
    pub chat_template: Option<String>,
    /// The names of classes or tags, by number. `None`: those that the model was trained to tell apart, otherwise those of
    /// the training rows.
    pub labels: Option<Vec<String>>,
    /// The share of tokens that are hidden, of the task `masked`.
    pub mask_share: f64,
    /// A folder to keep the tokens in, for the next run; `None` keeps none. Of language models only.
    pub cache: Option<PathBuf>,
    /// Read the training rows as they are needed, for files that do not fit in memory: JSONL and text, learned by a task that
    /// predicts the next token. Rows to validate with need files of their own.
    pub stream: bool,
    /// Rows in memory, of which the next is drawn; 1 keeps the order of the files.
    pub stream_buffer: usize,
}

/// What is measured at the end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EvaluationSettings {
    /// Most rows of the test set, or of the validation set without one; 0 measures nothing.
    pub rows: usize,
    /// Complete the prompts and compare; `None`: if the rows are prompts with completions.
    pub generate: Option<bool>,
    /// How many of the validation rows that are prompts with completions the model completes after each validation, into
    /// `logs/samples.jsonl` and the report. Of decoders.
    pub samples: usize,
    /// Beams of the search for a completion; 1 takes the most likely token each time.
    pub num_beams: usize,
    /// The exponent of a completion's length, by which its score is divided.
    pub length_penalty: f64,
    /// No sequence of this many tokens twice in a prompt and its completion.
    pub no_repeat_ngram_size: Option<usize>,
}

impl EvaluationSettings {
    /// What is measured, of rows that are prompts with completions or not.
    pub fn options(&self, batch_size: usize, have_prompts: bool) -> EvaluateOptions {
        let beam = BeamSearch {
            num_beams: self.num_beams,
            length_penalty: self.length_penalty,
            ..BeamSearch::default()
        };
        EvaluateOptions {
            batch_size,
            generate: self.generate.unwrap_or(have_prompts),
            decoding: match self.num_beams {
                1 => Decoding::Greedy,
                _ => Decoding::Beam(beam),
            },
            no_repeat_ngram_size: self.no_repeat_ngram_size,
        }
    }
}

/// Number formats of a base.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ModelDtype {
    /// 32 bits.
    #[default]
    F32,
    /// 16 bits, the range of f32.
    Bf16,
    /// 16 bits, overflows above 65,504.
    F16,
}

impl From<ModelDtype> for DType {
    fn from(dtype: ModelDtype) -> Self {
        match dtype {
            ModelDtype::F32 => Self::F32,
            ModelDtype::Bf16 => Self::BF16,
            ModelDtype::F16 => Self::F16,
        }
    }
}

impl Default for RunConfig {
    fn default() -> Self {
        Self {
            model: String::new(),
            revision: None,
            task: None,
            dtype: ModelDtype::default(),
            device: None,
            recompute: 0,
            output: PathBuf::from("output"),
            data: DataSettings::default(),
            adapter: AdapterSettings::default(),
            training: TrainConfig::default(),
            preference: PreferenceSettings::default(),
            evaluation: EvaluationSettings::default(),
        }
    }
}

impl Default for PreferenceSettings {
    fn default() -> Self {
        Self {
            beta: 0.1,
            label_smoothing: 0.0,
        }
    }
}

impl Default for DataSettings {
    fn default() -> Self {
        Self {
            path: String::new(),
            valid: None,
            test: None,
            valid_fraction: 0.1,
            format: None,
            columns: ColumnNames::new(),
            text_rows: TextRows::default(),
            truncation: Truncation::default(),
            unlearnable: Unlearnable::default(),
            learn: Learn::default(),
            chat_template: None,
            labels: None,
            mask_share: 0.15,
            cache: None,
            stream: false,
            stream_buffer: 10_000,
        }
    }
}

impl Default for EvaluationSettings {
    fn default() -> Self {
        Self {
            rows: 200,
            generate: None,
            samples: 0,
            num_beams: 1,
            length_penalty: 1.0,
            no_repeat_ngram_size: None,
        }
    }
}

impl RunConfig {
    /// Everything that is wrong with the values, in words; the files are not looked at.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let mut check = |holds: bool, fault: &str| {
            if !holds {
                faults.push(fault.to_string());
            }
        };
        check(
            !self.model.trim().is_empty(),
            "model is missing: the folder of a model, or its name on the hub",
        );
        check(
            !self.data.path.trim().is_empty(),
            "data.path is missing: a file, a folder with train, valid and test, or a pattern",
        );
        check(
            !self.output.as_os_str().is_empty(),
            "output is missing: the folder for the adapter",
        );
        check(
            (0.0..1.0).contains(&self.data.valid_fraction),
            "data.valid_fraction must be at least 0 and below 1",
        );
        let labels = self.data.labels.as_deref().unwrap_or(&[]);
        let twice = (1..labels.len()).find(|at| labels[..*at].contains(&labels[*at]));
        check(
            twice.is_none(),
            &format!(
                "data.labels has {} twice",
                twice.map_or("", |at| labels[at].as_str())
            ),
        );
        check(
            self.data.mask_share > 0.0 && self.data.mask_share < 1.0,
            "data.mask_share must be above 0 and below 1",
        );
        check(
            self.preference.beta.is_finite() && self.preference.beta > 0.0,
            "preference.beta must be above 0",
        );
        check(
            (0.0..0.5).contains(&self.preference.label_smoothing),
            "preference.label_smoothing must be at least 0 and below 0.5",
        );
        check(
            self.data.stream_buffer > 0,
            "data.stream_buffer is 0; 1 keeps the order of the files",
        );
        check(
            !(self.data.stream && self.training.packing),
            "training.packing needs all rows: leave it out where data.stream is set",
        );
        check(
            !(self.data.stream && self.data.cache.is_some()),
            "data.cache needs all rows: leave it out where data.stream is set",
        );
        let starts_from_examples = match self.adapter.init() {
            Ok(LoraInit::Informed(initialization)) => initialization.needs() != Needs::Weights,
            _ => false,
        };
        check(
            !(self.data.stream && starts_from_examples),
            "the adapter starts from examples, which data.stream does not read beforehand",
        );
        let has_tokens = self
            .adapter
            .parts()
            .iter()
            .any(PartSettings::has_virtual_tokens);
        check(
            !(has_tokens && self.training.packing),
            "training.packing has no place for virtual tokens in front of each example: leave it out",
        );
        check(
            self.adapter.is_on_weights() || self.training.lora_plus_ratio.is_none(),
            "training.lora_plus_ratio is for the up-projections of LoRA, of which the adapter has none",
        );
        check(self.evaluation.num_beams > 0, "evaluation.num_beams is 0");
        check(
            self.evaluation.length_penalty.is_finite(),
            "evaluation.length_penalty must be a number",
        );
        check(
            self.evaluation.no_repeat_ngram_size != Some(0),
            "evaluation.no_repeat_ngram_size is 0; leave it out to allow all",
        );
        let output = self.training.output_dir.as_ref();
        check(
            output.is_none_or(|dir| *dir == self.output),
            "training.output_dir differs from output: leave it out",
        );
        faults.extend(self.adapter.faults());
        faults.extend(self.option_faults());
        if let Err(TrainError::Config { faults: training }) = self.train_config().validate() {
            faults.extend(
                training
                    .into_iter()
                    .map(|fault| format!("training.{fault}")),
            );
        }
        faults
    }

    /// The training, whose files go to `output`.
    pub fn train_config(&self) -> TrainConfig {
        TrainConfig {
            output_dir: Some(self.output.clone()),
            ..self.training.clone()
        }
    }

    /// The adapter of the weights, if the method is one on weights.
    pub fn weights_config(&self) -> Option<LoraConfig> {
        self.adapter.is_on_weights().then(|| self.lora_config())
    }

    /// The adapter of the weights; LoRA where the method is none of these. Options that are wrong are left out.
    pub fn lora_config(&self) -> LoraConfig {
        let plain = self.plain_lora_config();
        with_options(plain.clone(), &self.adapter.options).unwrap_or(plain)
    }

    /// What is wrong with the options of a method on weights.
    fn option_faults(&self) -> Vec<String> {
        let method: Result<MethodConfig, _> = self.adapter.method.parse();
        // Which options there are depends on the method; one beside the weights refuses them all.
        let Ok(method) = method else {
            return Vec::new();
        };
        let method = method.with_budget(self.adapter.rank.max(1), self.training.steps.max(1));
        let config = self.plain_lora_config().with_method(method);
        let faults = with_options(config, &self.adapter.options).err();
        let faults = faults.unwrap_or_default().into_iter();
        faults
            .map(|fault| format!("adapter.options: {fault}"))
            .collect()
    }

    /// Without the options of the method.
    fn plain_lora_config(&self) -> LoraConfig {
        let method: MethodConfig = self.adapter.method.parse().unwrap_or_default();
        LoraConfig::new(self.adapter.rank, self.adapter.alpha)
            .with_method(method.with_budget(self.adapter.rank, self.training.steps))
            .with_dropout(self.adapter.dropout)
            .with_rslora(self.adapter.rslora)
            .with_trained_biases(TrainedBiases::parse(&self.adapter.bias).unwrap_or_default())
            .with_init(self.adapter.init().unwrap_or_default())
            .with_targets(Targets::parse(&self.adapter.targets))
            .with_seed(self.training.seed)
    }

    /// How the files are read.
    pub fn read_options(&self) -> ReadOptions {
        ReadOptions {
            format: self.data.format,
            columns: self.data.columns.clone(),
            text_rows: self.data.text_rows,
        }
    }

    /// How the rows are encoded.
    pub fn encode_options(&self) -> EncodeOptions {
        EncodeOptions {
            truncation: self.data.truncation,
            unlearnable: self.data.unlearnable,
            learn: self.data.learn,
            ..EncodeOptions::new(self.training.max_seq_len)
        }
    }
}

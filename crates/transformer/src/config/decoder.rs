use std::path::Path;

use burn::tensor::Device;
use serde_json::{Map, Value};

use super::family::{self, Family};
use super::fields::Fields;
use super::labels;
use super::schema::Schema;
use super::{
    Gemma2Config, Gemma3TextConfig, Gpt2Config, GptNeoxConfig, LlamaConfig, MistralConfig,
    MixtralConfig, Phi3Config, Qwen2Config, Qwen3Config, Qwen3MoeConfig,
};
use super::{check, note_dtype, parse, read_folder, to_text};
use crate::decoder::Decoder;
use crate::decoder::plan::{LinearForm, Plan};
use crate::error::ConfigError;
use crate::nearest::nearest;
use crate::weights::Key;

/// One variant for each family, and the way to it.
macro_rules! families {
    ($($(#[$meta:meta])* $family:ident($config:ident),)+) => {
        /// The configuration of a [`Decoder`](crate::Decoder).
        #[derive(Debug, Clone, PartialEq)]
        #[non_exhaustive]
        pub enum DecoderConfig {
            $($(#[$meta])* $family($config),)+
        }

        $(impl From<$config> for DecoderConfig {
            fn from(config: $config) -> Self {
                Self::$family(config)
            }
        })+

        /// Every `model_type`.
        const KNOWN: &[&str] = &[$($config::MODEL_TYPE),+];

        fn read(model_type: &str, map: Map<String, Value>) -> Result<DecoderConfig, ConfigError> {
            $(if model_type == $config::MODEL_TYPE {
                return family::read(map).map(DecoderConfig::$family);
            })+
            Err(ConfigError::UnknownModel {
                nearest: nearest(model_type, KNOWN.iter().copied()),
                found: model_type.into(),
                known: KNOWN.iter().copied().map(String::from).collect(),
            })
        }

        macro_rules! on_family {
            ($value:expr, $bound:ident => $call:expr) => {
                match $value {
                    $(DecoderConfig::$family($bound) => $call,)+
                }
            };
        }
    };
}

families! {
    /// Llama 1 to 3, SmolLM, TinyLlama and others.
    Llama(LlamaConfig),
    /// Mistral.
    Mistral(MistralConfig),
    /// Qwen2 and Qwen2.5.
    Qwen2(Qwen2Config),
    /// Qwen3.
    Qwen3(Qwen3Config),
    /// Gemma 2.
    Gemma2(Gemma2Config),
    /// Gemma 3 without images.
    Gemma3Text(Gemma3TextConfig),
    /// Phi-3 and Phi-4-mini.
    Phi3(Phi3Config),
    /// GPT-2.
    Gpt2(Gpt2Config),
    /// GPT-NeoX and Pythia.
    GptNeox(GptNeoxConfig),
    /// Mixtral.
    Mixtral(MixtralConfig),
    /// Qwen3-MoE.
    Qwen3Moe(Qwen3MoeConfig),
}

/// What a family says of all its configurations.
struct Constants {
    model_type: &'static str,
    classifier: &'static str,
    targets: &'static [&'static str],
}

fn constants<F: Family>(_: &F) -> Constants {
    Constants {
        model_type: F::MODEL_TYPE,
        classifier: F::CLASSIFIER,
        targets: F::TARGETS,
    }
}

impl DecoderConfig {
    /// Every `model_type`.
    pub(crate) const KNOWN: &[&str] = KNOWN;

    /// Reads `config.json` in a folder.
    pub fn read(dir: &Path) -> Result<Self, ConfigError> {
        read_folder(dir, Self::from_json)
    }

    /// Reads the text of a `config.json`.
    ///
    /// # Errors
    ///
    /// A `model_type` that is not known, with those that are; all fields that are missing, of the wrong kind,
    /// contradictory, or that ask for what is not built, in one error.
    pub fn from_json(text: &str) -> Result<Self, ConfigError> {
        let (model_type, map) = parse(text)?;
        read(&model_type, map)
    }

    /// The text of a `config.json`: every field of this configuration, and those of the file it was read from that it
    /// does not know.
    pub fn to_json(&self) -> String {
        to_text(on_family!(self, config => family::write(config)))
    }

    /// Whether the sizes fit each other.
    pub fn check(&self) -> Result<(), ConfigError> {
        let problems = on_family!(self, config => family::problems(config));
        check(self.model_type(), problems)
    }

    /// The `model_type` of the file.
    pub fn model_type(&self) -> &'static str {
        self.constants().model_type
    }

    /// The layers that PEFT adapts in this family unless it is told otherwise, by name.
    pub fn default_targets(&self) -> &'static [&'static str] {
        self.constants().targets
    }

    /// Whether checkpoints store the linear layers of blocks `[d_in, d_out]`, which PEFT calls `fan_in_fan_out`.
    pub fn fan_in_fan_out(&self) -> bool {
        matches!(self.plan().linear, LinearForm::Conv1d { .. })
    }

    /// The number of tokens that the embedding holds.
    pub fn vocab_size(&self) -> usize {
        self.plan().vocab_size
    }

    /// Changes the number of tokens that the embedding holds.
    pub(crate) fn set_vocab_size(&mut self, tokens: usize) {
        on_family!(self, config => config.vocab_size = tokens);
    }

    /// The parameters of a model of this configuration; nothing is allocated for them. A tied head counts once.
    pub fn parameters(&self) -> u64 {
        let size = |key: &Key| key.shape.iter().map(|size| *size as u64).product::<u64>();
        // Only shapes are declared, so that any device would do.
        let keys = Decoder::keys(self, &Device::default());
        keys.iter().map(size).sum()
    }

    /// The width of the hidden states.
    pub fn hidden_size(&self) -> usize {
        self.plan().d_model
    }

    /// The number of blocks.
    pub fn n_layers(&self) -> usize {
        self.plan().layers.len()
    }

    /// The longest sequence, in tokens, on which this code computes what the model was trained to compute.
    pub fn max_positions(&self) -> usize {
        self.plan().max_positions
    }

    /// Whether the head is the transposed embedding.
    pub fn is_tied(&self) -> bool {
        self.plan().tied
    }

    fn constants(&self) -> Constants {
        on_family!(self, config => constants(config))
    }

    /// [`Self::to_json`] of a model with a head for labels.
    pub(crate) fn to_json_with_labels(&self, num_labels: usize) -> String {
        let mut map = on_family!(self, config => family::write(config));
        let class = self.constants().classifier;
        map.insert("architectures".into(), vec![class].into());
        labels::write(&mut map, num_labels);
        to_text(map)
    }

    /// The number of labels that the file speaks of, or 2.
    pub(crate) fn num_labels(&mut self) -> Result<usize, ConfigError> {
        let model_type = self.model_type();
        let mut fields = Fields::new(self.extra());
        let num_labels = labels::read(&mut fields);
        fields.finish(model_type)?;
        Ok(num_labels)
    }

    /// What the fields mean.
    pub(crate) fn plan(&self) -> Plan {
        on_family!(self, config => config.plan())
    }

    /// The fields that mean nothing here, to be read.
    pub(crate) fn kept(&self) -> &Map<String, Value> {
        on_family!(self, config => &config.extra)
    }

    /// The fields that mean nothing here.
    pub(crate) fn extra(&mut self) -> &mut Map<String, Value> {
        on_family!(self, config => config.extra())
    }

    /// Records the dtype of the weights beside this configuration.
    pub(crate) fn set_dtype(&mut self, name: &str) {
        note_dtype(self.extra(), name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_model_names_the_known_ones_and_the_nearest() {
        let error =
            DecoderConfig::from_json(r#"{"model_type": "qwen3_next"}"#).expect_err("unknown");
        let text = error.to_string();
        assert!(text.contains("nearest: `qwen3"), "{text}");
        assert!(text.contains("llama, mistral, qwen2, qwen3"), "{text}");
    }

    #[test]
    fn a_file_without_model_type_is_refused() {
        assert!(matches!(
            DecoderConfig::from_json("{}"),
            Err(ConfigError::Json(_))
        ));
        assert!(matches!(
            DecoderConfig::from_json("[]"),
            Err(ConfigError::Json(_))
        ));
    }
}

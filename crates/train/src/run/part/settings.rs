//! The settings of each method, with their defaults.

use serde::{Deserialize, Serialize};

/// Settings of prompt tuning.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PromptSettings {
    /// How many virtual tokens.
    pub num_virtual_tokens: usize,
    /// How they start; `None`: `TEXT` where there is one, otherwise `RANDOM`.
    pub prompt_tuning_init: Option<PromptStart>,
    /// The text, of whose tokens they start as the embeddings: as the tokenizer gives them, special ones included, repeated until
    /// there are enough.
    pub prompt_tuning_init_text: Option<String>,
}

/// How the embeddings of prompt tuning start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum PromptStart {
    /// Standard normal numbers.
    #[serde(alias = "random")]
    Random,
    /// As the embeddings of tokens that are drawn.
    #[serde(alias = "sample_vocab")]
    SampleVocab,
    /// As the embeddings of a text.
    #[serde(alias = "text")]
    Text,
}

/// Settings of P-tuning.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PTuningSettings {
    /// How many virtual tokens.
    pub num_virtual_tokens: usize,
    /// The network that makes them.
    pub encoder_reparameterization_type: EncoderType,
    /// Its inner width; `None`: that of the model's embedding.
    pub encoder_hidden_size: Option<usize>,
    /// How many LSTMs, one after the other; `None`: 2. An MLP has none.
    pub encoder_num_layers: Option<usize>,
}

/// The network of P-tuning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum EncoderType {
    /// Three linear layers with ReLU between them.
    #[default]
    #[serde(rename = "MLP", alias = "mlp")]
    Mlp,
    /// Bidirectional LSTMs and two linear layers.
    #[serde(rename = "LSTM", alias = "lstm")]
    Lstm,
}

/// Settings of prefix tuning.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PrefixSettings {
    /// How many virtual tokens.
    pub num_virtual_tokens: usize,
    /// Make the keys and values by a network from one embedding for each token, and train that.
    pub prefix_projection: bool,
    /// The inner width of the network; `None`: that of a layer's keys.
    pub encoder_hidden_size: Option<usize>,
}

/// Settings of bottleneck adapters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct BottleneckSettings {
    /// Their inner width.
    pub bottleneck_size: usize,
    /// Where they are.
    pub placement: Placement,
    /// The activation between their matrices, as `config.json` names such: `relu`, `gelu`, `silu`, `tanh`.
    pub non_linearity: String,
    /// What their output is multiplied by.
    pub scaling: f64,
}

/// Where bottlenecks are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Placement {
    /// After attention and after the inner layer.
    Houlsby,
    /// After the inner layer.
    #[default]
    Pfeiffer,
    /// Beside the inner layer.
    Parallel,
}

/// As many as most of the examples of PEFT have.
const TOKENS: usize = 20;

impl Default for PromptSettings {
    fn default() -> Self {
        Self {
            num_virtual_tokens: TOKENS,
            prompt_tuning_init: None,
            prompt_tuning_init_text: None,
        }
    }
}

impl Default for PTuningSettings {
    fn default() -> Self {
        Self {
            num_virtual_tokens: TOKENS,
            encoder_reparameterization_type: EncoderType::default(),
            encoder_hidden_size: None,
            encoder_num_layers: None,
        }
    }
}

impl Default for PrefixSettings {
    fn default() -> Self {
        Self {
            num_virtual_tokens: TOKENS,
            prefix_projection: false,
            encoder_hidden_size: None,
        }
    }
}

impl Default for BottleneckSettings {
    fn default() -> Self {
        Self {
            bottleneck_size: 64,
            placement: Placement::default(),
            non_linearity: "relu".into(),
            scaling: 1.0,
        }
    }
}

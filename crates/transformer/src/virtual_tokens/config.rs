/// Which virtual tokens a model is to have.
#[derive(Debug, Clone, PartialEq)]
pub enum VirtualTokensConfig {
    /// Prompt tuning: their embeddings are trained.
    Prompt {
        /// How many.
        tokens: usize,
        /// How they start.
        init: PromptInit,
    },
    /// P-tuning: a network that makes their embeddings is trained.
    PTuning {
        /// How many.
        tokens: usize,
        /// What the network is.
        encoder: PromptEncoderKind,
        /// Its inner width.
        d_hidden: usize,
    },
    /// Prefix tuning: their keys and values are trained.
    Prefix {
        /// How many.
        tokens: usize,
        /// The inner width of a network that makes them from one embedding for each; `None` trains them themselves.
        projection: Option<usize>,
    },
}

/// How the embeddings of prompt tuning start (`prompt_tuning_init`).
#[derive(Debug, Clone, Default, PartialEq)]
pub enum PromptInit {
    /// Standard normal numbers (`RANDOM`).
    #[default]
    Random,
    /// Embeddings of tokens that are drawn from the vocabulary (`SAMPLE_VOCAB`).
    SampleVocab,
    /// Embeddings of these tokens, those of a text mostly (`TEXT`): repeated until there are enough, and cut off.
    Tokens(Vec<u32>),
}

/// The network of P-tuning (`encoder_reparameterization_type`).
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub enum PromptEncoderKind {
    /// Three linear layers with ReLU between them (`MLP`).
    #[default]
    Mlp,
    /// Bidirectional LSTMs, and two linear layers (`LSTM`).
    Lstm {
        /// How many LSTMs, one after the other (`encoder_num_layers`).
        layers: usize,
    },
}

impl VirtualTokensConfig {
    /// How many virtual tokens there will be.
    pub fn tokens(&self) -> usize {
        match self {
            Self::Prompt { tokens, .. }
            | Self::PTuning { tokens, .. }
            | Self::Prefix { tokens, .. } => *tokens,
        }
    }

    /// Everything that is wrong with it for a model of this vocabulary and number of positions.
    pub(crate) fn faults(&self, vocab_size: usize, max_positions: usize) -> Vec<String> {
        let mut faults = Vec::new();
        let tokens = self.tokens();
        if tokens == 0 {
            faults.push("there are 0 of them".to_string());
        }
        if tokens >= max_positions {
            faults.push(format!(
                "{tokens} of them leave no room in {max_positions} positions"
            ));
        }
        match self {
            Self::Prompt {
                init: PromptInit::Tokens(ids),
                ..
            } => {
                if ids.is_empty() {
                    faults.push("they start from a text without tokens".to_string());
                }
                let unknown = ids.iter().filter(|id| **id as usize >= vocab_size);
                faults.extend(unknown.map(|id| {
                    format!("they start from token {id}, the vocabulary has {vocab_size}")
                }));
            }
            Self::PTuning {
                encoder, d_hidden, ..
            } => {
                if *d_hidden == 0 {
                    faults.push("their network has a width of 0".to_string());
                }
                if *encoder == (PromptEncoderKind::Lstm { layers: 0 }) {
                    faults.push("their network has 0 LSTMs".to_string());
                }
            }
            Self::Prefix {
                projection: Some(0),
                ..
            } => faults.push("their network has a width of 0".to_string()),
            Self::Prompt { .. } | Self::Prefix { .. } => {}
        }
        faults
    }
}

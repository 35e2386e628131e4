use std::fmt;
use std::str::FromStr;

use super::delta_dropout::DeltaDropout;
use super::table::METHODS;
use crate::error::{AdapterError, nearest};
use crate::targets::Targets;

/// Which method an adapter is of, with what only that method asks for.
///
/// A word chooses it, with the defaults of PEFT: `"dora".parse()`.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum MethodConfig {
    /// [`Lora`](crate::Lora).
    #[default]
    Lora,
    /// [`Lora`](crate::Lora) whose A stays as it was drawn (Zhang et al., 2023, "LoRA-FA", arXiv:2308.03303). To PEFT's files
    /// it is LoRA.
    LoraFa,
    /// [`Dora`](crate::Dora).
    Dora,
    /// [`Vera`](crate::Vera).
    Vera(VeraConfig),
    /// [`LoHa`](crate::LoHa).
    LoHa(LoHaConfig),
    /// [`LoKr`](crate::LoKr).
    LoKr(LoKrConfig),
    /// [`AdaLora`](crate::AdaLora).
    AdaLora(AdaLoraConfig),
    /// [`Ia3`](crate::Ia3).
    Ia3(Ia3Config),
    /// [`Dense`](crate::Dense) on the biases of the targets.
    BitFit,
    /// [`Dense`](crate::Dense) on all parameters of the targets.
    Full,
    /// [`Tokens`](crate::Tokens): the rows of the targeted embeddings that are trained.
    Tokens(Vec<usize>),
}

impl MethodConfig {
    /// The word for it.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Lora => "lora",
            Self::LoraFa => "lora-fa",
            Self::Dora => "dora",
            Self::Vera(_) => "vera",
            Self::LoHa(_) => "loha",
            Self::LoKr(_) => "lokr",
            Self::AdaLora(_) => "adalora",
            Self::Ia3(_) => "ia3",
            Self::BitFit => "bitfit",
            Self::Full => "full",
            Self::Tokens(_) => "tokens",
        }
    }

    /// For a run of this length: AdaLoRA's budget goes from `rank` to half of it in as many steps. Other methods have none.
    pub fn with_budget(mut self, rank: usize, steps: usize) -> Self {
        if let Self::AdaLora(adalora) = &mut self {
            adalora.total_steps = steps;
            adalora.target_rank = rank.div_ceil(2);
        }
        self
    }

    /// PEFT's word for the biases of the adapted layers, for methods beside which biases are trained.
    pub(crate) fn biases_word(&self) -> Option<&'static str> {
        match self {
            Self::Lora | Self::LoraFa | Self::Dora | Self::AdaLora(_) => Some("lora_only"),
            Self::Vera(_) => Some("vera_only"),
            _ => None,
        }
    }

    /// Whether it is a product of two factors of LoRA's form, for which options of LoRA have a meaning.
    pub(crate) fn is_lora(&self) -> bool {
        matches!(self, Self::Lora | Self::LoraFa | Self::Dora)
    }

    /// What is dropped in training of a change that is a matrix.
    pub(crate) fn delta_dropout(&self) -> DeltaDropout {
        match self {
            Self::LoHa(loha) => DeltaDropout {
                outputs: loha.rank_dropout,
                rescales: true,
                whole: loha.module_dropout,
            },
            Self::LoKr(lokr) => DeltaDropout {
                outputs: lokr.rank_dropout,
                rescales: lokr.rank_dropout_scale,
                whole: lokr.module_dropout,
            },
            _ => DeltaDropout::default(),
        }
    }

    /// Whether a rank belongs to it.
    pub(crate) fn has_rank(&self) -> bool {
        !matches!(
            self,
            Self::Ia3(_) | Self::BitFit | Self::Full | Self::Tokens(_)
        )
    }
}

impl fmt::Display for MethodConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl FromStr for MethodConfig {
    type Err = AdapterError;

    /// # Errors
    /// [`AdapterError::Config`] with the nearest word and all of them.
    fn from_str(word: &str) -> Result<Self, AdapterError> {
        let plain = word.trim().to_ascii_lowercase().replace('_', "-");
        Ok(match plain.as_str() {
            "lora" => Self::Lora,
            "lora-fa" => Self::LoraFa,
            "dora" => Self::Dora,
            "vera" => Self::Vera(VeraConfig::default()),
            "loha" => Self::LoHa(LoHaConfig::default()),
            "lokr" => Self::LoKr(LoKrConfig::default()),
            "adalora" => Self::AdaLora(AdaLoraConfig::default()),
            "ia3" => Self::Ia3(Ia3Config::default()),
            "bitfit" => Self::BitFit,
            "full" => Self::Full,
            "tokens" => Self::Tokens(Vec::new()),
            _ => {
                let words: Vec<&str> = METHODS.iter().map(|method| method.word).collect();
                let hint = nearest(&plain, words.iter().copied());
                let hint =
                    hint.map_or(String::new(), |word| format!(" (did you mean \"{word}\"?)"));
                return Err(AdapterError::Config {
                    faults: vec![format!(
                        "there is no method \"{word}\"{hint}; the methods are: {}",
                        words.join(", ")
                    )],
                });
            }
        })
    }
}

/// What [`Vera`](crate::Vera) asks for.
#[derive(Clone, Debug, PartialEq)]
pub struct VeraConfig {
    /// Seed of the projections (`projection_prng_key`); drawn as PEFT does.
    pub key: u64,
    /// Whether a file holds the projections.
    pub save_projection: bool,
    /// Where the inner scales start.
    pub d_initial: f64,
}

impl Default for VeraConfig {
    fn default() -> Self {
        Self {
            key: 0,
            save_projection: true,
            d_initial: 0.1,
        }
    }
}

/// What [`LoHa`](crate::LoHa) asks for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LoHaConfig {
    /// Whether the factors of a convolution meet in a core for each place of its kernel. Not of a kernel of 1.
    pub use_effective_conv2d: bool,
    /// Probability that an output of the change is dropped in training, in `[0, 1)`. Those that are left are scaled by the
    /// share of them.
    pub rank_dropout: f64,
    /// Probability that the whole change of a layer is dropped in a step of training, in `[0, 1)`.
    pub module_dropout: f64,
}

/// What [`LoKr`](crate::LoKr) asks for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LoKrConfig {
    /// Whether the small matrix is made low-rank, too, where it is large enough.
    pub decompose_both: bool,
    /// Size of the small matrix; near the root of the layer's where none is given.
    pub decompose_factor: Option<usize>,
    /// Whether the factors of a convolution meet in a core for each place of its kernel. Not of a kernel of 1.
    pub use_effective_conv2d: bool,
    /// Probability that an output of the change is dropped in training, in `[0, 1)`.
    pub rank_dropout: f64,
    /// Whether those that are left are scaled by the share of them.
    pub rank_dropout_scale: bool,
    /// Probability that the whole change of a layer is dropped in a step of training, in `[0, 1)`.
    pub module_dropout: f64,
}

/// What [`AdaLora`](crate::AdaLora) asks for. The rank of the configuration is that at the start.
#[derive(Clone, Debug, PartialEq)]
pub struct AdaLoraConfig {
    /// The mean rank at the end.
    pub target_rank: usize,
    /// Steps before the budget falls.
    pub t_init: usize,
    /// Steps after it has fallen.
    pub t_final: usize,
    /// Steps between two allocations.
    pub delta_t: usize,
    /// Decay of the mean of sensitivities.
    pub beta_1: f64,
    /// Decay of the mean of their uncertainty.
    pub beta_2: f64,
    /// Weight of the penalty on A and B.
    pub orthogonality_weight: f64,
    /// Steps in all.
    pub total_steps: usize,
    /// Which singular values are left, by the paths of the layers: what a file says of an adapter whose budget was given away.
    pub kept: Vec<(String, Vec<bool>)>,
}

impl Default for AdaLoraConfig {
    fn default() -> Self {
        Self {
            target_rank: 8,
            t_init: 0,
            t_final: 0,
            delta_t: 1,
            beta_1: 0.85,
            beta_2: 0.85,
            orthogonality_weight: 0.5,
            total_steps: 1000,
            kept: Vec::new(),
        }
    }
}

impl AdaLoraConfig {
    pub(crate) fn check(&self, faults: &mut Vec<String>) {
        if self.target_rank == 0 {
            faults.push("target_rank (target_r) is 0".to_string());
        }
        if self.total_steps == 0 {
            faults.push("total_steps (total_step) is 0; the budget is a plan for all steps".into());
        } else if self.t_init + self.t_final >= self.total_steps {
            faults.push(format!(
                "t_init {} and t_final {} leave none of {} steps for the budget to fall",
                self.t_init, self.t_final, self.total_steps
            ));
        }
        if self.delta_t == 0 {
            faults.push("delta_t (deltaT) is 0".to_string());
        }
        for (name, beta) in [("beta_1", self.beta_1), ("beta_2", self.beta_2)] {
            if !(beta > 0.0 && beta < 1.0) {
                faults.push(format!("{name} is {beta}; it must be between 0 and 1"));
            }
        }
        if self.orthogonality_weight.is_nan() || self.orthogonality_weight < 0.0 {
            faults.push(format!(
                "orthogonality_weight (orth_reg_weight) is {}; it must be at least 0",
                self.orthogonality_weight
            ));
        }
    }
}

/// What [`Ia3`](crate::Ia3) asks for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ia3Config {
    /// Which of the targets scale their inputs and not their outputs (`feedforward_modules`).
    pub feedforward: Option<Targets>,
}

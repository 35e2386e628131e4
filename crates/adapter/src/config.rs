use crate::beside::TrainedBiases;
use crate::error::AdapterError;
use crate::init::LoraInit;
use crate::method::{Columns, MethodConfig};
use crate::targets::{Pattern, Targets, is_suffix};

/// What an adapter of any method is to be.
pub type AdapterConfig = LoraConfig;

/// What an adapter is to be: its method, rank, scale, dropout, and where it goes. LoRA, unless a word changes the method.
///
/// ```
/// use burn_lora_adapter::{LoraConfig, Targets};
///
/// let config = LoraConfig::new(16, 32.0)
///     .with_targets(Targets::names(["q_proj", "v_proj"]))
///     .with_dropout(0.05);
/// assert_eq!(config.scale(16, 32.0), 2.0);
///
/// let other = config.with_method("dora".parse()?);
/// # Ok::<(), burn_lora_adapter::AdapterError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct LoraConfig {
    /// Which method; one word changes it.
    pub method: MethodConfig,
    /// Rank `r` of the change.
    pub rank: usize,
    /// Numerator of the scale; the change is multiplied by `alpha / r`.
    pub alpha: f64,
    /// Probability that an input of the adapter is dropped in training, in `[0, 1)`. It acts where the layer calls
    /// [`project`](crate::project); a layer that composes the weight has no input of the adapter to drop, and so have methods
    /// other than LoRA, DoRA, AdaLoRA and VeRA: the same configuration goes with each of them. What LoHa and LoKr drop is their own.
    pub dropout: f64,
    /// Scale by `alpha / sqrt(r)`, which keeps high ranks from learning slowly (rsLoRA).
    pub use_rslora: bool,
    /// Which layers are adapted.
    pub targets: Targets,
    /// Layers left out although `targets` names them.
    pub exclude: Option<Targets>,
    /// Only layers with these indices, by the first number in a layer's path (`model.layers.3.mlp` has index 3); `None`
    /// adapts all.
    pub layers_to_transform: Option<Vec<usize>>,
    /// Names, or expressions for them, of the list that `layers_to_transform` counts in (`layers`, `h`); any if there is none.
    pub layers_pattern: Vec<String>,
    /// Train a bias of the up-projection, too: added to the layer's own bias, so that only layers with one can have it. Of LoRA
    /// and DoRA.
    pub lora_bias: bool,
    /// Which biases of the base are trained beside the factors and saved with them. Of LoRA, DoRA, AdaLoRA and VeRA.
    pub trained_biases: TrainedBiases,
    /// Fused projections of which only some columns are adapted: the end of a layer's path, and which. Of LoRA.
    pub parts: Vec<(String, Columns)>,
    /// Convolutions in groups, by the ends of their paths, and how many groups each has, which a kernel alone does not tell. Of LoRA:
    /// a folder then has its factors as PEFT lays them out for a convolution in groups, of as many times the rank.
    pub conv_groups: Vec<(String, usize)>,
    /// Ranks of single layers: a regular expression on the end of the path, and the rank. The first match wins.
    pub rank_pattern: Vec<(String, usize)>,
    /// Alphas of single layers, matched like [`rank_pattern`](Self::rank_pattern).
    pub alpha_pattern: Vec<(String, f64)>,
    /// Rows of embeddings that are trained beside the factors, by the end of the embedding's path; an empty one is the first
    /// embedding. Of LoRA and DoRA.
    pub trainable_tokens: Vec<(String, Vec<usize>)>,
    /// Modules that are trained as a whole beside the adapter and saved with it, by the ends of their paths: a fresh head
    /// (`classifier`). No adapter goes onto them.
    pub modules_to_save: Vec<String>,
    /// How the factors start.
    pub init: LoraInit,
    /// Seed of the factors. The same seed gives the same factors on every device.
    pub seed: u64,
}

impl LoraConfig {
    /// A configuration for all linear layers but the output head, without dropout.
    pub fn new(rank: usize, alpha: f64) -> Self {
        Self {
            method: MethodConfig::Lora,
            rank,
            alpha,
            dropout: 0.0,
            use_rslora: false,
            targets: Targets::AllLinear,
            exclude: None,
            layers_to_transform: None,
            layers_pattern: Vec::new(),
            lora_bias: false,
            trained_biases: TrainedBiases::None,
            trainable_tokens: Vec::new(),
            parts: Vec::new(),
            conv_groups: Vec::new(),
            rank_pattern: Vec::new(),
            alpha_pattern: Vec::new(),
            modules_to_save: Vec::new(),
            init: LoraInit::default(),
            seed: 0,
        }
    }

    /// Chooses the method.
    pub fn with_method(mut self, method: MethodConfig) -> Self {
        self.method = method;
        self
    }

    /// Sets whether the up-projection has a bias.
    pub fn with_lora_bias(mut self, lora_bias: bool) -> Self {
        self.lora_bias = lora_bias;
        self
    }

    /// Sets which biases of the base are trained, too.
    pub fn with_trained_biases(mut self, trained_biases: TrainedBiases) -> Self {
        self.trained_biases = trained_biases;
        self
    }

    /// Adapts only some columns of the fused projections whose path ends with a name.
    pub fn with_parts(mut self, name: impl Into<String>, columns: Columns) -> Self {
        self.parts.push((name.into(), columns));
        self
    }

    /// Says of the convolutions whose path ends with a name how many groups they have.
    pub fn with_conv_groups(mut self, name: impl Into<String>, groups: usize) -> Self {
        self.conv_groups.push((name.into(), groups));
        self
    }

    /// How many groups the layer of a path has: 1 where nothing says otherwise.
    pub(crate) fn groups_of(&self, path: &str) -> usize {
        let mut named = self.conv_groups.iter();
        let found = named.find(|(name, _)| is_suffix(path, name));
        found.map_or(1, |(_, groups)| *groups)
    }

    /// Sets which layers are adapted.
    pub fn with_targets(mut self, targets: Targets) -> Self {
        self.targets = targets;
        self
    }

    /// Sets which targeted layers are left out.
    pub fn with_exclude(mut self, exclude: Targets) -> Self {
        self.exclude = Some(exclude);
        self
    }

    /// Sets the dropout on the adapters' inputs.
    pub fn with_dropout(mut self, dropout: f64) -> Self {
        self.dropout = dropout;
        self
    }

    /// Chooses `alpha / sqrt(r)` as the scale.
    pub fn with_rslora(mut self, use_rslora: bool) -> Self {
        self.use_rslora = use_rslora;
        self
    }

    /// Sets which modules are trained as a whole and saved with the adapter.
    pub fn with_modules_to_save<S: Into<String>>(
        mut self,
        names: impl IntoIterator<Item = S>,
    ) -> Self {
        self.modules_to_save = names.into_iter().map(Into::into).collect();
        self
    }

    /// Sets how the factors start.
    pub fn with_init(mut self, init: LoraInit) -> Self {
        self.init = init;
        self
    }

    /// Sets the seed of the factors.
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// The scale of an adapter of this rank and alpha: `alpha / r`, or `alpha / sqrt(r)` with rsLoRA. AdaLoRA, whose rank may
    /// become 0, divides by a little more.
    pub fn scale(&self, rank: usize, alpha: f64) -> f64 {
        match self.use_rslora {
            _ if matches!(self.method, MethodConfig::AdaLora(_)) => alpha / (rank as f64 + 1e-5),
            true => alpha / (rank as f64).sqrt(),
            false => alpha / rank as f64,
        }
    }

    /// Everything that is wrong with the configuration by itself, before any module is seen.
    ///
    /// # Errors
    /// [`AdapterError::Config`] with all faults.
    pub(crate) fn check(&self) -> Result<Patterns, AdapterError> {
        let mut faults = Vec::new();
        if self.rank == 0 && self.method.has_rank() {
            faults.push("rank (r) is 0; it must be at least 1".to_string());
        }
        self.check_method(&mut faults);
        check_alpha("alpha (lora_alpha)", self.alpha, &mut faults);
        if !(0.0..1.0).contains(&self.dropout) {
            faults.push(format!(
                "dropout (lora_dropout) is {}; it must be at least 0 and less than 1",
                self.dropout
            ));
        }
        let mut ranks = Vec::new();
        for (key, rank) in &self.rank_pattern {
            if *rank == 0 {
                faults.push(format!("rank_pattern gives \"{key}\" the rank 0"));
            }
            ranks.extend(compile("rank_pattern", key, &mut faults).map(|p| (p, *rank)));
        }
        let mut alphas = Vec::new();
        for (key, alpha) in &self.alpha_pattern {
            check_alpha(&format!("alpha_pattern of \"{key}\""), *alpha, &mut faults);
            alphas.extend(compile("alpha_pattern", key, &mut faults).map(|p| (p, *alpha)));
        }
        match faults.is_empty() {
            true => Ok(Patterns { ranks, alphas }),
            false => Err(AdapterError::Config { faults }),
        }
    }
}

impl LoraConfig {
    /// What of the options does not go with the method.
    fn check_method(&self, faults: &mut Vec<String>) {
        let word = self.method.word();
        let is_lora = self.method.is_lora();
        let options = [
            ("lora_bias", self.lora_bias && !is_lora),
            (
                "trainable tokens",
                !self.trainable_tokens.is_empty() && !is_lora,
            ),
            ("rsLoRA's scale", self.use_rslora && !is_lora),
            (
                "trained biases beside it (bias)",
                self.trained_biases != TrainedBiases::None && self.method.biases_word().is_none(),
            ),
            (
                "convolutions in groups (conv_groups)",
                !self.conv_groups.is_empty()
                    && !matches!(self.method, MethodConfig::Lora | MethodConfig::LoraFa),
            ),
            (
                "columns of fused projections",
                !self.parts.is_empty() && (self.method != MethodConfig::Lora || self.lora_bias),
            ),
        ];
        for (option, is_wrong) in options {
            if is_wrong {
                faults.push(format!("the method \"{word}\" has no {option}"));
            }
        }
        if !self.layers_pattern.is_empty() && self.layers_to_transform.is_none() {
            faults.push(
                "layers_pattern says what layers_to_transform counts, which is not given".into(),
            );
        }
        for pattern in &self.layers_pattern {
            compile("layers_pattern", pattern, faults);
        }
        let dropout = self.method.delta_dropout();
        for (name, probability) in [
            ("rank_dropout", dropout.outputs),
            ("module_dropout", dropout.whole),
        ] {
            if !(0.0..1.0).contains(&probability) {
                faults.push(format!(
                    "{name} is {probability}; it must be at least 0 and less than 1"
                ));
            }
        }
        match &self.method {
            MethodConfig::AdaLora(config) => config.check(faults),
            MethodConfig::Tokens(indices) => {
                if indices.is_empty() {
                    faults.push("no token is named (token_indices)".to_string());
                }
                let mut sorted = indices.clone();
                sorted.sort_unstable();
                if sorted.windows(2).any(|pair| pair[0] == pair[1]) {
                    faults.push("a token is named twice (token_indices)".to_string());
                }
            }
            _ => {}
        }
    }
}

fn check_alpha(what: &str, alpha: f64, faults: &mut Vec<String>) {
    if !alpha.is_finite() || alpha == 0.0 {
        faults.push(format!(
            "{what} is {alpha}; it must be a number other than 0"
        ));
    }
}

fn compile(field: &str, key: &str, faults: &mut Vec<String>) -> Option<Pattern> {
    match Pattern::suffix(key) {
        Ok(pattern) => Some(pattern),
        Err(error) => {
            faults.push(format!(
                "{field} has the invalid expression \"{key}\": {error}"
            ));
            None
        }
    }
}

/// The compiled rank and alpha patterns.
pub(crate) struct Patterns {
    pub(crate) ranks: Vec<(Pattern, usize)>,
    pub(crate) alphas: Vec<(Pattern, f64)>,
}

impl Patterns {
    pub(crate) fn rank(&self, path: &str, default: usize) -> usize {
        first(&self.ranks, path).unwrap_or(default)
    }

    pub(crate) fn alpha(&self, path: &str, default: f64) -> f64 {
        first(&self.alphas, path).unwrap_or(default)
    }
}

fn first<T: Copy>(patterns: &[(Pattern, T)], path: &str) -> Option<T> {
    patterns
        .iter()
        .find(|(pattern, _)| pattern.matches(path))
        .map(|(_, value)| *value)
}

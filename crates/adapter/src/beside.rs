//! What of the base is trained beside an adapter and saved with it: whole modules, and biases.

use std::collections::HashSet;

use crate::config::LoraConfig;
use crate::plan::Planned;
use crate::saved::is_saved;

/// Which biases of the base are trained beside an adapter: PEFT's `bias`.
///
/// They are the base's own: switching the adapter off or deleting it leaves them as they were trained, and a merged model has
/// them. (BitFit, where biases are the adapter, gives the base back.) At most one adapter of a module may have such.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TrainedBiases {
    /// `none`
    #[default]
    None,
    /// `lora_only`: those of the adapted layers.
    Adapted,
    /// `all`: every parameter of the base that is called `bias`, those of norms among them.
    All,
}

impl TrainedBiases {
    /// What PEFT's word means; `lora_only` and `vera_only` are the same for their methods.
    pub fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "none" => Self::None,
            "lora_only" | "vera_only" => Self::Adapted,
            "all" => Self::All,
            _ => return None,
        })
    }
}

/// The parameters of the base that are trained and saved with an adapter.
#[derive(Clone, Debug)]
pub(crate) struct Beside<'a> {
    modules: &'a [String],
    biases: TrainedBiases,
    /// The paths of the adapted layers.
    adapted: HashSet<String>,
}

impl<'a> Beside<'a> {
    pub(crate) fn new(config: &'a LoraConfig, plan: &[Planned]) -> Self {
        let adapted = plan.iter().filter(|planned| !planned.is_beside());
        Self {
            modules: &config.modules_to_save,
            biases: config.trained_biases,
            adapted: adapted
                .map(|planned| planned.module_path().to_string())
                .collect(),
        }
    }

    /// Of whole modules alone.
    pub(crate) fn modules(modules: &'a [String]) -> Self {
        Self {
            modules,
            biases: TrainedBiases::None,
            adapted: HashSet::new(),
        }
    }

    /// Whether the parameter of this path is one of them.
    pub(crate) fn holds(&self, path: &str) -> bool {
        is_saved(path, self.modules) || self.holds_bias(path)
    }

    fn holds_bias(&self, path: &str) -> bool {
        let layer = path.strip_suffix(".bias");
        match self.biases {
            TrainedBiases::None => false,
            TrainedBiases::Adapted => layer.is_some_and(|layer| self.adapted.contains(layer)),
            TrainedBiases::All => layer.is_some() || path == "bias",
        }
    }

    /// Where PEFT has the parameter inside its own model: a bias of an adapted layer lies in what the adapter wraps.
    pub(crate) fn file_path(&self, path: &str) -> String {
        match path.strip_suffix(".bias") {
            Some(layer) if self.adapted.contains(layer) => format!("{layer}.base_layer.bias"),
            _ => path.to_string(),
        }
    }

    pub(crate) fn trains_all_biases(&self) -> bool {
        self.biases == TrainedBiases::All
    }

    /// Whether PEFT writes this tensor of the base without any need: with all biases, it takes those of both copies of a module
    /// that is saved as a whole, whose trained copy stands there under the module's own name.
    pub(crate) fn is_idle(&self, path: &str) -> bool {
        let inside = [".original_module.", ".modules_to_save."];
        self.biases == TrainedBiases::All
            && path.ends_with(".bias")
            && inside.iter().any(|part| path.contains(part))
    }
}
